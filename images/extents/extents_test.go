// SPDX-License-Identifier: Apache-2.0

package extents

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// sparse makes a file of size bytes with random data at runs.
func sparse(t testing.TB, size int64, runs ...Run) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "sparse")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	src := rand.NewChaCha8([32]byte{1})
	for _, r := range runs {
		b := make([]byte, r.Length)
		src.Read(b)
		if _, err := f.WriteAt(b, r.Offset); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func whole(t testing.TB, f *os.File) []byte {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func total(t testing.TB, f *os.File) int64 {
	t.Helper()
	runs, err := Runs(f)
	if err != nil {
		t.Fatal(err)
	}
	return Total(runs)
}

func TestRuns(t *testing.T) {
	f := sparse(t, 10<<20, Run{1 << 20, 8192}, Run{9 << 20, 1 << 20})
	runs, err := Runs(f)
	if err != nil {
		t.Fatal(err)
	}
	if len(runs) != 2 || runs[0] != (Run{1 << 20, 8192}) || runs[1] != (Run{9 << 20, 1 << 20}) {
		t.Errorf("runs %v", runs)
	}
	for _, size := range []int64{0, 1 << 30} {
		if runs, err := Runs(sparse(t, size)); err != nil || len(runs) != 0 {
			t.Errorf("an empty file of %d bytes: %v, %v", size, runs, err)
		}
	}
	// A last block that is not whole ends with the file.
	f = sparse(t, 0, Run{0, 5000})
	if n := total(t, f); n != 5000 {
		t.Errorf("%d bytes of data, want 5000", n)
	}
}

func TestCopy(t *testing.T) {
	for _, c := range []struct {
		name   string
		size   int64
		runs   []Run
		dstOff int64
		old    int64 // bytes of other content in dst
	}{
		{"into nothing", 8 << 20, []Run{{4096, 4096}, {5 << 20, 3 << 20}}, 0, 0},
		{"at an offset", 8 << 20, []Run{{0, 10}, {5 << 20, 2 << 20}}, 1 << 20, 0},
		{"over old content", 4 << 20, []Run{{1 << 20, 1 << 20}}, 1 << 20, 9 << 20},
		{"over the end of old content", 4 << 20, []Run{{1 << 20, 1 << 20}}, 1 << 20, 2<<20 + 77},
		{"odd size and offset", 3<<20 + 12345, []Run{{100, 5000}, {3 << 20, 12345}}, 777, 1 << 20},
		{"only a hole", 4 << 20, nil, 4096, 6 << 20},
		{"nothing", 0, nil, 0, 100},
	} {
		src, dst := sparse(t, c.size, c.runs...), sparse(t, 0, Run{0, c.old})
		want := whole(t, dst)
		if need := c.dstOff + c.size; int64(len(want)) < need {
			want = append(want, make([]byte, need-int64(len(want)))...)
		}
		copy(want[c.dstOff:], whole(t, src))
		var last, all int64
		n, err := Copy(t.Context(), dst, src, c.dstOff, func(d, a int64) { last, all = d, a })
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if !bytes.Equal(whole(t, dst), want) {
			t.Errorf("%s: content differs", c.name)
		}
		if data := total(t, src); last != data || all != data || n > data {
			t.Errorf("%s: wrote %d, progress %d of %d, data %d", c.name, n, last, all, data)
		}
	}
}

// Blocks of zeros that src has storage for become holes.
func TestCopyPunchesZeros(t *testing.T) {
	src := sparse(t, 0, Run{0, 8 << 20})
	if _, err := src.WriteAt(make([]byte, 4<<20), 2<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := src.WriteAt(make([]byte, Block), 7<<20); err != nil {
		t.Fatal(err)
	}
	dst := sparse(t, 0)
	n, err := Copy(t.Context(), dst, src, 1<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(4<<20 - Block); n != want || total(t, dst) != want {
		t.Errorf("wrote %d, dst holds %d, want %d", n, total(t, dst), want)
	}
	if !bytes.Equal(whole(t, dst)[1<<20:], whole(t, src)) {
		t.Error("content differs")
	}
}

// Between files that the kernel cannot copy between, bytes go through memory.
func TestCopyWithoutKernelHelp(t *testing.T) {
	src, dst := sparse(t, 1<<20, Run{4096, 300_000}), sparse(t, 1<<20)
	c := copier{dst: dst, src: src}
	if err := c.put(whole(t, src), 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(whole(t, dst), whole(t, src)) {
		t.Error("content differs")
	}
}

func TestCopyStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	src, dst := sparse(t, 0, Run{0, 8 << 20}), sparse(t, 0)
	_, err := Copy(ctx, dst, src, 0, func(done, _ int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("canceled copy: %v", err)
	}
	readOnly, err := os.Open(dst.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	if _, err := Copy(t.Context(), readOnly, src, 0, nil); err == nil {
		t.Error("copy into a file opened for reading succeeds")
	}
}

func TestHashSparse(t *testing.T) {
	for _, f := range []*os.File{
		sparse(t, 0), sparse(t, 1), sparse(t, 5<<20+1, Run{1 << 20, 5}, Run{3 << 20, 2<<20 + 1}), sparse(t, 9<<20, Run{0, 4096}),
	} {
		var last int64
		got, err := HashSparse(t.Context(), f, func(d, _ int64) { last = d })
		b := whole(t, f)
		if err != nil || got != sha256.Sum256(b) || last != int64(len(b)) {
			t.Errorf("hash of %d bytes: %x, %v, progress %d", len(b), got, err, last)
		}
	}
}

func BenchmarkCopy(b *testing.B) {
	const size = 300 << 20
	for _, c := range []struct {
		name string
		run  func(dst, src *os.File) error
	}{
		{"copy_file_range", func(dst, src *os.File) error {
			_, err := Copy(b.Context(), dst, src, 0, nil)
			return err
		}},
		{"through memory", func(dst, src *os.File) error {
			c, buf := copier{dst: dst, src: src}, make([]byte, chunk)
			for at := int64(0); at < size; at += chunk {
				if _, err := src.ReadAt(buf, at); err != nil && err != io.EOF {
					return err
				}
				if err := c.put(buf, at); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			src := sparse(b, 0, Run{0, size})
			b.SetBytes(size)
			for b.Loop() {
				dst, err := os.Create(filepath.Join(b.TempDir(), "dst"))
				if err != nil {
					b.Fatal(err)
				}
				if err := c.run(dst, src); err != nil {
					b.Fatal(err)
				}
				dst.Close()
				os.Remove(dst.Name())
			}
		})
	}
}

// BenchmarkHash is over a disk that is mostly hole and over one that is all data.
func BenchmarkHash(b *testing.B) {
	for name, f := range map[string]*os.File{"hole": sparse(b, 1<<30), "data": sparse(b, 0, Run{0, 256 << 20})} {
		b.Run(name, func(b *testing.B) {
			st, err := f.Stat()
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(st.Size())
			for b.Loop() {
				if _, err := HashSparse(b.Context(), f, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
