// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one reason why a document is refused. It never holds a secret of
// the document.
type Problem struct {
	// File is the document: a file name, "EC2 user-data", ...
	File string `json:"file"`
	// Line counts from 1; 0 where the problem has no line.
	Line int `json:"line,omitempty"`
	// Key is the key path, "network.addresses.0", or the name of an OVF
	// property; may be empty.
	Key string `json:"key,omitempty"`
	// Text says what is wrong, Mend what to do about it.
	Text string `json:"text"`
	Mend string `json:"mend"`
}

// String is "FILE:LINE: KEY: TEXT; MEND".
func (p Problem) String() string {
	text := p.at() + ": " + p.Text
	if p.Mend != "" {
		text += "; " + p.Mend
	}
	return text
}

func (p Problem) at() string {
	text := p.File
	if p.Line > 0 {
		text += fmt.Sprintf(":%d", p.Line)
	}
	if p.Key != "" {
		text += ": " + p.Key
	}
	return text
}

// maxProblems bounds what is told of one document.
const maxProblems = 50

// sorted orders problems by line, for people who mend a file top down.
func sorted(list []Problem) []Problem {
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key))
	})
	list = slices.Compact(list)
	if more := len(list) - maxProblems; more > 0 {
		last := Problem{File: list[0].File, Text: fmt.Sprintf("and %d problems more", more), Mend: "mend the first ones"}
		list = append(list[:maxProblems:maxProblems], last)
	}
	return list
}

// maxQuote bounds the characters of a wrong value in a message.
const maxQuote = 60

// quote shows a wrong value.
func quote(s string) string {
	if r := []rune(s); len(r) > maxQuote {
		return fmt.Sprintf("%q...", string(r[:maxQuote]))
	}
	return fmt.Sprintf("%q", s)
}

// orList writes "a, b or c".
func orList(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}
