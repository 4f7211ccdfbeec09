// SPDX-License-Identifier: Apache-2.0

package stackimage

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// mapping is n as a map; a key that is not allowed, or twice there, fails.
func (p *parser) mapping(n *yaml.Node, allowed ...string) map[string]*yaml.Node {
	m := map[string]*yaml.Node{}
	p.eachKey(n, 2*maxNames, func(k, v *yaml.Node) {
		if !slices.Contains(allowed, k.Value) {
			p.fail(k, "unknown key %q; known here: %s", k.Value, strings.Join(allowed, ", "))
		}
		m[k.Value] = v
	})
	return m
}

func (p *parser) eachKey(n *yaml.Node, most int, each func(k, v *yaml.Node)) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.fail(n, "a map of keys belongs here")
	}
	if len(n.Content)/2 > most {
		p.fail(n, "more than %d keys", most)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode || k.Tag == "!!merge" {
			p.fail(k, "a key must be plain text")
		}
		if seen[k.Value] {
			p.fail(k, "key %q is given twice", k.Value)
		}
		seen[k.Value] = true
		each(k, n.Content[i+1])
	}
}

func (p *parser) need(at *yaml.Node, m map[string]*yaml.Node, key string) *yaml.Node {
	if m[key] == nil {
		p.fail(at, "key %q is missing", key)
	}
	return m[key]
}

func (p *parser) list(n *yaml.Node, most int) []*yaml.Node {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		p.fail(n, "a list belongs here")
	}
	if len(n.Content) > most {
		p.fail(n, "more than %d entries", most)
	}
	return n.Content
}

// text is a scalar as written: 0644 stays "0644". Aliases are refused with
// everything else that is no scalar, so nothing can expand.
func (p *parser) text(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		p.fail(n, "text belongs here")
	}
	if strings.ContainsRune(n.Value, 0) {
		p.fail(n, "text holds a NUL byte")
	}
	return n.Value
}

func (p *parser) texts(n *yaml.Node) []string {
	if n == nil {
		return nil
	}
	var all []string
	for _, e := range p.list(n, maxNames) {
		all = append(all, p.text(e))
	}
	return all
}

func (p *parser) path(n *yaml.Node) string {
	s := p.text(n)
	if err := cleanPath(s); err != nil {
		p.fail(n, "%v", err)
	}
	return s
}

// templated is text in which ${version}, and nothing else, is replaced.
func (p *parser) templated(n *yaml.Node) string {
	s := strings.ReplaceAll(p.text(n), "${version}", p.version)
	if i := strings.Index(s, "${"); i >= 0 {
		p.fail(n, "%q: only ${version} is replaced here", n.Value)
	}
	return s
}
