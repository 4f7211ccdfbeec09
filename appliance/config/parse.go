// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

const (
	// MaxDocument bounds one document in bytes. EC2 gives at most 16 KiB of
	// user-data, a certificate chain with its key is about 10 KiB.
	MaxDocument = 64 << 10
	// maxEntries bounds one list.
	maxEntries = 1000
)

// Parse reads one document. name stands for it in problems. With any problem
// the whole document is refused, and the Config is the default one; without,
// it is the document over the defaults. A document without any key is good.
func Parse(name string, data []byte) (Config, []Problem) {
	values, problems := parse(name, data)
	if len(problems) > 0 {
		return Default(), problems
	}
	c, err := build([]layer{{values: values}})
	if err != nil {
		return Default(), []Problem{{File: name, Text: err.Error(), Mend: "report this: the document passed every check"}}
	}
	return c, nil
}

// parse checks a document and gives its values by key, nested as they are
// written.
func parse(name string, data []byte) (map[string]any, []Problem) {
	p := &parser{file: name}
	if problem, bad := notYAML(data); bad {
		problem.File = name
		return nil, []Problem{problem}
	}
	node := p.document(data)
	if node == nil {
		return map[string]any{}, sorted(p.problems)
	}
	return p.read(node)
}

// parser collects the problems of one document.
type parser struct {
	file     string
	problems []Problem
}

func (p *parser) bad(n *yaml.Node, key, text, mend string) {
	p.problems = append(p.problems, Problem{File: p.file, Line: n.Line, Key: key, Text: text, Mend: mend})
}

// read holds a tree against the schema.
func (p *parser) read(node *yaml.Node) (map[string]any, []Problem) {
	values, _ := schema(p, node, "").(map[string]any)
	if len(p.problems) > 0 {
		return nil, sorted(p.problems)
	}
	return values, nil
}

// document gives the one mapping of a document, nil when it has no content or
// p has a problem with it.
func (p *parser) document(data []byte) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		p.syntax(data, err)
		return nil
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		p.bad(&more, "", "a second YAML document starts here", "keep one document, remove the line with ---")
		return nil
	case !errors.Is(err, io.EOF):
		p.syntax(data, err)
		return nil
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		p.bad(&doc, "", "this is no mapping", mendMapping)
		return nil
	}
	if n := doc.Content[0]; n.Kind != yaml.ScalarNode || n.Tag != "!!null" {
		return n
	}
	return nil
}

const mendMapping = "write lines such as `hostname: box1.example.com`"

var (
	// placeInText is a place in a YAML error, prefixInText how one begins.
	placeInText  = regexp.MustCompile(`( at )?(\bline (\d+)(, column \d+)?|<unknown position>|\boffset \d+)(: )?`)
	prefixInText = regexp.MustCompile(`^(yaml: )?(construct errors: )?`)
)

// syntax tells of a YAML error. Places in the library's text count from 0 or
// from 1 by the kind of error, and some are missing: the line is found by
// trying.
func (p *parser) syntax(data []byte, err error) {
	line := lineOfError(data, err.Error())
	if m := placeInText.FindStringSubmatch(err.Error()); m != nil && strings.Contains(err.Error(), "end of stream") {
		// What is never closed fails at the end; where it began is of use.
		line, _ = strconv.Atoi(m[3])
	}
	text := strings.Join(strings.Fields(placeInText.ReplaceAllStringFunc(err.Error(), func(place string) string {
		if strings.HasPrefix(place, " at ") && strings.HasSuffix(place, ": ") {
			return ": "
		}
		return " "
	})), " ")
	p.problems = append(p.problems, Problem{File: p.file, Line: line,
		Text: "this is not YAML: " + strings.TrimSpace(prefixInText.ReplaceAllString(text, "")),
		Mend: "mend the line; indent with blanks, and put text with special characters in quotes"})
}

// lineOfError finds the last line that an error needs to be there.
func lineOfError(data []byte, text string) int {
	lines := bytes.SplitAfter(data, []byte("\n"))
	n := sort.Search(len(lines), func(n int) bool {
		var doc yaml.Node
		err := yaml.NewDecoder(bytes.NewReader(bytes.Join(lines[:n], nil))).Decode(&doc)
		return err != nil && err.Error() == text
	})
	return min(max(n, 1), len(lines))
}

// rule holds one value against the schema and gives it as plain Go: string,
// bool, []any or map[string]any; nil where there was a problem.
type rule func(p *parser, n *yaml.Node, key string) any

// check judges one text and gives it in the form the box uses. A text that is
// not "" says what is wrong.
type check func(value string) (clean, text, mend string)

// text is a rule for a string. An empty one is "not set" and not judged.
func text(ok check) rule {
	return func(p *parser, n *yaml.Node, key string) any {
		if !p.want(n, key, yaml.ScalarNode, "!!str", "text") {
			return nil
		}
		if n.Value == "" {
			return ""
		}
		clean, text, mend := ok(n.Value)
		if text != "" {
			p.bad(n, key, text, mend)
			return nil
		}
		return clean
	}
}

// entry is text that must not be empty.
func entry(ok check) rule {
	return func(p *parser, n *yaml.Node, key string) any {
		if n.Kind == yaml.ScalarNode && n.Tag == "!!str" && strings.TrimSpace(n.Value) == "" {
			p.bad(n, key, "this is empty", "write a value or remove the entry")
			return nil
		}
		return text(ok)(p, n, key)
	}
}

// truth is a rule for true or false.
func truth(p *parser, n *yaml.Node, key string) any {
	if !p.want(n, key, yaml.ScalarNode, "!!bool", "true or false") {
		return nil
	}
	return strings.EqualFold(n.Value, "true")
}

