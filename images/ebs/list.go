// SPDX-License-Identifier: Apache-2.0

package ebs

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Entry is a block by its digest.
type Entry struct {
	Index int32
	Sum   Sum
}

// List says by digests what a snapshot holds. A block that is not in it is
// zero. The nil List is an empty volume.
type List struct {
	// GiB is the snapshot's volume size.
	GiB     int64
	entries []Entry
}

// NewList makes a list of entries in any order; blocks of zeros are left out.
// A block beyond the volume or named twice is an error.
func NewList(gib int64, entries []Entry) (*List, error) {
	if gib < 1 || gib > MaxGiB {
		return nil, fmt.Errorf("a volume of %d GiB is not one of 1 to %d", gib, MaxGiB)
	}
	l := &List{GiB: gib, entries: slices.Clone(entries)}
	slices.SortFunc(l.entries, func(a, b Entry) int { return int(a.Index) - int(b.Index) })
	for i, e := range l.entries {
		if e.Index < 0 || int64(e.Index) >= gib*blocksPerGiB {
			return nil, fmt.Errorf("block %d is beyond a volume of %d GiB", e.Index, gib)
		}
		if i > 0 && e.Index == l.entries[i-1].Index {
			return nil, fmt.Errorf("block %d is listed twice", e.Index)
		}
	}
	l.entries = slices.DeleteFunc(l.entries, func(e Entry) bool { return e.Sum == ZeroSum })
	return l, nil
}

// Sum is the digest of a block, ZeroSum where the list does not have it.
func (l *List) Sum(index int32) Sum {
	if l != nil {
		if i, ok := slices.BinarySearchFunc(l.entries, index, func(e Entry, at int32) int { return int(e.Index) - int(at) }); ok {
			return l.entries[i].Sum
		}
	}
	return ZeroSum
}

// Len is how many blocks are not zero.
func (l *List) Len() int {
	if l == nil {
		return 0
	}
	return len(l.entries)
}

// Entries are the blocks that are not zero, in order of their index. They must
// not be changed.
func (l *List) Entries() []Entry {
	if l == nil {
		return nil
	}
	return l.entries
}

// Apply is what a volume of gib GiB holds after put was put on top of l.
func (l *List) Apply(gib int64, put []Entry) (*List, error) {
	now := map[int32]Sum{}
	for _, e := range l.Entries() {
		now[e.Index] = e.Sum
	}
	for _, e := range put {
		now[e.Index] = e.Sum
	}
	all := make([]Entry, 0, len(now))
	for i, s := range now {
		all = append(all, Entry{i, s})
	}
	return NewList(gib, all)
}

// Checksum is what CompleteSnapshot wants to know of the blocks that were put:
// how many, and the LINEAR checksum, base64 of the SHA-256 over their raw
// digests in the order of their index. put may be in any order.
func Checksum(put []Entry) (count int32, checksum string) {
	put = slices.Clone(put)
	slices.SortFunc(put, func(a, b Entry) int { return int(a.Index) - int(b.Index) })
	h := sha256.New()
	for _, e := range put {
		h.Write(e.Sum[:])
	}
	return int32(len(put)), Sum(h.Sum(nil)).String()
}

// A list on disk, little-endian: magic, u32 GiB, u32 count, for each block u32
// index and 32 bytes of digest in order of the index, then the SHA-256 of all
// that.
const (
	listMagic = "HFEBSL01"
	entrySize = 4 + sha256.Size
)

// WriteTo writes the list; it implements io.WriterTo.
func (l *List) WriteTo(w io.Writer) (int64, error) {
	le := binary.LittleEndian
	b := le.AppendUint32([]byte(listMagic), uint32(l.GiB))
	b = le.AppendUint32(b, uint32(len(l.entries)))
	for _, e := range l.entries {
		b = append(le.AppendUint32(b, uint32(e.Index)), e.Sum[:]...)
	}
	sum := sha256.Sum256(b)
	n, err := w.Write(append(b, sum[:]...))
	return int64(n), err
}

var errCutList = errors.New("a list of blocks that is cut off or changed")

// ReadList reads what WriteTo wrote. What it holds in memory is bounded by what
// r has, and by the size of the largest volume.
func ReadList(r io.Reader) (*List, error) {
	h := sha256.New()
	in := bufio.NewReader(r)
	head := make([]byte, len(listMagic)+8)
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, errCutList
	}
	h.Write(head)
	le := binary.LittleEndian
	if string(head[:len(listMagic)]) != listMagic {
		return nil, errors.New("not a list of blocks")
	}
	gib, count := int64(le.Uint32(head[8:])), int64(le.Uint32(head[12:]))
	if gib < 1 || gib > MaxGiB || count > gib*blocksPerGiB {
		return nil, fmt.Errorf("a list of %d blocks of a volume of %d GiB: there is no such volume", count, gib)
	}
	var entries []Entry
	b := make([]byte, entrySize)
	for range count {
		if _, err := io.ReadFull(in, b); err != nil {
			return nil, errCutList
		}
		h.Write(b)
		e := Entry{Index: int32(le.Uint32(b)), Sum: Sum(b[4:])}
		if n := len(entries); n > 0 && e.Index <= entries[n-1].Index || e.Sum == ZeroSum {
			return nil, errCutList
		}
		entries = append(entries, e)
	}
	if _, err := io.ReadFull(in, b[:sha256.Size]); err != nil || !bytes.Equal(b[:sha256.Size], h.Sum(nil)) {
		return nil, errCutList
	}
	if _, err := in.ReadByte(); err != io.EOF {
		return nil, errCutList
	}
	return NewList(gib, entries)
}
