// SPDX-License-Identifier: Apache-2.0

package lock

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/compose/stack"
	"go.yaml.in/yaml/v4"
)

// maxFile bounds a lock; one of two thousand packages has 600 KiB.
const maxFile = 16 << 20

const relock = "run holdfast-release lock"

// Read reads and checks the lock at path. A missing file is fs.ErrNotExist,
// anything wrong in it is a *stack.Problems with file and line.
func Read(path string) (*Lock, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("lock: %w; %s", err, relock)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	return Parse(path, data)
}

// Parse checks a lock's bytes; name is what errors call it. It refuses what
// Marshal would not write: unknown keys, another order, a package path that
// leaves the mirror.
func Parse(name string, data []byte) (*Lock, error) {
	bad := func(line int, key, text string) error {
		return &stack.Problems{List: []stack.Problem{{File: name, Line: line, Key: key, Text: text, Mend: relock}}}
	}
	if len(data) > maxFile {
		return nil, bad(0, "", fmt.Sprintf("the lock has more than %d MiB", maxFile>>20))
	}
	var doc, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, bad(1, "", "the lock is empty")
	} else if err != nil {
		return nil, bad(lineOf(err), "", oneLine(err))
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, bad(max(more.Line, 1), "", "a lock is one YAML document")
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, bad(1, "", "the lock is no mapping")
	}
	top := doc.Content[0]
	// The number comes first: a lock of a later format may hold anything.
	if at := find(top, []string{"format"}); at != nil {
		if n, err := strconv.Atoi(at.Value); err == nil && n > FormatVersion {
			return nil, &stack.Problems{List: []stack.Problem{{File: name, Line: at.Line, Key: "format",
				Text: fmt.Sprintf("the lock has format %d, this program reads %d", n, FormatVersion),
				Mend: "use the Holdfast that wrote it, or " + relock}}}
		}
	}
	if line, key, text := unknown(top, reflect.TypeFor[Lock](), nil); text != "" {
		return nil, bad(line, key, text)
	}
	l := &Lock{name: name}
	if err := doc.Decode(l); err != nil {
		return nil, bad(lineOf(err), "", oneLine(err))
	}
	faults := l.faults()
	if len(faults) == 0 {
		return l, nil
	}
	ps := &stack.Problems{}
	for _, f := range faults {
		p := stack.Problem{File: name, Line: 1, Key: strings.Join(f.key, "."), Text: f.text, Mend: relock}
		for n := len(f.key); n > 0; n-- {
			if at := find(top, f.key[:n]); at != nil {
				p.Line = at.Line
				break
			}
		}
		ps.List = append(ps.List, p)
	}
	return nil, ps
}

// unknown finds the first key that the type does not have, and the first
// alias: a lock has none, and without them every node is met once.
func unknown(n *yaml.Node, t reflect.Type, path []string) (line int, key, text string) {
	key = strings.Join(path, ".")
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return n.Line, key, "a lock has no anchors and aliases"
	}
	switch t.Kind() {
	case reflect.Struct:
		if n.Kind != yaml.MappingNode {
			return n.Line, key, "this must be a mapping"
		}
		fields := map[string]reflect.Type{}
		for f := range t.Fields() {
			if f.IsExported() {
				fields[f.Tag.Get("yaml")] = f.Type
			}
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i].Value
			ft, ok := fields[k]
			here := append(slices.Clone(path), k)
			if !ok {
				return n.Content[i].Line, strings.Join(here, "."), "unknown key"
			}
			if l, k, text := unknown(n.Content[i+1], ft, here); text != "" {
				return l, k, text
			}
		}
	case reflect.Slice:
		if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
			return 0, "", ""
		}
		if n.Kind != yaml.SequenceNode {
			return n.Line, key, "this must be a list"
		}
		for i, c := range n.Content {
			if l, k, text := unknown(c, t.Elem(), append(slices.Clone(path), strconv.Itoa(i))); text != "" {
				return l, k, text
			}
		}
	default:
		if n.Kind != yaml.ScalarNode {
			return n.Line, key, "this must be one value"
		}
	}
	return 0, "", ""
}

// find walks a key path; nil where the lock does not have it.
func find(n *yaml.Node, path []string) *yaml.Node {
next:
	for _, part := range path {
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == part {
					n = n.Content[i+1]
					continue next
				}
			}
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(part); err == nil && i >= 0 && i < len(n.Content) {
				n = n.Content[i]
				continue next
			}
		}
		return nil
	}
	return n
}

var lineInText = regexp.MustCompile(`line (\d+)`)

func lineOf(err error) int {
	line := 1
	if m := lineInText.FindStringSubmatch(err.Error()); m != nil {
		line, _ = strconv.Atoi(m[1])
	}
	return line
}

func oneLine(err error) string {
	return strings.TrimPrefix(strings.Join(strings.Fields(err.Error()), " "), "yaml: ")
}

// Marshal writes the lock as Parse reads it: YAML, one image and one package
// a line so that a relock reads well in a diff, nothing that depends on when
// or where it was written.
func (l *Lock) Marshal() []byte {
	var b bytes.Buffer
	b.WriteString("# Written by `holdfast-release lock`: everything a bake of this stack reads.\n" +
		"# To change it, change the stack or the packages asked for and lock again.\n")
	fmt.Fprintf(&b, "format: %d\nholdfast: %s\ngo: %s\nepoch: %d\n", l.Format, scalar(l.Holdfast), scalar(l.Go), l.Epoch)
	fmt.Fprintf(&b, "stack:\n  name: %s\n  digest: %s\n", scalar(l.Stack.Name), scalar(l.Stack.Digest))
	list(&b, "images", len(l.Images), func(i int) string {
		im := l.Images[i]
		return fmt.Sprintf("{ref: %s, digest: %s, size: %d}", scalar(im.Ref), scalar(im.Digest), im.Size)
	})
	for _, s := range []struct {
		name string
		set  PackageSet
	}{{"os", l.OS}, {"tools", l.Tools}} {
		fmt.Fprintf(&b, "%s:\n  suite: %s\n", s.name, scalar(s.set.Suite))
		list(&b, "  wanted", len(s.set.Wanted), func(i int) string { return scalar(s.set.Wanted[i]) })
		list(&b, "  packages", len(s.set.Packages), func(i int) string {
			p := s.set.Packages[i]
			return fmt.Sprintf("{name: %s, version: %q, arch: %s, sha256: %q, size: %d, path: %s}",
				scalar(p.Name), p.Version, scalar(p.Arch), p.SHA256, p.Size, scalar(p.Path))
		})
	}
	return b.Bytes()
}

func list(b *bytes.Buffer, key string, n int, item func(int) string) {
	if n == 0 {
		fmt.Fprintf(b, "%s: []\n", key)
		return
	}
	indent := strings.Repeat(" ", len(key)-len(strings.TrimLeft(key, " ")))
	fmt.Fprintf(b, "%s:\n", key)
	for i := range n {
		fmt.Fprintf(b, "%s  - %s\n", indent, item(i))
	}
}

// plain are texts that YAML reads back as the same text without quotes, in a
// flow mapping too.
var plain = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_./+@~-]*(:[A-Za-z0-9_./+@~-]+)*$`)

func scalar(s string) string {
	switch strings.ToLower(s) {
	case "null", "true", "false", "yes", "no", "on", "off", "y", "n":
		return strconv.Quote(s)
	}
	if plain.MatchString(s) {
		return s
	}
	return strconv.Quote(s)
}
