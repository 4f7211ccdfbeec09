// SPDX-License-Identifier: Apache-2.0

//go:build engine

package esp

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/images/internal/foreign"
)

// fsck.fat finds nothing to say about our volume and mtools lists and copies
// what is in it.
func TestForeignReadersAgree(t *testing.T) {
	for _, mib := range []int64{34, 64, 256, 257, 512, 1024} {
		img := filepath.Join(t.TempDir(), "esp.img")
		f, err := os.Create(img)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(mib << 20); err != nil {
			t.Fatal(err)
		}
		if err := Write(f, mib<<20, sample(), 0x1234abcd, time.Date(2025, 6, 7, 8, 9, 10, 0, time.UTC)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		out := foreign.MustRun(t, "fsck.fat", "-n", "-v", img)
		for _, bad := range []string{"differ", "Dirty", "wrong", "Wrong", "correct", "invalid", "Orphan"} {
			if strings.Contains(out, bad) {
				t.Errorf("%d MiB: fsck.fat: %s", mib, out)
			}
		}
		list := foreign.MustRun(t, "mdir", "-/", "-b", "-a", "-i", img, "::")
		for _, want := range sample() {
			if !strings.Contains(list, "::/"+want.Path+"\n") {
				t.Errorf("%d MiB: mdir does not list %s:\n%s", mib, want.Path, list)
			}
			got := foreign.MustRun(t, "mtype", "-i", img, "::/"+want.Path)
			if got != string(want.Data) {
				t.Errorf("%d MiB: mtype of %s: %d bytes, want %d", mib, want.Path, len(got), len(want.Data))
			}
		}
	}
}

// We read what mkfs.fat and mtools write.
func TestReadForeign(t *testing.T) {
	dir := t.TempDir()
	img := filepath.Join(dir, "esp.img")
	foreign.MustRun(t, "mkfs.fat", "-F32", "-C", img, "65536")
	foreign.MustRun(t, "mmd", "-i", img, "::/EFI")
	foreign.MustRun(t, "mmd", "-i", img, "::/EFI/Linux")
	for _, f := range sample() {
		if !strings.HasPrefix(f.Path, "EFI/Linux/") {
			continue
		}
		host := filepath.Join(dir, "content")
		if err := os.WriteFile(host, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
		foreign.MustRun(t, "mcopy", "-i", img, host, "::/"+f.Path)
	}
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files, err := Read(f, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	var want []File
	for _, s := range sample() {
		if strings.HasPrefix(s.Path, "EFI/Linux/") {
			want = append(want, s)
		}
	}
	same(t, files, want)
}
