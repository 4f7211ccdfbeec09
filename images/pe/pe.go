// SPDX-License-Identifier: Apache-2.0

// Package pe reads the layout of an EFI program (PE32+): where its sections, its
// checksum and its certificate table are. It looks at the bytes only, never
// runs or relocates them, and refuses what the firmware could read in
// another way than a signer: overlapping sections, or sections outside the file.
//
// Format: Microsoft "PE Format" specification.
package pe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
)

const (
	// MaxSections is what Windows and systemd-stub take.
	MaxSections = 96
	// MaxSize bounds a program in bytes: all offsets are 32 bits wide, and no
	// UKI comes near 1 GiB.
	MaxSize = 1 << 30

	coffSize    = 24 // signature and COFF header
	sectionSize = 40
	dirOffset   = 112 // of the data directories in a PE32+ optional header
	certDir     = 4   // index of the certificate table
)

// Section is one section; Data aliases the file's bytes.
type Section struct {
	Name string
	// Offset and Size are where the file holds it, in bytes.
	Offset, Size int64
	// Data is the content, without the padding to the file alignment.
	Data []byte
}

// File is a parsed program.
type File struct {
	Machine uint16
	// ChecksumAt and CertDirAt are the offsets of the 4 byte checksum and the
	// 8 byte directory entry of the certificate table.
	ChecksumAt, CertDirAt int64
	// HeaderSize is the bytes before the first section.
	HeaderSize int64
	// CertAt and CertSize are the certificate table; 0 when there is none.
	CertAt, CertSize int64
	// Sections in the order of the header.
	Sections []Section

	virtual []int64 // the sections' sizes in memory
}

// Parse reads the headers of b.
func Parse(b []byte) (*File, error) {
	f, err := parse(b, int64(len(b)))
	if err != nil {
		return nil, err
	}
	for i, s := range f.Sections {
		f.Sections[i].Data = b[s.Offset:][:min(s.Size, f.virtual[i])]
	}
	return f, nil
}

// maxHeader bounds the headers of ParseAt in bytes: MaxSections take 4 KiB.
const maxHeader = 64 << 10

// ParseAt is Parse for a program of size bytes that stays where it is: only
// its headers are read, and Data is nil.
func ParseAt(r io.ReaderAt, size int64) (*File, error) {
	head := make([]byte, min(max(size, 0), maxHeader))
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, int64(len(head))), head); err != nil {
		return nil, err
	}
	return parse(head, size)
}

// Content reads the content of section i of a program parsed by ParseAt, of
// at most limit bytes.
func (f *File) Content(r io.ReaderAt, i int, limit int64) ([]byte, error) {
	s := f.Sections[i]
	n := min(s.Size, f.virtual[i])
	if n > limit {
		return nil, fmt.Errorf("pe: section %q has %d bytes, at most %d are taken", s.Name, n, limit)
	}
	out := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(r, s.Offset, n), out); err != nil {
		return nil, fmt.Errorf("pe: section %q: %w", s.Name, err)
	}
	return out, nil
}

// parse reads headers out of b, the first bytes of a program of n.
func parse(b []byte, n int64) (*File, error) {
	le := binary.LittleEndian
	have := int64(len(b))
	if n > MaxSize {
		return nil, fmt.Errorf("pe: %d bytes, at most %d are accepted", n, MaxSize)
	}
	if have < 64 || b[0] != 'M' || b[1] != 'Z' {
		return nil, errors.New("pe: not an EFI program: it does not begin with MZ")
	}
	at := int64(le.Uint32(b[60:]))
	if at < 64 || at > have-coffSize-dirOffset-8*(certDir+1) {
		return nil, errors.New("pe: header is beyond the end of the file")
	}
	if string(b[at:at+4]) != "PE\x00\x00" {
		return nil, errors.New("pe: not an EFI program: no PE signature")
	}
	f := &File{Machine: le.Uint16(b[at+4:])}
	count, optSize := int64(le.Uint16(b[at+6:])), int64(le.Uint16(b[at+20:]))
	opt := at + coffSize
	if m := le.Uint16(b[opt:]); m != 0x20b {
		return nil, fmt.Errorf("pe: optional header has magic %#x, only PE32+ (0x20b) is known", m)
	}
	dirs := int64(le.Uint32(b[opt+108:]))
	if dirs <= certDir || dirs > 16 || optSize < dirOffset+8*dirs {
		return nil, fmt.Errorf("pe: %d data directories in an optional header of %d bytes", dirs, optSize)
	}
	f.ChecksumAt, f.CertDirAt = opt+64, opt+dirOffset+8*certDir
	f.HeaderSize = int64(le.Uint32(b[opt+60:]))
	f.CertAt, f.CertSize = int64(le.Uint32(b[f.CertDirAt:])), int64(le.Uint32(b[f.CertDirAt+4:]))
	if (f.CertAt == 0) != (f.CertSize == 0) || f.CertAt > n || f.CertSize > n-f.CertAt {
		return nil, errors.New("pe: certificate table is beyond the end of the file")
	}

	table := opt + optSize
	if count > MaxSections {
		return nil, fmt.Errorf("pe: %d sections, at most %d", count, MaxSections)
	}
	if table+count*sectionSize > f.HeaderSize || f.HeaderSize > n || f.HeaderSize > have {
		return nil, errors.New("pe: section table is beyond the headers")
	}
	for i := range count {
		s := b[table+i*sectionSize:]
		sec := Section{
			Name: strings.TrimRight(string(s[:8]), "\x00"),
			Size: int64(le.Uint32(s[16:])), Offset: int64(le.Uint32(s[20:])),
		}
		if sec.Size == 0 {
			sec.Offset = 0
		} else if sec.Offset < f.HeaderSize || sec.Offset > n || sec.Size > n-sec.Offset {
			return nil, fmt.Errorf("pe: section %q is not inside the file", sec.Name)
		}
		f.Sections = append(f.Sections, sec)
		f.virtual = append(f.virtual, int64(le.Uint32(s[8:])))
	}
	end := f.HeaderSize
	for _, s := range f.InFileOrder() {
		if s.Offset < end {
			return nil, fmt.Errorf("pe: section %q overlaps what is before it", s.Name)
		}
		end = s.Offset + s.Size
	}
	if f.CertAt != 0 && f.CertAt < end {
		return nil, errors.New("pe: certificate table overlaps the sections")
	}
	return f, nil
}

// InFileOrder gives the sections that hold bytes of the file, by offset.
func (f *File) InFileOrder() []Section {
	out := make([]Section, 0, len(f.Sections))
	for _, s := range f.Sections {
		if s.Size > 0 {
			out = append(out, s)
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].Offset < out[j].Offset })
	return out
}
