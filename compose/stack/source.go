// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"go.yaml.in/yaml/v4"
)

const (
	// maxCompose bounds one Compose file; the largest seen in the wild have
	// some 100 KiB.
	maxCompose = 1 << 20
	// maxSources bounds the Compose files of one stack.
	maxSources = 64
	// maxEnv bounds an env or label file.
	maxEnv = 1 << 20
)

// source is one Compose file of the stack.
type source struct {
	rel  string // slash path below the stack folder
	dir  string // what its relative paths are relative to, below the folder
	data []byte
	node *yaml.Node        // the top-level mapping
	raw  map[string]any    // the same, decoded, before interpolation
	env  map[string]string // what its variables resolve to
}

func (s *source) lookup(name string) (string, bool) {
	v, ok := s.env[name]
	return v, ok
}

// sources are all Compose files, the main one first.
type sources struct{ list []*source }

// read reads the main file and all it includes or extends.
func (l *loading) read(name string) {
	env := l.readDotEnv("", nil)
	if s := l.parse(name, "", env, nil); s != nil {
		l.readExtends(s)
		l.readIncludes(s, nil)
	}
}

// parse reads one Compose file. from is the key that names it, nil for the
// main file.
func (l *loading) parse(rel, dir string, env map[string]string, from *Problem) *source {
	data, err := l.readFile(rel, maxCompose)
	if err != nil {
		p := Problem{File: rel}
		if from != nil {
			p = *from
		}
		p.Text, p.Mend = err.Error(), plainFiles
		if errors.Is(err, fs.ErrNotExist) {
			p.Text, p.Mend = rel+" does not exist", addIt
		}
		l.probs.add(p)
		return nil
	}
	s := &source{rel: rel, dir: dir, data: data, env: env}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		l.probs.add(Problem{File: rel, Line: 1, Text: "the file is empty", Mend: "write a `services` section"})
		return nil
	} else if err != nil {
		l.probs.add(syntaxProblem(rel, err))
		return nil
	}
	var value any
	if err := doc.Decode(&value); err != nil {
		l.probs.add(syntaxProblem(rel, err))
		return nil
	}
	m, ok := value.(map[string]any)
	if !ok || len(doc.Content) != 1 || deref(doc.Content[0]).Kind != yaml.MappingNode {
		l.probs.add(Problem{File: rel, Line: 1, Text: "the file is no mapping with text keys",
			Mend: "start it with `services:`"})
		return nil
	}
	var more yaml.Node
	switch err := dec.Decode(&more); {
	case err == nil:
		l.probs.add(Problem{File: rel, Line: more.Line, Text: "a second YAML document starts here",
			Mend: "put it into a file of its own and `include` it"})
		return nil
	case !errors.Is(err, io.EOF):
		l.probs.add(syntaxProblem(rel, err))
		return nil
	}
	s.node, s.raw = deref(doc.Content[0]), m
	l.src.list = append(l.src.list, s)
	l.addFile(rel, from)
	return s
}

// syntaxProblem keeps the last line a YAML error speaks of: the place where
// reading stopped, the earlier ones only say inside what.
func syntaxProblem(rel string, err error) Problem {
	text := strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " ")
	text = strings.TrimPrefix(text, "construct errors: ")
	line := 1
	if m := lineInText.FindAllStringSubmatchIndex(text, -1); len(m) > 0 {
		// "key already defined at line 1" speaks of the first one last
		at := m[len(m)-1]
		if strings.Contains(text, "already defined") {
			at = m[0]
		}
		line, _ = strconv.Atoi(text[at[2]:at[3]])
	}
	return Problem{File: rel, Line: line, Text: "syntax error: " + text, Mend: "correct the YAML"}
}

// readIncludes follows the `include` section. Only literal paths are taken:
// which files make up a stack must not depend on a variable.
func (l *loading) readIncludes(s *source, chain []string) {
	chain = append(slices.Clone(chain), s.rel)
	list := child(s.node, "include")
	if list == nil {
		return
	}
	if list.Kind != yaml.SequenceNode {
		return // checkSchema says so
	}
	for i, item := range list.Content {
		item = deref(item)
		at := Problem{File: s.rel, Line: item.Line, Key: fmt.Sprintf("include.%d", i)}
		var names []*yaml.Node
		switch item.Kind {
		case yaml.ScalarNode:
			names = []*yaml.Node{item}
		case yaml.MappingNode:
			for k := 0; k+1 < len(item.Content); k += 2 {
				key, value := item.Content[k], deref(item.Content[k+1])
				if key.Value != "path" {
					at.Line, at.Text = key.Line, fmt.Sprintf("include with %q is not honoured", key.Value)
					at.Mend = "use `path` only; the included file's folder is what its paths are relative to"
					l.probs.add(at)
					continue
				}
				if value.Kind == yaml.SequenceNode {
					for _, v := range value.Content {
						names = append(names, deref(v))
					}
				} else {
					names = []*yaml.Node{value}
				}
			}
		}
		sub, env := "", s.env
		for j, n := range names {
			at.Line = n.Line
			if from := slices.Index(chain, path.Join(s.dir, n.Value)); from >= 0 {
				at.Text, at.Mend = "include cycle: "+strings.Join(append(chain[from:], chain[from]), " -> "), dropIt
				l.probs.add(at)
				continue
			}
			rel, ok := l.composePath(s.dir, n, at)
			if !ok {
				continue
			}
			if j == 0 {
				sub = path.Dir(rel)
				if sub == "." {
					sub = ""
				}
				if sub != s.dir {
					env = l.readDotEnv(sub, s.env)
				}
			}
			if t := l.parse(rel, sub, env, &at); t != nil {
				l.readExtends(t)
				l.readIncludes(t, chain)
			}
		}
	}
}

