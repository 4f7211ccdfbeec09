// SPDX-License-Identifier: Apache-2.0

package esp

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// shortChars are what an 8.3 name may hold besides capitals and digits.
const shortChars = "$%'-_@~`!(){}^#&"

// shortName gives the 8.3 name for name, unlike any in taken, and whether it is
// the whole truth, so that no long name is needed. A name with lower case always
// gets a long one: the flags that Windows NT uses for it are not known to all
// firmware.
func shortName(name string, taken map[[11]byte]bool) (short [11]byte, exact bool) {
	base, ext := name, ""
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		base, ext = name[:i], name[i+1:]
	}
	b, bOK := fold(base, 8)
	e, eOK := fold(ext, 3)
	exact = bOK && eOK
	place := func(b string) {
		for i := range short {
			short[i] = ' '
		}
		copy(short[:8], b)
		copy(short[8:], e)
	}
	if exact {
		place(b)
		if !taken[short] {
			taken[short] = true
			return short, true
		}
	}
	for i := 1; ; i++ {
		tail := fmt.Sprintf("~%d", i)
		place(b[:min(len(b), 8-len(tail))] + tail)
		if !taken[short] {
			taken[short] = true
			return short, false
		}
	}
}

// fold makes up to n 8.3 characters of s, and tells whether nothing was lost.
func fold(s string, n int) (string, bool) {
	var out []byte
	ok := true
	for _, c := range []byte(s) {
		u := c
		if c >= 'a' && c <= 'z' {
			u, ok = c-32, false
		}
		if c == ' ' || c == '.' {
			ok = false
			continue
		}
		if !(u >= 'A' && u <= 'Z' || u >= '0' && u <= '9' || strings.IndexByte(shortChars, u) >= 0) {
			u, ok = '_', false
		}
		out = append(out, u)
	}
	if len(out) > n {
		out, ok = out[:n], false
	}
	return string(out), ok
}

// longSum ties long entries to their short one.
func longSum(short [11]byte) byte {
	var s byte
	for _, c := range short {
		s = s>>1 | s<<7
		s += c
	}
	return s
}

// unitAt are the places of the 13 characters in a long entry.
var unitAt = [unitsPerEntry]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}

// longEntries are the entries before the short one, last part first.
func longEntries(name string, short [11]byte) []byte {
	n := (len(name) + unitsPerEntry - 1) / unitsPerEntry
	out := make([]byte, n*entrySize)
	for i := range n {
		e := out[(n-1-i)*entrySize:][:entrySize]
		e[0] = byte(i + 1)
		if i == n-1 {
			e[0] |= 0x40
		}
		e[11] = attrLong
		e[13] = longSum(short)
		for j, at := range unitAt {
			u := uint16(0xffff)
			if k := i*unitsPerEntry + j; k < len(name) {
				u = uint16(name[k])
			} else if k == len(name) {
				u = 0
			}
			binary.LittleEndian.PutUint16(e[at:], u)
		}
	}
	return out
}

// shortEntry is one directory entry.
func shortEntry(short [11]byte, attr byte, first uint32, size int64, date, clock uint16) []byte {
	le := binary.LittleEndian
	e := make([]byte, entrySize)
	copy(e, short[:])
	e[11] = attr
	le.PutUint16(e[14:], clock)
	le.PutUint16(e[16:], date)
	le.PutUint16(e[18:], date)
	le.PutUint16(e[20:], uint16(first>>16))
	le.PutUint16(e[22:], clock)
	le.PutUint16(e[24:], date)
	le.PutUint16(e[26:], uint16(first))
	le.PutUint32(e[28:], uint32(size))
	return e
}

// stamp is a time as FAT has it: UTC, 2 seconds, years 1980 to 2107.
func stamp(t time.Time) (date, clock uint16) {
	t = t.UTC()
	switch y := t.Year(); {
	case y < 1980:
		t = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	case y > 2107:
		t = time.Date(2107, 12, 31, 23, 59, 58, 0, time.UTC)
	}
	date = uint16((t.Year()-1980)<<9 | int(t.Month())<<5 | t.Day())
	clock = uint16(t.Hour()<<11 | t.Minute()<<5 | t.Second()/2)
	return date, clock
}
