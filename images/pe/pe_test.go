// SPDX-License-Identifier: Apache-2.0

package pe

import (
	"bytes"
	stdpe "debug/pe"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/internal/efitest"
)

const (
	header   = 64
	optional = header + 24
	sections = optional + 112 + 8*16
)

func TestParse(t *testing.T) {
	b := efitest.UKI(strings.Repeat("k", 700), "i", "root=x")
	f, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	std, err := stdpe.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Sections) != len(std.Sections) || f.Machine != std.Machine {
		t.Fatalf("%d sections for machine %#x, debug/pe sees %d for %#x", len(f.Sections), f.Machine, len(std.Sections), std.Machine)
	}
	for i, s := range f.Sections {
		if d := std.Sections[i]; s.Name != d.Name || s.Offset != int64(d.Offset) || s.Size != int64(d.Size) || int64(len(s.Data)) != int64(d.VirtualSize) {
			t.Errorf("section %d is %s at %d of %d, debug/pe sees %+v", i, s.Name, s.Offset, s.Size, d.SectionHeader)
		}
	}
	if last := f.Sections[len(f.Sections)-1]; string(last.Data) != strings.Repeat("k", 700) {
		t.Errorf("content of the last section is %q", last.Data)
	}
}

func TestRefuses(t *testing.T) {
	le := binary.LittleEndian
	for _, c := range []struct {
		name string
		harm func(b []byte) []byte
		want string
	}{
		{"empty", func([]byte) []byte { return nil }, "MZ"},
		{"text", func(b []byte) []byte { b[0] = 'x'; return b }, "MZ"},
		{"header beyond", func(b []byte) []byte { le.PutUint32(b[60:], 1<<31); return b }, "beyond the end"},
		{"header in MZ", func(b []byte) []byte { le.PutUint32(b[60:], 4); return b }, "beyond the end"},
		{"no PE", func(b []byte) []byte { b[header] = 'x'; return b }, "no PE signature"},
		{"PE32", func(b []byte) []byte { le.PutUint16(b[optional:], 0x10b); return b }, "only PE32+"},
		{"few directories", func(b []byte) []byte { le.PutUint32(b[optional+108:], 4); return b }, "data directories"},
		{"many directories", func(b []byte) []byte { le.PutUint32(b[optional+108:], 1<<30); return b }, "data directories"},
		{"short optional header", func(b []byte) []byte { le.PutUint16(b[header+20:], 100); return b }, "data directories"},
		{"many sections", func(b []byte) []byte { le.PutUint16(b[header+6:], 97); return b }, "at most 96"},
		{"sections beyond headers", func(b []byte) []byte { le.PutUint32(b[optional+60:], sections); return b }, "section table"},
		{"headers beyond", func(b []byte) []byte { le.PutUint32(b[optional+60:], 1<<31); return b }, "section table"},
		{"section beyond", func(b []byte) []byte { le.PutUint32(b[sections+16:], 1<<31); return b }, "not inside"},
		{"section in headers", func(b []byte) []byte { le.PutUint32(b[sections+20:], 64); return b }, "not inside"},
		{"overlap", func(b []byte) []byte { le.PutUint32(b[sections+16:], 1024); return b }, "overlaps"},
		{"certificates beyond", func(b []byte) []byte {
			le.PutUint32(b[optional+112+32:], 1<<30)
			le.PutUint32(b[optional+112+36:], 8)
			return b
		}, "certificate table is beyond"},
		{"certificates without place", func(b []byte) []byte { le.PutUint32(b[optional+112+36:], 8); return b }, "certificate table is beyond"},
		{"certificates over sections", func(b []byte) []byte {
			le.PutUint32(b[optional+112+32:], 4096)
			le.PutUint32(b[optional+112+36:], 8)
			return b
		}, "overlaps the sections"},
		{"cut off", func(b []byte) []byte { return b[:len(b)-1] }, "not inside"},
	} {
		if _, err := Parse(c.harm(efitest.UKI("kernel", "initrd", "root=x"))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(efitest.UKI("kernel", "initrd", "root=x")[:600])
	f.Add(efitest.Program())
	f.Fuzz(func(t *testing.T, b []byte) {
		// Headers are what matters: the rest is filled up with zeros.
		if len(b) < 8192 {
			b = append(b, make([]byte, 8192-len(b))...)
		}
		file, err := Parse(b)
		if err != nil {
			return
		}
		var sum int64
		for _, s := range file.InFileOrder() {
			sum += s.Size
		}
		if sum > int64(len(b)) || file.CertDirAt+8 > file.HeaderSize && len(file.Sections) > 0 || file.CertAt+file.CertSize > int64(len(b)) {
			t.Fatalf("%+v of %d bytes", file, len(b))
		}
	})
}