// readExtends follows `extends.file` of each service.
func (l *loading) readExtends(s *source) {
	services := child(s.node, "services")
	if services == nil || services.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(services.Content); i += 2 {
		l.extendsCycle(s, services, services.Content[i])
		ext := child(deref(services.Content[i+1]), "extends")
		if ext == nil || ext.Kind != yaml.MappingNode {
			continue
		}
		f := child(ext, "file")
		if f == nil {
			continue
		}
		at := Problem{File: s.rel, Line: f.Line, Key: "services." + services.Content[i].Value + ".extends.file"}
		rel, ok := l.composePath(s.dir, f, at)
		if !ok {
			continue
		}
		dir := path.Dir(rel)
		if dir == "." {
			dir = ""
		}
		if t := l.parse(rel, dir, s.env, &at); t != nil {
			l.readExtends(t)
		}
	}
}

// extendsCycle follows `extends` inside one file. compose-go sees cycles over
// several files, but names them in random order and without a line.
func (l *loading) extendsCycle(s *source, services, start *yaml.Node) {
	chain := []string{start.Value}
	for at := start.Value; ; {
		_, service := entry(services, at)
		if service == nil {
			return
		}
		ext := child(service, "extends")
		if ext != nil && ext.Kind == yaml.MappingNode {
			if child(ext, "file") != nil {
				return
			}
			ext = child(ext, "service")
		}
		if ext == nil || ext.Kind != yaml.ScalarNode {
			return
		}
		at = ext.Value
		if at == start.Value && start.Value == slices.Min(chain) {
			l.probs.add(Problem{File: s.rel, Line: start.Line, Key: "services." + at + ".extends",
				Text: "extends cycle: " + strings.Join(append(chain, at), " -> "), Mend: dropIt})
		}
		if slices.Contains(chain, at) {
			return
		}
		chain = append(chain, at)
	}
}

// composePath checks the path of another Compose file and says whether it is
// to be read now: each is read once.
func (l *loading) composePath(dir string, n *yaml.Node, at Problem) (string, bool) {
	bad := func(text string) (string, bool) {
		at.Text, at.Mend = text, "name a file in the stack folder, by its relative path"
		l.probs.add(at)
		return "", false
	}
	switch v := n.Value; {
	case n.Kind != yaml.ScalarNode || v == "":
		return bad("this is no path")
	case strings.Contains(v, "$"):
		return bad("the path of a Compose file must not hold a variable")
	case remote(v):
		return bad(fmt.Sprintf("%s is remote: a bake reads the stack folder only", v))
	case filepath.IsAbs(v) || strings.HasPrefix(v, "~"):
		return bad(fmt.Sprintf("%s is not in the stack folder", v))
	}
	rel := path.Join(dir, n.Value)
	if !filepath.IsLocal(rel) {
		return bad(fmt.Sprintf("%s leaves the stack folder", n.Value))
	}
	if slices.ContainsFunc(l.src.list, func(s *source) bool { return s.rel == rel }) {
		return "", false
	}
	if len(l.src.list) >= maxSources {
		return bad(fmt.Sprintf("the stack has more than %d Compose files", maxSources))
	}
	return rel, true
}

// readDotEnv reads the .env of a folder, if there is one; over has precedence.
func (l *loading) readDotEnv(dir string, over map[string]string) map[string]string {
	rel := path.Join(dir, ".env")
	env := map[string]string{}
	data, err := l.readFile(rel, maxEnv)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		l.probs.add(Problem{File: rel, Text: err.Error(), Mend: "make it a plain file of KEY=value lines"})
	default:
		l.addFile(rel, nil)
		env, err = dotenv.UnmarshalBytesWithLookup(data, func(k string) (string, bool) {
			v, ok := over[k]
			return v, ok
		})
		if err != nil {
			l.probs.add(envProblem(rel, err))
			env = map[string]string{}
		}
	}
	for k, v := range over {
		env[k] = v
	}
	return env
}

func envProblem(rel string, err error) Problem {
	p := Problem{File: rel, Text: strings.Join(strings.Fields(err.Error()), " "), Mend: "write KEY=value lines"}
	if m := lineInText.FindStringSubmatch(p.Text); m != nil {
		p.Line, _ = strconv.Atoi(m[1])
	}
	return p
}

// line is Stack.Line.
func (ss *sources) line(key ...string) (string, int) {
	best, file, line := -1, "", 0
	for _, s := range ss.list {
		if depth, at := locate(s.node, key); depth > best {
			best, file, line = depth, s.rel, at
		}
	}
	return file, max(line, 1)
}

// has says whether a file of the stack writes the whole key path.
func (ss *sources) has(key ...string) bool {
	return slices.ContainsFunc(ss.list, func(s *source) bool {
		depth, _ := locate(s.node, key)
		return depth == len(key)
	})
}
