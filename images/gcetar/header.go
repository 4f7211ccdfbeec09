// SPDX-License-Identifier: Apache-2.0

package gcetar

import (
	"encoding/binary"
	"fmt"

	"github.com/holdfast/holdfast/images/extents"
)

// The old GNU header: GNU tar's manual, "Basic Tar Format", struct
// posix_header with oldgnu_header over its end, and "Storing Sparse Files". A
// sparse member has type 'S'. Its size is that of the stored data, its real
// size has a field of its own, and a list of {offset, length} says where the
// data belongs: 4 entries in the header, 21 in each block that follows while a
// flag says so. A file that ends in a hole has a last entry of length 0 there.
const (
	block = 512

	offName    = 0   // 100 bytes
	offMode    = 100 // 8, as are uid and gid after it
	offUID     = 108
	offGID     = 116
	offSize    = 124 // 12
	offMTime   = 136 // 12
	offSum     = 148 // 8
	offType    = 156
	offLink    = 157 // 100
	offMagic   = 257 // 8: magic and version as one
	offSparse  = 386 // 4 entries
	offMore    = 482
	offReal    = 483 // 12
	endReal    = 495
	entry      = 24 // two numbers of 12 bytes
	inHeader   = 4
	inBlock    = 21
	offMoreExt = inBlock * entry

	typeSparse = 'S'
	magic      = "ustar  \x00"
	// record is what tar pads an archive to, in bytes.
	record = 20 * block
)

// header is all that comes before the data.
func header(runs []extents.Run, capacity int64) []byte {
	list := runs
	if n := len(runs); n == 0 || end(runs[n-1]) < capacity {
		list = append(runs[:n:n], extents.Run{Offset: capacity})
	}
	h := make([]byte, block)
	copy(h[offName:], Member)
	number(h[offMode:offUID], 0o644)
	number(h[offUID:offGID], 0)
	number(h[offGID:offSize], 0)
	number(h[offSize:offMTime], extents.Total(runs))
	number(h[offMTime:offSum], 0)
	h[offType] = typeSparse
	copy(h[offMagic:], magic)
	number(h[offReal:endReal], capacity)
	entries(h[offSparse:], list[:min(inHeader, len(list))])
	rest := list[min(inHeader, len(list)):]
	if len(rest) > 0 {
		h[offMore] = 1
	}
	copy(h[offSum:], fmt.Sprintf("%06o\x00 ", sum(h)))
	for len(rest) > 0 {
		n := min(inBlock, len(rest))
		b := make([]byte, block)
		entries(b, rest[:n])
		if rest = rest[n:]; len(rest) > 0 {
			b[offMoreExt] = 1
		}
		h = append(h, b...)
	}
	return h
}

func entries(b []byte, list []extents.Run) {
	for i, r := range list {
		e := b[i*entry:]
		number(e[:12], r.Offset)
		number(e[12:entry], r.Length)
	}
}

// number puts n in octal with a NUL, or, where that does not fit, as GNU's
// base-256: the top bit set and the number big-endian.
func number(b []byte, n int64) {
	digits := len(b) - 1
	if n < 1<<(3*digits) {
		copy(b, fmt.Sprintf("%0*o\x00", digits, n))
		return
	}
	binary.BigEndian.PutUint64(b[len(b)-8:], uint64(n))
	b[0] |= 0x80
}

// sum is the checksum of a header: its bytes added up, with its own field as
// blanks.
func sum(h []byte) int64 {
	n := int64(offType-offSum) * ' '
	for i, c := range h[:block] {
		if i < offSum || i >= offType {
			n += int64(c)
		}
	}
	return n
}
