// SPDX-License-Identifier: Apache-2.0

package gpt

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"reflect"
	"strings"
	"testing"
)

const diskSize = 3 << 30

func sample() Table {
	id := func(b byte) GUID { return GUID{b, 1, 2, 3, 4, 5, 0x86, 7, 0x88, 9, 10, 11, 12, 13, 14, 15} }
	return Table{DiskGUID: id(0xd0), Parts: []Part{
		{Label: "esp", Type: TypeESP, UUID: id(1), Offset: 1 << 20, Size: 256 << 20},
		{Label: "root-a", Type: TypeRootX8664, UUID: id(2), Offset: 257 << 20, Size: 512 << 20, Attrs: AttrReadOnly | AttrNoAuto},
		{Label: "root-b", Type: TypeRootX8664, UUID: id(3), Offset: 769 << 20, Size: 512 << 20, Attrs: AttrReadOnly | AttrNoAuto},
		{Label: "factory", Type: TypeLinux, UUID: id(4), Offset: 1281 << 20, Size: 100 << 20, Attrs: AttrReadOnly | AttrNoAuto},
	}}
}

// disk reads as size bytes with head and tail at its ends and zeros between.
type disk struct {
	head, tail []byte
	size       int64
}

func (d disk) ReadAt(b []byte, off int64) (int, error) {
	for i := range b {
		switch at := off + int64(i); {
		case at < int64(len(d.head)):
			b[i] = d.head[at]
		case at >= d.size-int64(len(d.tail)) && at < d.size:
			b[i] = d.tail[at-d.size+int64(len(d.tail))]
		default:
			b[i] = 0
		}
	}
	return len(b), nil
}

func encode(t testing.TB) disk {
	t.Helper()
	head, tail, err := Encode(sample(), diskSize)
	if err != nil {
		t.Fatal(err)
	}
	if len(head) != HeadSize || len(tail) != TailSize {
		t.Fatalf("head of %d and tail of %d bytes, want %d and %d", len(head), len(tail), HeadSize, TailSize)
	}
	return disk{head, tail, diskSize}
}

func TestRoundTrip(t *testing.T) {
	got, err := Decode(encode(t), diskSize)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, sample()) {
		t.Errorf("read %+v, wrote %+v", got, sample())
	}
	if p, ok := got.Part("factory"); !ok || p.Size != 100<<20 {
		t.Errorf("Part: %+v, %v", p, ok)
	}
}

