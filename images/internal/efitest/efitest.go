// SPDX-License-Identifier: Apache-2.0

// Package efitest makes small EFI programs for tests: right in every field that
// a signer or a UKI reader looks at, and nothing that could run.
package efitest

import "encoding/binary"

// Section is the name (at most 8 bytes) and content of one section.
type Section struct {
	Name string
	Data []byte
}

const (
	align      = 512
	headerAt   = 64
	dirs       = 16
	optional   = 112 + 8*dirs
	headerSize = 4096
)

// Program makes a PE32+ with up to 90 sections, aligned to 512 bytes.
func Program(sections ...Section) []byte {
	le := binary.LittleEndian
	b := make([]byte, headerSize)
	copy(b, "MZ")
	le.PutUint32(b[60:], headerAt)
	h := b[headerAt:]
	copy(h, "PE\x00\x00")
	le.PutUint16(h[4:], 0x8664)
	le.PutUint16(h[6:], uint16(len(sections)))
	le.PutUint16(h[20:], optional)
	le.PutUint16(h[22:], 0x22) // executable, large addresses
	o := h[24:]
	le.PutUint16(o, 0x20b)
	le.PutUint32(o[32:], 4096)
	le.PutUint32(o[36:], align)
	le.PutUint32(o[60:], headerSize)
	le.PutUint16(o[68:], 10) // EFI application
	le.PutUint32(o[108:], dirs)
	at, address := uint32(headerSize), uint32(headerSize)
	for i, s := range sections {
		e := o[optional+40*i:]
		copy(e[:8], s.Name)
		raw := (uint32(len(s.Data)) + align - 1) / align * align
		le.PutUint32(e[8:], uint32(len(s.Data)))
		le.PutUint32(e[12:], address)
		le.PutUint32(e[16:], raw)
		le.PutUint32(e[20:], at)
		b = append(b, s.Data...)
		b = append(b, make([]byte, int(raw)-len(s.Data))...)
		o = b[headerAt+24:]
		at += raw
		address += (raw + 4095) / 4096 * 4096
	}
	le.PutUint32(o[56:], address)
	return b
}

// UKI makes what ukify would, as far as the section table goes.
func UKI(linux, initrd, cmdline string) []byte {
	return Program(Section{".text", []byte("stub")}, Section{".sbat", []byte("sbat,1\n")}, Section{".osrel", []byte("ID=holdfast\n")},
		Section{".cmdline", []byte(cmdline)}, Section{".initrd", []byte(initrd)}, Section{".linux", []byte(linux)})
}
