// SPDX-License-Identifier: Apache-2.0

//go:build engine

package vmdk

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/internal/foreign"
)

// qemu-img finds no fault with our files, sees the disk we put in, and gives
// its bytes back; we read the file that it writes.
func TestForeignQemuAgrees(t *testing.T) {
	for _, c := range disks {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			capacity := max(c.capacity, c.size)
			d := newDisk(t, c.size, c.runs...)
			want := d.whole(capacity)
			raw, file, back := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.vmdk"), filepath.Join(dir, "back.raw")
			b, _ := encode(t, d, Options{Capacity: capacity})
			for path, content := range map[string][]byte{raw: want, file: b} {
				if err := os.WriteFile(path, content, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if out := foreign.MustRun(t, "qemu-img", "compare", "-f", "raw", "-F", "vmdk", raw, file); !strings.Contains(out, "identical") {
				t.Errorf("qemu-img compare: %s", out)
			}
			if out := foreign.MustRun(t, "qemu-img", "check", "-f", "vmdk", file); !strings.Contains(out, "No errors were found") {
				t.Errorf("qemu-img check: %s", out)
			}
			if out := foreign.MustRun(t, "qemu-img", "info", "-f", "vmdk", file); !strings.Contains(out, "create type: streamOptimized") {
				t.Errorf("qemu-img info: %s", out)
			}
			foreign.MustRun(t, "qemu-img", "convert", "-f", "vmdk", "-O", "raw", file, back)
			if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, want) {
				t.Errorf("qemu-img convert gives other bytes: %d, want %d, %v", len(got), len(want), err)
			}

			foreign.MustRun(t, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, file)
			theirs, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, capacity)
			if _, err := open(t, theirs).ReadAt(got, 0); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Error("we read other content from qemu-img's file")
			}
		})
	}
}
