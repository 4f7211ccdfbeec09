// SPDX-License-Identifier: Apache-2.0

package boottest

import "encoding/binary"

// Program makes an EFI program that holds text and could not run.
func Program(text string) []byte { return program(".text", text) }

// UKI makes a kernel image that boots the root with a root hash, and could
// not run.
func UKI(rootHash string) []byte {
	return program(".osrel", "ID=holdfast\n", ".cmdline", "root=/dev/mapper/root ro roothash="+rootHash+" quiet", ".linux", "kernel "+rootHash)
}

// program makes a PE32+ of sections (name, content, ...), right in the fields
// that images/pe looks at.
func program(sections ...string) []byte {
	const header, optional, first, align = 64, 112 + 8*16, 4096, 512
	le := binary.LittleEndian
	b := make([]byte, first)
	copy(b, "MZ")
	le.PutUint32(b[60:], header)
	h := b[header:]
	copy(h, "PE\x00\x00")
	le.PutUint16(h[4:], 0x8664)
	le.PutUint16(h[6:], uint16(len(sections)/2))
	le.PutUint16(h[20:], optional)
	le.PutUint16(h[24:], 0x20b)
	le.PutUint32(h[24+60:], first)
	le.PutUint32(h[24+108:], 16)
	for i := 0; i < len(sections); i += 2 {
		name, text := sections[i], sections[i+1]
		e := b[header+24+optional+40*(i/2):]
		copy(e[:8], name)
		raw := (len(text) + align - 1) / align * align
		le.PutUint32(e[8:], uint32(len(text)))
		le.PutUint32(e[12:], uint32(len(b)))
		le.PutUint32(e[16:], uint32(raw))
		le.PutUint32(e[20:], uint32(len(b)))
		b = append(append(b, text...), make([]byte, raw-len(text))...)
	}
	return b
}
