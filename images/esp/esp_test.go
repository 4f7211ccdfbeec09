// SPDX-License-Identifier: Apache-2.0

package esp

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/images/extents"
)

var day = time.Date(2025, 6, 7, 8, 9, 10, 0, time.UTC)

func sample() []File {
	big := make([]byte, 3<<20+17)
	for i := range big {
		big[i] = byte(i*7 + i>>9)
	}
	return []File{
		{Path: "EFI/BOOT/BOOTX64.EFI", Data: big[:100_000]},
		{Path: "EFI/Linux/holdfast-0000000001.efi", Data: big},
		{Path: "EFI/Linux/holdfast-0000000002+1.efi", Data: big[:4096]},
		{Path: "EFI/Linux/thirteenchars", Data: []byte("x")},
		{Path: "EFI/systemd/systemd-bootx64.efi", Data: big[:100_000]},
		{Path: "loader/loader.conf", Data: []byte("timeout 0\neditor no\n")},
		{Path: "loader/empty", Data: nil},
		{Path: "UPPER.TXT", Data: big[:512]},
	}
}

// image writes files into a sparse file of mib MiB.
func image(t testing.TB, mib int64, files []File) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "esp.img"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(mib << 20); err != nil {
		t.Fatal(err)
	}
	if err := Write(f, mib<<20, files, 0x1234abcd, day); err != nil {
		t.Fatal(err)
	}
	return f
}

