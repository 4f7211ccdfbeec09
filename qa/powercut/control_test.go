// SPDX-License-Identifier: Apache-2.0

//go:build vm

package powercut

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/images/gpt"
)

// seesDamage is the control of a campaign: a disk with one byte changed in each
// place that is looked at is wrong, and is called by the right name.
func seesDamage(t *testing.T, c Campaign, base string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := CopySparse(path, base); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := sizeOf(path)
	if err != nil {
		t.Fatal(err)
	}
	check := &Checker{Programs: c.Programs, Dir: t.TempDir(), Images: map[string]bool{}}
	if check.Table, err = gpt.Decode(f, size); err != nil {
		t.Fatal(err)
	}
	look := func() Outcome {
		o, err := check.Check(t.Context(), Disk{File: f, Size: size})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	look()
	if check.Record == nil {
		t.Fatal("the base has no generation record")
	}
	check.Allowed = []slot.Generation{check.Record.Committed}
	kernel := int64(-1)
	esp, _ := check.Table.Part("esp")
	for _, file := range check.Found {
		check.Images[file.Digest] = true
		if strings.HasPrefix(strings.ToLower(file.Path), "efi/linux/") {
			kernel = esp.Offset + place(t, f, esp.Offset, file) + 5000
		}
	}
	if o := look(); len(o.Problems) > 0 {
		t.Fatalf("the base: %s", o)
	}
	state, _ := check.Table.Part("state")
	g, err := ReadGroup(io.NewSectionReader(f, state.Offset, state.Size), state.Size)
	if err != nil {
		t.Fatal(err)
	}
	root, _ := check.Table.Part("root-" + strings.ToLower(check.Record.Committed.Slot))
	for _, row := range []struct {
		name string
		at   int64
		want string
	}{
		{"primary table", gpt.SectorSize + 24, "primary partition table"},
		{"backup table", size - gpt.SectorSize + 24, "backup partition table"},
		{"kernel image", kernel, "is not whole"},
		{"slot", root.Offset + 10<<20, "slot of the committed"},
		{"LVM", state.Offset + 4096 + 8, "lvm:"},
		{"thin pool", state.Offset + g.Volumes[g.Volumes["pool"].Metadata].Runs[0].Offset + 40, "thin_check"},
	} {
		var b [1]byte
		if _, err := f.ReadAt(b[:], row.at); err != nil {
			t.Fatal(err)
		}
		flip := func() {
			b[0] ^= 0x55
			if _, err := f.WriteAt(b[:], row.at); err != nil {
				t.Fatal(err)
			}
		}
		flip()
		if o := look(); !strings.Contains(strings.Join(o.Problems, "; "), row.want) {
			t.Errorf("a changed byte of the %s: %s", row.name, o)
		}
		flip()
	}
	// A generation that is neither the old nor the new.
	check.Allowed[0].Number++
	if o := look(); !strings.Contains(strings.Join(o.Problems, "; "), "neither the old nor the new") {
		t.Errorf("another generation: %s", o)
	}
}

// place is where a file of the FAT volume at an offset begins in it.
func place(t *testing.T, f *os.File, volume int64, file FATFile) int64 {
	t.Helper()
	b := make([]byte, 512)
	if _, err := f.ReadAt(b, volume); err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	data := (int64(le.Uint16(b[14:])) + int64(b[16])*int64(le.Uint32(b[36:]))) * 512
	return data + int64(file.First-2)*int64(b[13])*512
}
