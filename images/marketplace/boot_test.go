// SPDX-License-Identifier: Apache-2.0

package marketplace

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/esp"
	"github.com/holdfast/holdfast/images/gpt"
	"github.com/holdfast/holdfast/images/internal/efitest"
)

const mib = 1 << 20

// diskOf makes a sparse disk with an ESP and what begins root-a.
func diskOf(t testing.TB, files []esp.File, root []byte) (*os.File, int64) {
	t.Helper()
	const size = 80 * mib
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	id := func(b byte) gpt.GUID { return gpt.GUID{b, 1, 2, 3, 4, 5, 0x86, 7, 0x88, 9} }
	parts := []gpt.Part{{Label: "root-a", Type: gpt.TypeRootX8664, UUID: id(1), Offset: 1 * mib, Size: 2 * mib}}
	if files != nil {
		parts = append(parts, gpt.Part{Label: "esp", Type: gpt.TypeESP, UUID: id(2), Offset: 4 * mib, Size: 72 * mib})
	}
	head, tail, err := gpt.Encode(gpt.Table{DiskGUID: id(9), Parts: parts}, size)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for at, b := range map[int64][]byte{0: head, size - int64(len(tail)): tail, 1 * mib: root} {
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	if files != nil {
		w := &offset{f, 4 * mib}
		if err := esp.Write(w, 72*mib, files, 7, day); err != nil {
			t.Fatal(err)
		}
	}
	return f, size
}

type offset struct {
	f  *os.File
	at int64
}

func (o *offset) WriteAt(b []byte, at int64) (int, error) { return o.f.WriteAt(b, o.at+at) }

// superblock is the part of a squashfs that is read.
func superblock(used uint64) []byte {
	b := make([]byte, 96)
	copy(b, "hsqs")
	binary.LittleEndian.PutUint64(b[40:], used)
	return b
}

func TestReadBoot(t *testing.T) {
	addon := efitest.Program(efitest.Section{Name: ".cmdline", Data: []byte("single\x00")})
	disk, size := diskOf(t, []esp.File{
		{Path: "EFI/BOOT/BOOTX64.EFI", Data: efitest.Program(efitest.Section{Name: ".text", Data: []byte("x")})},
		{Path: "EFI/Linux/holdfast-0000000001.efi", Data: efitest.UKI("linux", "initrd", "ro quiet\n")},
		{Path: "EFI/Linux/holdfast-0000000001.efi.extra.d/x.addon.efi", Data: addon},
		{Path: "loader/loader.conf", Data: []byte("editor no\n")},
	}, superblock(96))
	b, err := ReadBoot(disk, size)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Files) != 4 || len(b.Programs) != 3 || string(b.Small["loader/loader.conf"]) != "editor no\n" {
		t.Fatalf("%q, %d programs", b.Files, len(b.Programs))
	}
	var words []string
	kernels := 0
	for _, p := range b.Programs {
		words = append(words, p.Cmdlines...)
		if p.Kernel {
			kernels++
		}
	}
	slices.Sort(words)
	if kernels != 1 || !slices.Equal(words, []string{"ro quiet", "single"}) {
		t.Errorf("%d kernels, %q", kernels, words)
	}
	at, n, err := Squashfs(disk, size, "root-a")
	if err != nil || at != mib || n != 96 {
		t.Errorf("%d, %d, %v", at, n, err)
	}
}

func TestBootRefuses(t *testing.T) {
	if _, err := ReadBoot(bytes.NewReader(make([]byte, mib)), mib); err == nil {
		t.Error("a disk without a table passes")
	}
	disk, size := diskOf(t, nil, superblock(3*mib))
	if _, err := ReadBoot(disk, size); err == nil || !strings.Contains(err.Error(), "no EFI system partition") {
		t.Errorf("without an ESP: %v", err)
	}
	for label, want := range map[string]string{"root-a": "holds no squashfs", "factory": "no partition"} {
		if _, _, err := Squashfs(disk, size, label); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", label, err, want)
		}
	}
	bad, size := diskOf(t, []esp.File{{Path: "EFI/BOOT/BOOTX64.EFI", Data: []byte("no program")}}, superblock(96))
	if _, err := ReadBoot(bad, size); err == nil || !strings.Contains(err.Error(), "BOOTX64.EFI") {
		t.Errorf("a program that is none: %v", err)
	}
}
