// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of an entry in characters; the schema has the same.
const (
	maxAuthor  = 60
	maxPlace   = 60
	maxMessage = 500
)

// Entry is one entry of the guest book.
type Entry struct {
	ID      int64     `json:"id"`
	Author  string    `json:"author"`
	Message string    `json:"message"`
	Place   string    `json:"place,omitempty"`
	Created time.Time `json:"created"`
}

// Store keeps entries. Every error of it means: not now.
type Store interface {
	// Schema is the version of the database's schema, checked to be one this
	// program can work with.
	Schema(ctx context.Context) (int, error)
	// Newest returns up to limit entries, newest first, and how many there are.
	Newest(ctx context.Context, limit int) (entries []Entry, total int64, err error)
	// Add keeps an entry and returns it with ID and time.
	Add(ctx context.Context, e Entry) (Entry, error)
	// HasPlace tells whether entries have a place.
	HasPlace() bool
}

// clean trims an entry and refuses one that does not fit. Its errors are for
// the person who wrote it.
func (e Entry) clean(hasPlace bool) (Entry, error) {
	var errs []error
	line := func(what, s string, least, most int, breaks bool) string {
		s = strings.TrimSpace(strings.ReplaceAll(s, "\r\n", "\n"))
		odd := func(r rune) bool { return unicode.IsControl(r) && !(breaks && r == '\n') || r == utf8.RuneError }
		switch n := utf8.RuneCountInString(s); {
		case !utf8.ValidString(s) || strings.ContainsFunc(s, odd):
			errs = append(errs, fmt.Errorf("the %s holds characters that cannot be kept", what))
		case n < least:
			errs = append(errs, fmt.Errorf("the %s is empty", what))
		case n > most:
			errs = append(errs, fmt.Errorf("the %s has %d characters, %d fit", what, n, most))
		}
		return s
	}
	e.Author = line("name", e.Author, 1, maxAuthor, false)
	e.Message = line("message", e.Message, 1, maxMessage, true)
	if hasPlace {
		e.Place = line("place", e.Place, 0, maxPlace, false)
	} else {
		e.Place = ""
	}
	return e, errors.Join(errs...)
}
