// SPDX-License-Identifier: Apache-2.0

package powercut

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Flags of an entry, as dm-log-writes defines them (Linux,
// Documentation/admin-guide/device-mapper/log-writes.rst).
const (
	Flush    = 1 << 0
	FUA      = 1 << 1
	Discard  = 1 << 2
	Mark     = 1 << 3
	Metadata = 1 << 4

	knownFlags = Flush | FUA | Discard | Mark | Metadata
)

const (
	logMagic   = 0x6a736677736872
	logVersion = 1
	// entryHead is the length of an entry's fields in bytes: sector, sectors,
	// flags and length of inline data. A whole sector holds them.
	entryHead = 32
	// maxEntries and maxWrite bound a log; QEMU splits no write beyond 2 GiB.
	maxEntries = 1 << 24
	maxWrite   = 2 << 30
)

// Entry is one request the disk took.
type Entry struct {
	// Offset and Len are where and how much, in bytes; 0 for a bare flush.
	Offset, Len int64
	Flags       uint64
	// Text of a mark.
	Text string
	// data is where the bytes lie in the log.
	data int64
}

// Writes is true for an entry that carries bytes to the disk.
func (e Entry) Writes() bool { return e.Flags&(Discard|Mark) == 0 && e.Len > 0 }

// Log is a recorded run.
type Log struct {
	// Sector is the unit of the log in bytes: what a disk writes whole.
	Sector  int64
	Entries []Entry
	r       io.ReaderAt
}

// ReadLog reads a log of size bytes as QEMU and dm-log-writes make it; the
// data stays where it is. disk is the size of the recorded disk in bytes: no
// entry may reach beyond. Entries that the superblock does not count were cut
// off with the recorder and are not read.
func ReadLog(r io.ReaderAt, size, disk int64) (*Log, error) {
	var head [28]byte
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, size), head[:]); err != nil {
		return nil, fmt.Errorf("write log: read its superblock: %w; record again", err)
	}
	le := binary.LittleEndian
	if le.Uint64(head[:]) != logMagic || le.Uint64(head[8:]) != logVersion {
		return nil, errors.New("write log: not a log of dm-log-writes, version 1; record with QEMU's blklogwrites")
	}
	count, unit := le.Uint64(head[16:]), int64(le.Uint32(head[24:]))
	if unit < 512 || unit > 4096 || unit&(unit-1) != 0 {
		return nil, fmt.Errorf("write log: sectors of %d bytes; 512 to 4096 are read", unit)
	}
	if count > maxEntries || count > uint64(size/unit) {
		return nil, fmt.Errorf("write log: %d entries do not fit its %d bytes", count, size)
	}
	l := &Log{Sector: unit, r: r, Entries: make([]Entry, 0, count)}
	at, b := unit, make([]byte, unit)
	for i := range count {
		if at > size-unit {
			return nil, fmt.Errorf("write log: it ends before entry %d of %d", i, count)
		}
		if _, err := io.ReadFull(io.NewSectionReader(r, at, unit), b); err != nil {
			return nil, fmt.Errorf("write log: read entry %d: %w", i, err)
		}
		e, inline, err := l.entry(b, disk)
		if err != nil {
			return nil, fmt.Errorf("write log: entry %d: %w", i, err)
		}
		e.data = at + unit
		at += unit
		if e.Writes() {
			if e.Len > size-at {
				return nil, fmt.Errorf("write log: it ends within the data of entry %d", i)
			}
			at += e.Len
		}
		if e.Flags&Mark != 0 {
			e.Text = string(b[entryHead : entryHead+inline])
		}
		l.Entries = append(l.Entries, e)
	}
	return l, nil
}

// entry reads one head and checks it.
func (l *Log) entry(b []byte, disk int64) (e Entry, inline int64, err error) {
	le := binary.LittleEndian
	sector, sectors, flags, length := le.Uint64(b), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])
	if flags&^uint64(knownFlags) != 0 {
		return e, 0, fmt.Errorf("flags %#x are not known", flags)
	}
	if length > uint64(l.Sector-entryHead) {
		return e, 0, fmt.Errorf("%d bytes of text do not fit its sector", length)
	}
	e.Flags = flags
	if flags&Mark != 0 {
		return e, int64(length), nil
	}
	end := uint64(disk / l.Sector)
	if sectors > end || sectors > 0 && sector > end-sectors {
		return e, 0, fmt.Errorf("%d sectors at %d lie beyond the disk's %d", sectors, sector, end)
	}
	if sectors == 0 && flags == 0 {
		return e, 0, errors.New("it says nothing: the recorder could not write it, and the guest had an I/O error; record without merging of requests")
	}
	e.Offset, e.Len = int64(sector)*l.Sector, int64(sectors)*l.Sector
	if e.Writes() && e.Len > maxWrite {
		return e, 0, fmt.Errorf("a write of %d bytes; at most %d are read", e.Len, maxWrite)
	}
	return e, int64(length), nil
}

// Data opens the bytes of a write.
func (l *Log) Data(e Entry) io.Reader {
	if !e.Writes() {
		return io.MultiReader()
	}
	return io.NewSectionReader(l.r, e.data, e.Len)
}
