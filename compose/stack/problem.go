// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one reason why a stack is refused.
type Problem struct {
	// File is relative to the stack folder.
	File string
	// Line counts from 1; 0 where the problem is the file as a whole.
	Line int
	// Key is the key path, e.g. "services.web.image"; may be empty.
	Key string
	// Text says what is wrong, Mend what to do about it.
	Text, Mend string
}

func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if p.Key != "" {
		b.WriteString(": " + p.Key)
	}
	b.WriteString(": " + p.Text)
	if p.Mend != "" {
		b.WriteString("; " + p.Mend)
	}
	return b.String()
}

// maxShown bounds the lines of an error, so that a broken generator of
// Compose files cannot drown the terminal.
const maxShown = 50

// Problems is the error of this package: all problems found, in the order of
// file and line.
type Problems struct {
	List []Problem
}

// Error prints one problem a line, `file:line: key: text; mend`.
func (ps *Problems) Error() string {
	var lines []string
	for i, p := range ps.List {
		if i == maxShown {
			lines = append(lines, fmt.Sprintf("and %d more", len(ps.List)-i))
			break
		}
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

func (ps *Problems) add(p Problem) { ps.List = append(ps.List, p) }

// err returns the sorted problems, or nil without any. An untyped nil, so
// that callers can compare with nil.
func (ps *Problems) err() error {
	if len(ps.List) == 0 {
		return nil
	}
	slices.SortStableFunc(ps.List, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Key, b.Key), cmp.Compare(a.Text, b.Text))
	})
	ps.List = slices.Compact(ps.List)
	return ps
}