// Either copy alone is enough; with neither the error tells of both.
func TestEachCopyStandsAlone(t *testing.T) {
	for _, c := range []struct {
		name       string
		head, tail bool
	}{{"head", true, false}, {"tail", false, true}, {"none", true, true}} {
		d := encode(t)
		if c.head {
			d.head[2*SectorSize+40] ^= 1
		}
		if c.tail {
			d.tail[len(d.tail)-SectorSize+57] ^= 1
		}
		got, err := Decode(d, diskSize)
		if c.head && c.tail {
			if err == nil || !strings.Contains(err.Error(), "primary") || !strings.Contains(err.Error(), "backup") {
				t.Errorf("both damaged: %v", err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, sample()) {
			t.Errorf("%s damaged: %+v, %v", c.name, got, err)
		}
	}
}

func TestProtectiveMBR(t *testing.T) {
	d := encode(t)
	if d.head[510] != 0x55 || d.head[511] != 0xaa || d.head[450] != 0xee {
		t.Error("no protective MBR")
	}
	if n := binary.LittleEndian.Uint32(d.head[458:]); n != diskSize/SectorSize-1 {
		t.Errorf("protective partition has %d sectors, want %d", n, diskSize/SectorSize-1)
	}
	if m := protectiveMBR(1 << 40); binary.LittleEndian.Uint32(m[458:]) != 0xffffffff {
		t.Error("a disk above 2 TiB does not fill the 32 bits")
	}
}

func TestEncodeRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		size int64
		harm func(*Table)
		want string
	}{
		{"small disk", 4096, func(*Table) {}, "at least"},
		{"odd disk", diskSize + 1, func(*Table) {}, "whole sectors"},
		{"no disk id", diskSize, func(t *Table) { t.DiskGUID = GUID{} }, "no id"},
		{"no type", diskSize, func(t *Table) { t.Parts[0].Type = GUID{} }, "no type"},
		{"no id", diskSize, func(t *Table) { t.Parts[0].UUID = GUID{} }, "has no id"},
		{"same id", diskSize, func(t *Table) { t.Parts[1].UUID = t.Parts[0].UUID }, "same id as partition 1"},
		{"id of the disk", diskSize, func(t *Table) { t.Parts[1].UUID = t.DiskGUID }, "same id as the disk"},
		{"overlap", diskSize, func(t *Table) { t.Parts[3].Offset = 768 << 20 }, "overlap"},
		{"over head", diskSize, func(t *Table) { t.Parts[0].Offset = 512 }, "beyond the usable part"},
		{"over tail", diskSize, func(t *Table) { t.Parts[3].Size = 3<<30 - 1281<<20 }, "beyond the usable part"},
		{"empty", diskSize, func(t *Table) { t.Parts[3].Size = 0 }, "whole sectors"},
		{"odd", diskSize, func(t *Table) { t.Parts[3].Offset++ }, "whole sectors"},
		{"huge", diskSize, func(t *Table) { t.Parts[3].Size = 1<<63 - 512 }, "beyond the usable part"},
		{"long label", diskSize, func(t *Table) { t.Parts[3].Label = strings.Repeat("x", 37) }, "longer than 36"},
		{"zero in label", diskSize, func(t *Table) { t.Parts[3].Label = "a\x00b" }, "zero character"},
		{"too many", diskSize, func(t *Table) { t.Parts = make([]Part, 129) }, "at most 128"},
	} {
		table := sample()
		c.harm(&table)
		if _, _, err := Encode(table, c.size); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// A table with right checksums may still lie.
func TestDecodeRefusesLies(t *testing.T) {
	le := binary.LittleEndian
	for _, c := range []struct {
		name    string
		entries func(e []byte)
		header  func(h []byte)
		want    string
	}{
		{"overlap", func(e []byte) { le.PutUint64(e[32+128:], 2048) }, nil, "overlap"},
		{"off the disk", func(e []byte) { le.PutUint64(e[40:], 1<<40) }, nil, "not on the disk"},
		{"end before start", func(e []byte) { le.PutUint64(e[32:], 1<<62) }, nil, "not on the disk"},
		{"same id", func(e []byte) { copy(e[16+128:], e[16:32]) }, nil, "same id"},
		{"entries far off", nil, func(h []byte) { le.PutUint64(h[72:], 1<<63) }, "beyond the disk"},
		{"other entry count", nil, func(h []byte) { le.PutUint32(h[80:], 1<<31) }, "only 128"},
		{"other place", nil, func(h []byte) { le.PutUint64(h[24:], 7) }, "found at 1"},
		{"longer header", nil, func(h []byte) { le.PutUint32(h[12:], 512) }, "only 92"},
	} {
		d := encode(t)
		d.tail = nil
		h, e := d.head[SectorSize:2*SectorSize], d.head[2*SectorSize:]
		if c.entries != nil {
			c.entries(e)
		}
		if c.header != nil {
			c.header(h)
		}
		seal(h, e)
		if _, err := Decode(d, diskSize); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// seal makes the checksums of a header fit.
func seal(h, entries []byte) {
	le := binary.LittleEndian
	le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(h[16:], 0)
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:headerBytes]))
}

func TestGUID(t *testing.T) {
	if s := TypeESP.String(); s != "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" {
		t.Error(s)
	}
	// The on-disk form of the ESP type as every hex dump shows it.
	if d := TypeESP.swap(); !bytes.Equal(d[:8], []byte{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11}) {
		t.Errorf("% x", d)
	}
	for _, bad := range []string{"", "c12a7328", strings.Repeat("z", 36), "c12a7328-f81f-11d2-ba4b-00a0c93ec9-b", "c12a7328xf81fx11d2xba4bx00a0c93ec93b"} {
		if _, err := ParseGUID(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzDecode(f *testing.F) {
	d := encode(f)
	f.Add(d.head, true)
	f.Add(d.head[:3*SectorSize], false)
	f.Fuzz(func(t *testing.T, head []byte, fix bool) {
		if len(head) < HeadSize {
			head = append(head, make([]byte, HeadSize-len(head))...)
		}
		if head = head[:HeadSize]; fix { // get past the checksums
			seal(head[SectorSize:], head[2*SectorSize:])
		}
		table, err := Decode(disk{head, nil, diskSize}, diskSize)
		if err != nil {
			return
		}
		if err := table.Check(diskSize); err != nil {
			t.Fatalf("Decode gave a table that does not pass its own check: %v", err)
		}
		// A label that is no UTF-16 does not come back the same, all else does.
		a, b, err := Encode(table, diskSize)
		if err != nil {
			return
		}
		again, err := Decode(disk{a, b, diskSize}, diskSize)
		if err != nil || !reflect.DeepEqual(again, table) {
			t.Fatalf("%+v came back as %+v, %v", table, again, err)
		}
	})
}
