// SPDX-License-Identifier: Apache-2.0

//go:build engine

package gcetar

import (
	"bytes"
	"compress/gzip"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/extents"
	"github.com/holdfast/holdfast/images/internal/foreign"
)

// onDisk writes a sparse disk.raw with n runs of data, at places that no file
// system's granularity joins, and returns its folder.
func onDisk(t *testing.T, n int, size int64) (dir string, f *os.File) {
	t.Helper()
	dir = t.TempDir()
	f, err := os.OpenFile(filepath.Join(dir, Member), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	noise := rand.NewChaCha8([32]byte{3})
	for i := range n {
		b := make([]byte, (i%5+1)*64<<10)
		noise.Read(b[:len(b)/2])
		copy(b[len(b)/2:], bytes.Repeat([]byte("compressible "), len(b)/13))
		if _, err := f.WriteAt(b, int64(i)*size/int64(n)/(1<<20)*(1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return dir, f
}

func encode(t *testing.T, f *os.File, size, capacity int64) string {
	t.Helper()
	runs, err := extents.Runs(f)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "image.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := Write(t.Context(), out, f, runs, size, capacity, Options{}); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

// GNU tar lists one member and extracts the disk, gzip and pigz find nothing
// wrong.
func TestForeignReadersAgree(t *testing.T) {
	for _, c := range []struct {
		runs           int
		size, capacity int64
	}{
		{0, 1 << 20, Unit},
		{3, 1<<30 - 3<<20, Unit},
		{40, 9<<30 - 3<<20, 9 << 30},
		{30, 3 << 30, 20 << 30},
	} {
		_, f := onDisk(t, c.runs, c.size)
		name := encode(t, f, c.size, c.capacity)
		foreign.MustRun(t, "gzip", "-t", name)
		plain := gunzip(t, name)
		list := strings.Fields(foreign.MustRun(t, "tar", "--numeric-owner", "-tvf", plain))
		if len(list) != 6 || list[5] != Member || list[1] != "0/0" || list[0] != "-rw-r--r--" {
			t.Errorf("tar lists %v", list)
		}
		to := t.TempDir()
		foreign.MustRun(t, "tar", "-C", to, "-xf", plain)
		got, err := os.Open(filepath.Join(to, Member))
		if err != nil {
			t.Fatal(err)
		}
		defer got.Close()
		equal(t, got, f, c.capacity)
	}
}

// GNU tar, told to make the same thing of the same file, makes the same bytes.
func TestSameAsGNUTar(t *testing.T) {
	for _, n := range []int{0, 1, 3, 4, 25, 26} {
		dir, f := onDisk(t, n, 9<<30)
		plain := filepath.Join(t.TempDir(), "gnu.tar")
		foreign.MustRun(t, "tar", "--format=oldgnu", "-S", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-C", dir, "-cf", plain, Member)
		want, err := os.ReadFile(plain)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(gunzip(t, encode(t, f, 9<<30, 9<<30)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			for i := range min(len(got), len(want)) {
				if got[i] != want[i] {
					t.Errorf("%d runs: %d bytes, tar makes %d; first difference at %d: %q, tar has %q", n, len(got), len(want), i, got[i:i+24], want[i:i+24])
					break
				}
			}
		}
	}
}

// We read what GNU tar makes, with holes and without.
func TestReadForeign(t *testing.T) {
	for _, sparse := range []string{"-S", "--"} {
		dir, f := onDisk(t, 7, 1<<30)
		plain, packed := filepath.Join(t.TempDir(), "x.tar"), filepath.Join(t.TempDir(), "x.tar.gz")
		foreign.MustRun(t, "tar", "--format=oldgnu", "-C", dir, "-cf", plain, sparse, Member)
		gz(t, plain, packed)
		in, err := os.Open(packed)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		i, err := Open(in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.Create(filepath.Join(t.TempDir(), "got"))
		if err != nil {
			t.Fatal(err)
		}
		defer got.Close()
		if err := got.Truncate(i.Size); err != nil {
			t.Fatal(err)
		}
		if err := i.Each(func(off int64, b []byte) error {
			_, err := got.WriteAt(b, off)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		equal(t, got, f, 1<<30)
	}
}

// equal compares two sparse files by their data; zeros follow the shorter.
func equal(t *testing.T, got, want *os.File, size int64) {
	t.Helper()
	if st, err := got.Stat(); err != nil || st.Size() != size {
		t.Fatalf("%v, %v, want %d bytes", st, err, size)
	}
	if err := want.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{got, want} {
		runs, err := extents.Runs(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range runs {
			a, b := make([]byte, r.Length), make([]byte, r.Length)
			if _, err := got.ReadAt(a, r.Offset); err != nil {
				t.Fatal(err)
			}
			if _, err := want.ReadAt(b, r.Offset); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(a, b) {
				t.Errorf("%d bytes at %d differ", r.Length, r.Offset)
			}
		}
	}
}

func gunzip(t *testing.T, name string) string {
	t.Helper()
	in, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "plain.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, z); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

func gz(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(z, in); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
}
