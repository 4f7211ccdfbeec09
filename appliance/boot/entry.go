// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/images/pe"
)

const (
	// MaxUKI bounds a kernel image in bytes.
	MaxUKI = 256 << 20
	// maxCmdline bounds its command line in bytes: the kernel takes 2 KiB.
	maxCmdline = 64 << 10
	maxTries   = 1 << 20
)

// Entry is one kernel image of ours.
type Entry struct {
	// Number of the generation in its name.
	Number int
	// Place is Linux or Kept.
	Place string
	// TriesLeft and TriesDone are its boot counter, -1 where it has none.
	TriesLeft, TriesDone int
	// RootHash is the root that it boots, 64 hex digits; "" where the file is
	// no whole kernel image.
	RootHash string
	// Size in bytes.
	Size int64
}

// Counted is true for an image whose boots are counted: a trial's.
func (e Entry) Counted() bool { return e.TriesLeft >= 0 }

// Spent is true for a counted image that has no try left.
func (e Entry) Spent() bool { return e.TriesLeft == 0 }

// Name is the file's name, as systemd-boot reads it ("Automatic Boot
// Assessment": NAME+LEFT-DONE.efi).
func (e Entry) Name() string {
	tries := ""
	if e.TriesLeft >= 0 {
		tries = fmt.Sprintf("+%d", e.TriesLeft)
		if e.TriesDone > 0 {
			tries += fmt.Sprintf("-%d", e.TriesDone)
		}
	}
	return fmt.Sprintf("holdfast-%010d%s.efi", e.Number, tries)
}

func (e Entry) path() string { return folders[e.Place] + "/" + e.Name() }

var nameShape = regexp.MustCompile(`(?i)^holdfast-([0-9]{10})(?:\+([0-9]{1,7})(?:-([0-9]{1,7}))?)?\.efi$`)

// ParseName reads a file's name; ok is false for one that is not ours.
func ParseName(name string) (e Entry, ok bool) {
	m := nameShape.FindStringSubmatch(name)
	if m == nil {
		return Entry{}, false
	}
	e = Entry{TriesLeft: -1, TriesDone: -1}
	var err error
	if e.Number, err = strconv.Atoi(m[1]); err != nil || e.Number < 1 || e.Number > 1<<31-1 {
		return Entry{}, false
	}
	if m[2] != "" {
		e.TriesLeft, _ = strconv.Atoi(m[2]) // 7 digits
		e.TriesDone = 0
		if m[3] != "" {
			e.TriesDone, _ = strconv.Atoi(m[3])
		}
		if e.TriesLeft > maxTries || e.TriesDone > maxTries {
			return Entry{}, false
		}
	}
	// "+1-0" and leading zeros are names that only others give.
	return e, strings.EqualFold(e.Name(), name)
}

// Entries lists the images, by place and number.
func (e *ESP) Entries() ([]Entry, error) {
	list, err := e.list()
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].RootHash, err = e.rootHash(list[i].path()); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// list is Entries by names alone.
func (e *ESP) list() ([]Entry, error) {
	var out []Entry
	for _, place := range []string{Kept, Linux} {
		files, err := e.fs.List(folders[place])
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if f.Dir {
				continue
			}
			if entry, ok := ParseName(f.Name); ok {
				entry.Place, entry.Size = place, f.Size
				out = append(out, entry)
			}
		}
	}
	slices.SortFunc(out, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Place, b.Place), cmp.Compare(a.Number, b.Number), cmp.Compare(a.TriesLeft, b.TriesLeft), cmp.Compare(a.TriesDone, b.TriesDone))
	})
	return out, nil
}

// rootHash reads the root hash that an image boots; "" where it is none.
func (e *ESP) rootHash(name string) (string, error) {
	r, size, err := e.fs.Open(name)
	if err != nil {
		return "", err
	}
	return RootHash(r, size), nil
}

// RootHash is the root hash on the command line in a kernel image, 64 hex
// digits; "" where the file is no kernel image, has two command lines or none.
func RootHash(r io.ReaderAt, size int64) string {
	f, err := pe.ParseAt(r, size)
	if err != nil {
		return ""
	}
	line, linux := []byte(nil), false
	for i, s := range f.Sections {
		switch s.Name {
		case ".linux":
			linux = true
		case ".cmdline":
			if line != nil {
				return ""
			}
			if line, err = f.Content(r, i, maxCmdline); err != nil {
				return ""
			}
		}
	}
	if !linux {
		return ""
	}
	found := ""
	for word := range strings.FieldsSeq(strings.TrimRight(string(line), "\x00")) {
		if hash, ok := strings.CutPrefix(word, "roothash="); ok {
			if found != "" || !hashShape.MatchString(hash) {
				return ""
			}
			found = hash
		}
	}
	return found
}

var hashShape = regexp.MustCompile(`^[0-9a-f]{64}$`)

// of gives the images of a number in a place.
func (e *ESP) of(place string, number int) ([]Entry, error) {
	list, err := e.list()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(x Entry) bool { return x.Place != place || x.Number != number }), nil
}

// ErrNoImage is returned where an image is asked for that is not there.
var ErrNoImage = errors.New("no such kernel image on the ESP")
