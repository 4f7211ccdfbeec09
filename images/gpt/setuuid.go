// SPDX-License-Identifier: Apache-2.0

package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Disk is a disk whose table is changed while its partitions are in use.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns once all that was written is on the disk.
	Sync() error
}

// SetUUID gives the one partition with a label another id, in both copies of
// the table, on a disk of size bytes. Everything else stays as it is, and a
// copy that does not verify is made from the other. The copies are written one
// after the other, backup first, each synced before the next is touched:
// whenever the power fails one of them verifies, and says the old id or the new
// one. Calling it again finishes what was cut off.
func SetUUID(d Disk, size int64, label string, id GUID) error {
	t, err := Decode(d, size)
	if err != nil {
		return err
	}
	size -= size % SectorSize
	last := uint64(size/SectorSize) - 1
	primary, err1 := readCopy(d, size, 1)
	backup, err2 := readCopy(d, size, last)
	from := primary
	if err1 != nil {
		from = backup // Decode has taken it, so it verifies
	}
	found := 0
	for i := range MaxParts {
		e := from.entries[i*entrySize : (i+1)*entrySize]
		if GUID(e[:16]) == (GUID{}) || decodeName(e[56:]) != label {
			continue
		}
		found++
		raw := id.swap()
		copy(e[16:32], raw[:])
	}
	if found != 1 {
		return fmt.Errorf("gpt: %d partitions are labelled %q, want one", found, label)
	}
	for i, p := range t.Parts {
		if p.Label == label {
			t.Parts[i].UUID = id
		}
	}
	if err := t.Check(size); err != nil {
		return err // another partition has that id
	}
	order := []uint64{last, 1}
	if err2 == nil && err1 != nil {
		// Only the backup verifies: it stays until the primary does.
		order = []uint64{1, last}
	}
	for _, at := range order {
		old, oldErr := primary, err1
		if at == last {
			old, oldErr = backup, err2
		}
		next := from.at(at, last)
		if oldErr == nil && bytes.Equal(old.was, next.bytes()) {
			continue
		}
		if err := errors.Join(next.write(d), d.Sync()); err != nil {
			return fmt.Errorf("gpt: the table at sector %d: %w", at, err)
		}
	}
	return nil
}

// tableCopy is one copy of a table as it lies on the disk.
type tableCopy struct {
	header, entries []byte
	// was is what was read: header and entries.
	was []byte
}

func readCopy(r io.ReaderAt, size int64, lba uint64) (tableCopy, error) {
	if _, err := decodeCopy(r, size, lba); err != nil {
		return tableCopy{}, err
	}
	c := tableCopy{header: make([]byte, SectorSize), entries: make([]byte, entryBytes)}
	if _, err := r.ReadAt(c.header, int64(lba)*SectorSize); err != nil && err != io.EOF {
		return tableCopy{}, err
	}
	if _, err := r.ReadAt(c.entries, int64(binary.LittleEndian.Uint64(c.header[72:]))*SectorSize); err != nil && err != io.EOF {
		return tableCopy{}, err
	}
	c.was = c.bytes()
	return c, nil
}

func (c tableCopy) bytes() []byte { return append(bytes.Clone(c.header), c.entries...) }

// at is the copy as it has to lie at sector 1 or at the last one.
func (c tableCopy) at(lba, last uint64) tableCopy {
	le := binary.LittleEndian
	h := bytes.Clone(c.header)
	other, entriesAt := last, uint64(2)
	if lba == last {
		other, entriesAt = 1, last-entryLBAs
	}
	le.PutUint64(h[24:], lba)
	le.PutUint64(h[32:], other)
	le.PutUint64(h[72:], entriesAt)
	le.PutUint32(h[88:], crc32.ChecksumIEEE(c.entries))
	le.PutUint32(h[16:], 0)
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:headerBytes]))
	return tableCopy{header: h, entries: c.entries}
}

func (c tableCopy) write(w io.WriterAt) error {
	le := binary.LittleEndian
	if _, err := w.WriteAt(c.entries, int64(le.Uint64(c.header[72:]))*SectorSize); err != nil {
		return err
	}
	_, err := w.WriteAt(c.header, int64(le.Uint64(c.header[24:]))*SectorSize)
	return err
}
