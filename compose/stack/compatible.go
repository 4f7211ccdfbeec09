// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/compose/version"
)

const dataMend = "write `x-holdfast: {data: {readable-from: \"1.0.0\"}}` at the top of the main Compose file"

// readableFrom reads the top-level x-holdfast: what the release says about
// the data it leaves behind.
func (l *loading) readableFrom(dict map[string]any) string {
	// Compose takes nothing but resources out of an included or extended
	// file: written there the key would be ignored without a word.
	for _, s := range l.src.list[1:] {
		if key, _ := entry(s.node, extension); key != nil {
			l.probs.add(Problem{File: s.rel, Line: key.Line, Key: extension, Text: "this counts in the main Compose file only", Mend: "move it there"})
		}
	}
	x, ok := dict[extension]
	if !ok {
		return ""
	}
	top := field{l, []string{extension}, x}.mapping(dataMend, "data", "sizes")
	data, ok := top["data"]
	if !ok {
		if _, sizes := top["sizes"]; top != nil && !sizes {
			l.report([]string{extension}, "the key \"data\" is missing", dataMend)
		}
		return ""
	}
	from := l.section(data.v, "readable-from", extension, "data")
	s, ok := from.(string)
	if from != nil && (!ok || !version.Valid(s)) {
		l.report([]string{extension, "data", "readable-from"}, fmt.Sprintf("%v is no version", from), "write a semantic version in full and in quotes, like \"1.0.0\"")
		return ""
	}
	return s
}

// section is the one known key of a mapping, which must have it and no other.
func (l *loading) section(v any, known string, at ...string) any {
	m, ok := v.(map[string]any)
	if !ok {
		l.report(at, "this must be a mapping", dataMend)
		return nil
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if k != known {
			l.report(append(slices.Clone(at), k), "unknown key", "known is "+known)
		}
	}
	if m[known] == nil {
		l.report(at, fmt.Sprintf("the key %q is missing", known), dataMend)
	}
	return m[known]
}

// CheckVersion holds what the stack says of its data to the version that it
// is released as, which no stack knows. The error is a *Problems.
func (s *Stack) CheckVersion(release string) error {
	if s.ReadableFrom == "" || version.Compare(s.ReadableFrom, release) <= 0 {
		return nil
	}
	key := []string{extension, "data", "readable-from"}
	file, line := s.Line(key...)
	return (&Problems{List: []Problem{{File: file, Line: line, Key: strings.Join(key, "."),
		Text: fmt.Sprintf("%s is newer than %s, the version of the release, which reads its own data", s.ReadableFrom, release),
		Mend: "write " + release + " or an older version, or remove it"}}}).err()
}