// list is a rule for a sequence.
func list(item rule) rule {
	return func(p *parser, n *yaml.Node, key string) any {
		if !p.want(n, key, yaml.SequenceNode, "!!seq", "a list") {
			return nil
		}
		if len(n.Content) > maxEntries {
			p.bad(n, key, fmt.Sprintf("the list has %d entries", len(n.Content)), fmt.Sprintf("at most %d are taken", maxEntries))
			return nil
		}
		out := []any{}
		for i, c := range n.Content {
			out = append(out, item(p, c, fmt.Sprintf("%s.%d", key, i)))
		}
		return out
	}
}

// field is one key of a mapping.
type field struct {
	name string
	rule rule
}

// mapping is a rule for a mapping with these keys and no others. after, which
// may be nil, judges the values together once each is good; it gets the line
// of each key that is there.
func mapping(fields []field, after func(p *parser, m *mapped)) rule {
	return func(p *parser, n *yaml.Node, key string) any {
		if !p.want(n, key, yaml.MappingNode, "!!map", "a mapping") {
			return nil
		}
		m := &mapped{node: n, key: key, values: map[string]any{}, at: map[string]*yaml.Node{}, nodes: map[string]*yaml.Node{}}
		before := len(p.problems)
		for i := 0; i+1 < len(n.Content); i += 2 {
			p.pair(m, fields, n.Content[i], n.Content[i+1])
		}
		if after != nil && len(p.problems) == before {
			after(p, m)
		}
		return m.values
	}
}

// mapped is a mapping that is being read.
type mapped struct {
	node   *yaml.Node
	key    string
	values map[string]any
	// at are the keys, nodes their values.
	at, nodes map[string]*yaml.Node
}

// path is the full name of a key of m.
func (m *mapped) path(name string) string {
	if m.key == "" {
		return name
	}
	return m.key + "." + name
}

// line is where to point for a key: at the key, or at the mapping.
func (m *mapped) line(name string) *yaml.Node {
	if n := m.at[name]; n != nil {
		return n
	}
	return m.node
}

// entry is where to point for an entry of a list.
func (m *mapped) entry(name string, i int) *yaml.Node {
	if n := m.nodes[name]; n != nil && i < len(n.Content) {
		return n.Content[i]
	}
	return m.line(name)
}

func (m *mapped) texts(name string) []string {
	all, _ := m.values[name].([]any)
	out := make([]string, 0, len(all))
	for _, v := range all {
		s, _ := v.(string)
		out = append(out, s)
	}
	return out
}

func (m *mapped) text(name string) string {
	s, _ := m.values[name].(string)
	return s
}

func (p *parser) pair(m *mapped, fields []field, k, v *yaml.Node) {
	var known []string
	for _, f := range fields {
		known = append(known, f.name)
	}
	if k.Kind != yaml.ScalarNode {
		p.bad(k, m.key, "a key is no plain text", "use "+orList(known))
		return
	}
	name := k.Value
	for _, f := range fields {
		if f.name != name || k.Tag != "!!str" {
			continue
		}
		if first := m.at[name]; first != nil {
			p.bad(k, m.path(name), fmt.Sprintf("the key is there twice, first on line %d", first.Line), "keep one of them")
			return
		}
		m.at[name] = k
		if v.Kind == yaml.ScalarNode && v.Tag == "!!null" {
			p.bad(k, m.path(name), "the key has no value", "write one or remove the line")
			return
		}
		m.nodes[name] = v
		m.values[name] = f.rule(p, v, m.path(name))
		return
	}
	p.bad(k, m.path(shorten(name)), "the key is not known", "known here: "+strings.Join(known, ", "))
}

// shorten keeps a made-up key from filling the screen, and control characters
// off it.
func shorten(name string) string {
	if q := quote(name); q != `"`+name+`"` || name == "" {
		return q
	}
	return name
}

// names for what YAML found.
var found = map[string]string{
	"!!str": "text", "!!int": "a number", "!!float": "a number", "!!bool": "true or false",
	"!!null": "nothing", "!!seq": "a list", "!!map": "a mapping", "!!timestamp": "a date", "!!binary": "base64",
}

// want checks the kind of a value. Aliases are refused altogether: nothing
// here repeats, and they can make a small document huge.
func (p *parser) want(n *yaml.Node, key string, kind yaml.Kind, tag, words string) bool {
	if n.Kind == yaml.AliasNode {
		p.bad(n, key, "this is an alias of another value", "write the value itself")
		return false
	}
	if n.Kind == kind && n.Tag == tag {
		return true
	}
	what := found[n.Tag]
	if what == "" {
		what = "a value of the type " + quote(n.Tag)
	}
	mend := "write " + words
	switch {
	case key == "":
		mend = mendMapping
	case kind == yaml.ScalarNode && tag == "!!str" && n.Kind == yaml.ScalarNode && n.Tag != "!!null":
		mend = "put it in quotes"
	case kind == yaml.SequenceNode && n.Kind == yaml.ScalarNode:
		mend = "write a list: [one, two], or a line `- one` for each"
	}
	p.bad(n, key, fmt.Sprintf("this is %s, not %s", what, words), mend)
	return false
}

// lineOf is the line of a byte, from 1.
func lineOf(data []byte, at int) int { return 1 + bytes.Count(data[:at], []byte("\n")) }

// notUTF8 finds the first byte that is no UTF-8.
func notUTF8(data []byte) (at int, bad bool) {
	for at < len(data) {
		r, n := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && n == 1 {
			return at, true
		}
		at += n
	}
	return 0, false
}