func content(t testing.TB, f File) []byte {
	t.Helper()
	if f.Open == nil {
		return f.Data
	}
	r, err := f.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func same(t testing.TB, got, want []File) {
	t.Helper()
	order := func(files []File) {
		sort.Slice(files, func(i, j int) bool { return files[i].Path < files[j].Path })
	}
	order(got)
	order(want)
	if len(got) != len(want) {
		t.Fatalf("%d files, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].Path != want[i].Path || !bytes.Equal(content(t, got[i]), content(t, want[i])) {
			t.Errorf("file %d is %s, want %s, or its content differs", i, got[i].Path, want[i].Path)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for _, mib := range []int64{34, 64, 256, 1024} {
		f := image(t, mib, sample())
		got, err := Read(f, mib<<20)
		if err != nil {
			t.Fatalf("%d MiB: %v", mib, err)
		}
		same(t, got, sample())
	}
}

// The order in which files are given does not matter, nor whether content
// comes as bytes or as a stream.
func TestSameBytes(t *testing.T) {
	files := sample()
	var turned []File
	for i := len(files) - 1; i >= 0; i-- {
		data := files[i].Data
		turned = append(turned, File{Path: files[i].Path, Size: int64(len(data)),
			Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }})
	}
	a, b := image(t, 64, files), image(t, 64, turned)
	if x, y := sum(t, a), sum(t, b); x != y {
		t.Errorf("two images of the same files differ: %x %x", x, y)
	}
}

func sum(t *testing.T, f *os.File) [32]byte {
	t.Helper()
	s, err := extents.HashSparse(t.Context(), f, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStaysSparse(t *testing.T) {
	f := image(t, 512, sample()[:1])
	runs, err := extents.Runs(f)
	if err != nil {
		t.Fatal(err)
	}
	if n := extents.Total(runs); n > 1<<20 {
		t.Errorf("an image with 100 kB of files takes %d bytes", n)
	}
}

func TestRefuses(t *testing.T) {
	big := make([]byte, 40<<20)
	for _, c := range []struct {
		name  string
		size  int64
		files []File
		want  string
	}{
		{"too small", 32 << 20, nil, "at least 34 MiB"},
		{"odd size", 64<<20 + 1, nil, "whole sectors"},
		{"full", 36 << 20, []File{{Path: "a", Data: big}}, "make it larger"},
		{"far too full", 36 << 20, []File{{Path: "a", Size: 3 << 30, Open: func() (io.ReadCloser, error) { return nil, errors.New("unused") }}}, "need 3073 MiB"},
		{"case", 64 << 20, []File{{Path: "EFI/a"}, {Path: "efi/A"}}, "same name"},
		{"twice", 64 << 20, []File{{Path: "a"}, {Path: "a"}}, "same name"},
		{"file as folder", 64 << 20, []File{{Path: "a"}, {Path: "a/b"}}, "same name"},
		{"absolute", 64 << 20, []File{{Path: "/a"}}, "begins with a slash"},
		{"up", 64 << 20, []File{{Path: "a/../b"}}, "empty or dots"},
		{"colon", 64 << 20, []File{{Path: "a:b"}}, "cannot be in a FAT name"},
		{"not ASCII", 64 << 20, []File{{Path: "ä"}}, "cannot be in a FAT name"},
		{"trailing dot", 64 << 20, []File{{Path: "a."}}, "cannot end in a dot"},
		{"long", 64 << 20, []File{{Path: strings.Repeat("x", 256)}}, "longer than 255"},
		{"short stream", 64 << 20, []File{{Path: "a", Size: 3, Open: open("ab")}}, "does not have the 3 bytes"},
		{"long stream", 64 << 20, []File{{Path: "a", Size: 1, Open: open("ab")}}, "does not have the 1 bytes"},
	} {
		err := Write(discard{}, c.size, c.files, 1, day)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func open(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

type discard struct{}

func (discard) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

// Many names that fold to the same short one stay apart, over several clusters.
func TestManyNames(t *testing.T) {
	var files []File
	for i := range 300 {
		files = append(files, File{Path: "loader/a long name that folds alike " + strings.Repeat("z", i%7) + string(rune('a'+i%26)) + string(rune('a'+i/26)) + ".conf", Data: []byte{byte(i)}})
	}
	f := image(t, 40, files)
	got, err := Read(f, 40<<20)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, files)
}

func TestReadRefusesDamage(t *testing.T) {
	whole, err := os.ReadFile(image(t, 34, sample()).Name())
	if err != nil {
		t.Fatal(err)
	}
	const fat = 32 * sector
	for _, c := range []struct {
		name  string
		at    int64
		patch []byte
		want  string
	}{
		{"not FAT", 510, []byte{0}, "not FAT32"},
		{"cluster of 3", 13, []byte{3}, "does not fit"},
		{"loop", fat + 4*2, []byte{2, 0, 0, 0}, "used twice"},
		{"outside", fat + 4*2, []byte{0, 0, 0, 0x0f}, "leaves the volume"},
		{"longer volume", 35, []byte{1}, "does not fit"},
		{"short FAT", 36, []byte{1, 0, 0, 0}, "too short"},
	} {
		_, err := Read(&patched{whole, c.patch, c.at}, int64(len(whole)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestStampIsBounded(t *testing.T) {
	for _, c := range []struct {
		at          time.Time
		date, clock uint16
	}{
		{time.Unix(0, 0), 1<<5 | 1, 0},
		{time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC), 127<<9 | 12<<5 | 31, 23<<11 | 59<<5 | 29},
		{time.Date(2025, 6, 7, 10, 9, 10, 0, time.FixedZone("", 7200)), 45<<9 | 6<<5 | 7, 8<<11 | 9<<5 | 5},
	} {
		if d, k := stamp(c.at); d != c.date || k != c.clock {
			t.Errorf("%v: %#x %#x, want %#x %#x", c.at, d, k, c.date, c.clock)
		}
	}
}

func FuzzRead(f *testing.F) {
	whole, err := os.ReadFile(image(f, 34, sample()[2:4]).Name())
	if err != nil {
		f.Fatal(err)
	}
	// A seed is the boot sector and a patch somewhere in a good volume: random
	// bytes alone never get past the first check.
	f.Add(uint32(0), whole[:96])
	f.Add(uint32(32*sector), whole[32*sector:32*sector+64])
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		if len(patch) > 4096 {
			return
		}
		r := &patched{whole, patch, int64(at) % int64(len(whole))}
		files, err := Read(r, int64(len(whole)))
		if err != nil {
			return
		}
		for _, file := range files {
			rc, err := file.Open()
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, rc); n != file.Size || err != nil {
				t.Fatalf("%s: %d bytes of %d, %v", file.Path, n, file.Size, err)
			}
		}
	})
}

// patched is base with patch laid over it at at.
type patched struct {
	base, patch []byte
	at          int64
}

func (p *patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := bytes.NewReader(p.base).ReadAt(b, off)
	if from, to := max(off, p.at), min(off+int64(n), p.at+int64(len(p.patch))); from < to {
		copy(b[from-off:], p.patch[from-p.at:to-p.at])
	}
	return n, err
}
