// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// deref follows aliases. The tree has been decoded once, which refuses
// anchors that contain themselves, so this ends.
func deref(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// entry finds key in a mapping, through merge keys too; an own key wins over
// a merged one, as in YAML.
func entry(n *yaml.Node, key string) (k, v *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i], deref(n.Content[i+1])
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != "<<" {
			continue
		}
		merged := []*yaml.Node{deref(n.Content[i+1])}
		if merged[0].Kind == yaml.SequenceNode {
			merged = merged[0].Content
		}
		for _, m := range merged {
			if k, v := entry(deref(m), key); k != nil {
				return k, v
			}
		}
	}
	return nil, nil
}

func child(n *yaml.Node, key string) *yaml.Node {
	_, v := entry(n, key)
	return v
}

func scalarAt(n *yaml.Node, key string) (string, bool) {
	v := child(n, key)
	if v == nil || v.Kind != yaml.ScalarNode {
		return "", false
	}
	return v.Value, true
}

// locate walks a key path as far as the tree has it and returns how many
// parts it found and the line of the last.
func locate(n *yaml.Node, path []string) (depth, line int) {
	line = n.Line
	for i, part := range path {
		k, v := step(n, part)
		if k == nil {
			return i, line
		}
		n, line = v, k.Line
	}
	return len(path), line
}

// step finds one part of a key path. A list stands for a mapping in many
// places of a Compose file: `- KEY=value`, `- name`, so a part that is no
// index is looked up among the items too.
func step(n *yaml.Node, part string) (at, value *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		return entry(n, part)
	}
	if i, err := strconv.Atoi(part); err == nil && i >= 0 && i < len(n.Content) {
		return n.Content[i], deref(n.Content[i])
	}
	for _, item := range n.Content {
		v := deref(item)
		if v.Kind == yaml.ScalarNode && (v.Value == part || strings.HasPrefix(v.Value, part+"=")) {
			return item, v
		}
		if s, ok := scalarAt(v, "source"); ok && s == part {
			return item, v
		}
	}
	return nil, nil
}

// scalars calls visit for each scalar value of the tree, keys and aliases
// aside: keys are not interpolated, an alias' target is visited in its place.
func scalars(n *yaml.Node, path []string, visit func(path []string, n *yaml.Node)) {
	switch n.Kind {
	case yaml.ScalarNode:
		visit(path, n)
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			scalars(n.Content[i+1], append(path[:len(path):len(path)], n.Content[i].Value), visit)
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			scalars(item, append(path[:len(path):len(path)], strconv.Itoa(i)), visit)
		}
	}
}
