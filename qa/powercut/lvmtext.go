// SPDX-License-Identifier: Apache-2.0

package powercut

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// section is one section of LVM's configuration text.
type section struct {
	sections map[string]*section
	numbers  map[string]int64
	texts    map[string]string
	lists    map[string][]string
}

func newSection() *section {
	return &section{map[string]*section{}, map[string]int64{}, map[string]string{}, map[string][]string{}}
}

// maxNested bounds sections within sections; LVM uses four.
const maxNested = 8

// parseText reads LVM's metadata: name { ... }, name = value, with numbers,
// texts in quotes and lists in brackets.
func parseText(text string) (*section, error) {
	p := &textParser{rest: strings.TrimRight(text, "\x00")}
	root := newSection()
	if err := p.section(root, 0); err != nil {
		return nil, err
	}
	return root, nil
}

type textParser struct {
	rest string
}

// token gives the next word, quoted text or mark; "" at the end.
func (p *textParser) token() (string, error) {
	for {
		p.rest = strings.TrimLeft(p.rest, " \t\n\r")
		if !strings.HasPrefix(p.rest, "#") {
			break
		}
		_, p.rest, _ = strings.Cut(p.rest, "\n")
	}
	if p.rest == "" {
		return "", nil
	}
	if p.rest[0] == '"' {
		for i := 1; i < len(p.rest); i++ {
			switch p.rest[i] {
			case '\\':
				i++
			case '"':
				t := p.rest[:i]
				p.rest = p.rest[i+1:]
				return t, nil
			}
		}
		return "", errors.New("a text without end")
	}
	if strings.ContainsRune("{}=[],", rune(p.rest[0])) {
		t := p.rest[:1]
		p.rest = p.rest[1:]
		return t, nil
	}
	n := strings.IndexAny(p.rest, " \t\n\r{}=[],\"#")
	if n < 0 {
		n = len(p.rest)
	}
	t := p.rest[:n]
	p.rest = p.rest[n:]
	return t, nil
}

func (p *textParser) section(s *section, depth int) error {
	if depth > maxNested {
		return errors.New("sections within sections without end")
	}
	for {
		name, err := p.token()
		if err != nil {
			return err
		}
		if name == "" && depth == 0 || name == "}" && depth > 0 {
			return nil
		}
		if name == "" || strings.ContainsAny(name[:1], "{}=[],\"") {
			return fmt.Errorf("%q where a name belongs", name)
		}
		mark, err := p.token()
		if err != nil {
			return err
		}
		switch mark {
		case "{":
			inner := newSection()
			if err := p.section(inner, depth+1); err != nil {
				return err
			}
			s.sections[name] = inner
		case "=":
			if err := p.value(s, name); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%q after %s", mark, name)
		}
	}
}

func (p *textParser) value(s *section, name string) error {
	t, err := p.token()
	if err != nil {
		return err
	}
	if t == "[" {
		list := []string{}
		for {
			t, err := p.token()
			switch {
			case err != nil:
				return err
			case t == "":
				return errors.New("a list without end")
			case t == "]":
				s.lists[name] = list
				return nil
			case t != ",":
				list = append(list, strings.TrimPrefix(t, `"`))
			}
		}
	}
	if text, ok := strings.CutPrefix(t, `"`); ok {
		s.texts[name] = text
		return nil
	}
	n, err := strconv.ParseInt(t, 10, 64)
	if err != nil {
		// A number with a point is none that is needed here.
		if _, err := strconv.ParseFloat(t, 64); err != nil {
			return fmt.Errorf("%s = %q is no value", name, t)
		}
		return nil
	}
	s.numbers[name] = n
	return nil
}
