// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/builder"
)

// output makes an output folder whose disk is size bytes long with data in the
// middle.
func output(t *testing.T, size int64) string {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, DiskName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("data"), size/2/mib*mib); err != nil {
		t.Fatal(err)
	}
	writeManifest(t, dir, size)
	return dir
}

func writeManifest(t *testing.T, dir string, size int64) {
	t.Helper()
	m := builder.Manifest{Format: 1, Name: "demo", Version: "1.0.0", RootHash: strings.Repeat("ab", 32),
		Files: []builder.ManifestFile{{Name: DiskName, Bytes: size, SHA256: strings.Repeat("cd", 32)}}}
	b, err := json.Marshal(m)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, builder.ManifestName), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string) *Disk {
	t.Helper()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestOpen(t *testing.T) {
	d := open(t, output(t, 64*mib))
	if d.Size != 64*mib || d.Release() != "demo-1.0.0" || d.SHA256() != strings.Repeat("cd", 32) {
		t.Errorf("opened %d bytes of %s with hash %s", d.Size, d.Release(), d.SHA256())
	}
	if len(d.Runs) != 1 || d.Runs[0].Offset > 32*mib || d.Runs[0].Offset+d.Runs[0].Length <= 32*mib {
		t.Errorf("runs are %v, want one around the middle", d.Runs)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, dir string) error
		want  string
	}{
		{"no bake", func(_ *testing.T, dir string) error { return os.Remove(filepath.Join(dir, builder.ManifestName)) }, "no bake made it"},
		{"no disk", func(_ *testing.T, dir string) error { return os.Remove(filepath.Join(dir, DiskName)) }, "has no disk.raw any more"},
		{"cut off", func(_ *testing.T, dir string) error { return os.Truncate(filepath.Join(dir, DiskName), 5*mib) }, "its manifest says"},
		{"not aligned", func(t *testing.T, dir string) error {
			writeManifest(t, dir, 5*mib+512)
			return os.Truncate(filepath.Join(dir, DiskName), 5*mib+512)
		}, "whole number of MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := output(t, 8*mib)
			if err := c.spoil(t, dir); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestCapacity(t *testing.T) {
	d := &Disk{Size: 5*gib + mib}
	for _, c := range []struct{ wish, unit, want int64 }{
		{0, mib, 5*gib + mib}, {0, gib, 6 * gib}, {10 * gib, gib, 10 * gib}, {10*gib + 1, gib, 11 * gib}, {5*gib + 1, gib, 6 * gib},
	} {
		if got, err := d.Capacity("disk_size", c.wish, c.unit); err != nil || got != c.want {
			t.Errorf("Capacity(%d, %d) is %d, %v; want %d", c.wish, c.unit, got, err, c.want)
		}
	}
	for _, wish := range []int64{1, gib, -1, 65 << 40} {
		if got, err := d.Capacity("disk_size", wish, gib); err == nil || !strings.HasPrefix(err.Error(), "disk_size: ") {
			t.Errorf("Capacity(%d) is %d, %v; want an error that names the key", wish, got, err)
		}
	}
}

func TestMake(t *testing.T) {
	dir := output(t, 8*mib)
	d := open(t, dir)
	made := 0
	write := func(text string) func(context.Context, *os.File) error {
		return func(_ context.Context, f *os.File) error {
			made++
			_, err := f.WriteString(text)
			return err
		}
	}
	spec := Spec{Target: "ova", Name: "demo-1.0.0.ova", DiskBytes: 8 * mib, Options: map[string]int{"cpus": 2}}
	make := func(s Spec, text string) (Record, bool) {
		t.Helper()
		r, same, err := d.Make(t.Context(), s, write(text))
		if err != nil {
			t.Fatal(err)
		}
		return r, same
	}
	first, same := make(spec, "one")
	if same || first.Bytes != 3 || first.RootHash != d.Manifest.RootHash {
		t.Errorf("first is %+v, unchanged %v", first, same)
	}
	if again, same := make(spec, "two"); !same || again != first {
		t.Errorf("again is %+v, unchanged %v; want %+v", again, same, first)
	}
	if err := os.Chtimes(filepath.Join(dir, spec.Name), time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, same := make(spec, "two"); same {
		t.Error("a file that was touched was kept")
	}
	spec.Options = map[string]int{"cpus": 4}
	if _, same := make(spec, "three"); same || made != 3 {
		t.Errorf("with other options: unchanged %v after %d files, want 3", same, made)
	}
}

func TestMakeFails(t *testing.T) {
	dir := output(t, 8*mib)
	d := open(t, dir)
	spec := Spec{Target: "ova", Name: "demo-1.0.0.ova", DiskBytes: 8 * mib}
	if _, _, err := d.Make(t.Context(), spec, func(_ context.Context, f *os.File) error { _, err := f.WriteString("good"); return err }); err != nil {
		t.Fatal(err)
	}
	spec.DiskBytes = 9 * mib
	_, _, err := d.Make(t.Context(), spec, func(_ context.Context, f *os.File) error {
		return errors.Join(f.Truncate(7), fmt.Errorf("write: %w", unix.ENOSPC))
	})
	if err == nil || !strings.Contains(err.Error(), "the disk is full; free some room") {
		t.Errorf("error %v, want advice for a full disk", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, spec.Name)); err != nil || string(b) != "good" {
		t.Errorf("the old file is %q, %v", b, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	spec.Name = "../demo.ova"
	if _, _, err := d.Make(t.Context(), spec, nil); err == nil {
		t.Error("a name with a path was taken")
	}
}

func TestMeter(t *testing.T) {
	var lines []string
	m := NewMeter("ova", func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) })
	now := time.Unix(0, 0)
	m.now = func() time.Time { return now }
	for _, s := range []struct {
		at   int
		done int64
	}{{0, 100 * mib}, {1, 110 * mib}, {5, 150 * mib}, {6, 160 * mib}, {10, 200 * mib}} {
		now = time.Unix(int64(s.at), 0)
		m.Progress(s.done, 200*mib)
	}
	want := []string{"ova: 150.0 MiB of 200.0 MiB, 10.0 MiB/s, 5s left", "ova: 200.0 MiB of 200.0 MiB, 10.0 MiB/s"}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("lines are %q, want %q", lines, want)
	}
}
