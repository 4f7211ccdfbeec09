// SPDX-License-Identifier: Apache-2.0

package gpt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

var signature = [8]byte{'E', 'F', 'I', ' ', 'P', 'A', 'R', 'T'}

// Encode gives the bytes for the start of the disk (HeadSize) and for its last
// TailSize bytes. Whoever rewrites a live disk writes tail before head, so
// that one valid copy exists at every moment.
func Encode(t Table, diskSize int64) (head, tail []byte, err error) {
	if err := t.Check(diskSize); err != nil {
		return nil, nil, err
	}
	le := binary.LittleEndian
	last := uint64(diskSize/SectorSize) - 1

	entries := make([]byte, entryBytes)
	for i, p := range t.Parts {
		e := entries[i*entrySize:]
		typ, id := p.Type.swap(), p.UUID.swap()
		copy(e[0:], typ[:])
		copy(e[16:], id[:])
		le.PutUint64(e[32:], uint64(p.Offset/SectorSize))
		le.PutUint64(e[40:], uint64((p.Offset+p.Size)/SectorSize)-1)
		le.PutUint64(e[48:], p.Attrs)
		name, err := encodeName(p.Label)
		if err != nil {
			return nil, nil, err
		}
		copy(e[56:], name[:])
	}

	header := func(my, other, entriesAt uint64) []byte {
		h := make([]byte, SectorSize)
		copy(h, signature[:])
		le.PutUint32(h[8:], 0x00010000)
		le.PutUint32(h[12:], headerBytes)
		le.PutUint64(h[24:], my)
		le.PutUint64(h[32:], other)
		le.PutUint64(h[40:], 2+entryLBAs)
		le.PutUint64(h[48:], last-1-entryLBAs)
		id := t.DiskGUID.swap()
		copy(h[56:], id[:])
		le.PutUint64(h[72:], entriesAt)
		le.PutUint32(h[80:], MaxParts)
		le.PutUint32(h[84:], entrySize)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:headerBytes]))
		return h
	}

	head = append(protectiveMBR(last), header(1, last, 2)...)
	head = append(head, entries...)
	tail = append(append([]byte{}, entries...), header(last, 1, last-entryLBAs)...)
	return head, tail, nil
}

// protectiveMBR covers the disk with one partition of type 0xEE (UEFI 2.10,
// 5.2.3). Its disk signature stays 0: the kernel would otherwise offer it as a
// second PARTUUID.
func protectiveMBR(last uint64) []byte {
	b := make([]byte, SectorSize)
	e := b[446:]
	copy(e[1:], []byte{0x00, 0x02, 0x00}) // first CHS: sector 2
	e[4] = 0xEE
	copy(e[5:], []byte{0xFF, 0xFF, 0xFF})
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(min(last, 0xFFFFFFFF)))
	b[510], b[511] = 0x55, 0xAA
	return b
}

// Decode reads the table of a disk of size bytes. It takes the primary copy,
// or the backup when the primary does not verify; the error names both. It
// reads 512-byte sectors and tables of exactly 128 entries, which is what
// Encode, systemd-repart and sgdisk write.
func Decode(r io.ReaderAt, size int64) (Table, error) {
	if size < HeadSize+TailSize {
		return Table{}, fmt.Errorf("gpt: %d bytes are too few for a partition table", size)
	}
	size -= size % SectorSize
	last := uint64(size/SectorSize) - 1
	t, err1 := decodeCopy(r, size, 1)
	if err1 == nil {
		return t, nil
	}
	t, err2 := decodeCopy(r, size, last)
	if err2 == nil {
		return t, nil
	}
	return Table{}, errors.Join(fmt.Errorf("gpt: primary table: %w", err1), fmt.Errorf("gpt: backup table: %w", err2))
}

func decodeCopy(r io.ReaderAt, size int64, lba uint64) (Table, error) {
	le := binary.LittleEndian
	h := make([]byte, SectorSize)
	if _, err := r.ReadAt(h, int64(lba)*SectorSize); err != nil && err != io.EOF {
		return Table{}, err
	}
	if [8]byte(h[:8]) != signature {
		return Table{}, errors.New("no GPT signature")
	}
	if n := le.Uint32(h[12:]); n != headerBytes {
		return Table{}, fmt.Errorf("header of %d bytes, only %d is known", n, headerBytes)
	}
	sum := le.Uint32(h[16:])
	le.PutUint32(h[16:], 0)
	if crc32.ChecksumIEEE(h[:headerBytes]) != sum {
		return Table{}, errors.New("header checksum does not match")
	}
	if my := le.Uint64(h[24:]); my != lba {
		return Table{}, fmt.Errorf("header says it is at sector %d, found at %d", my, lba)
	}
	if n, s := le.Uint32(h[80:]), le.Uint32(h[84:]); n != MaxParts || s != entrySize {
		return Table{}, fmt.Errorf("%d entries of %d bytes, only %d of %d are known", n, s, MaxParts, entrySize)
	}
	at := le.Uint64(h[72:])
	if at > uint64(size/SectorSize)-entryLBAs {
		return Table{}, fmt.Errorf("entries at sector %d are beyond the disk", at)
	}
	entries := make([]byte, entryBytes)
	if _, err := r.ReadAt(entries, int64(at)*SectorSize); err != nil && err != io.EOF {
		return Table{}, err
	}
	if crc32.ChecksumIEEE(entries) != le.Uint32(h[88:]) {
		return Table{}, errors.New("checksum of the entries does not match")
	}

	t := Table{DiskGUID: GUID(h[56:72]).swap()}
	for i := range MaxParts {
		e := entries[i*entrySize : (i+1)*entrySize]
		p := Part{Type: GUID(e[:16]).swap(), UUID: GUID(e[16:32]).swap(), Attrs: le.Uint64(e[48:]), Label: decodeName(e[56:])}
		if p.Type == (GUID{}) {
			continue
		}
		first, end := le.Uint64(e[32:]), le.Uint64(e[40:])
		sectors := uint64(size / SectorSize)
		if first > end || end >= sectors {
			return Table{}, fmt.Errorf("partition %d: sectors %d to %d are not on the disk", i+1, first, end)
		}
		p.Offset, p.Size = int64(first)*SectorSize, int64(end-first+1)*SectorSize
		t.Parts = append(t.Parts, p)
	}
	if err := t.Check(size); err != nil {
		return Table{}, err
	}
	return t, nil
}
