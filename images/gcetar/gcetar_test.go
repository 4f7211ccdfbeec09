// SPDX-License-Identifier: Apache-2.0

package gcetar

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/extents"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sparse is a disk in memory, and fails where anything but data is read.
type sparse struct {
	t    testing.TB
	runs []extents.Run
	data [][]byte
}

func (s *sparse) add(off int64, b []byte) {
	s.runs = append(s.runs, extents.Run{Offset: off, Length: int64(len(b))})
	s.data = append(s.data, b)
}

func (s *sparse) ReadAt(b []byte, off int64) (int, error) {
	for i, r := range s.runs {
		if off >= r.Offset && off+int64(len(b)) <= end(r) {
			return copy(b, s.data[i][off-r.Offset:]), nil
		}
	}
	s.t.Errorf("%d bytes at %d are read: a hole, or beyond the end", len(b), off)
	return 0, io.ErrUnexpectedEOF
}

// sample is a disk of 7 MiB with text, noise and zeros.
func sample(t testing.TB) (*sparse, int64) {
	noise := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{7}).Read(noise)
	s := &sparse{t: t}
	s.add(0, bytes.Repeat([]byte("holdfast sector "), 4096/16))
	s.add(1<<20, noise[:1<<20+4096])
	s.add(3<<20, append(make([]byte, 300<<10), noise[1<<20:2<<20]...))
	s.add(5<<20, make([]byte, 256<<10)) // zeros that take room
	s.add(6<<20-512, noise[2<<20:2<<20+1024])
	s.add(7<<20-512, noise[:512])
	return s, 7 << 20
}

// scattered has n runs of one sector, so far apart that each is one of its own.
func scattered(t testing.TB, n int) (*sparse, int64) {
	s := &sparse{t: t}
	for i := range n {
		s.add(int64(i)*256<<10+512, bytes.Repeat([]byte{byte(i + 1)}, 512))
	}
	return s, int64(max(n, 1)) * 256 << 10
}

func write(t testing.TB, s *sparse, size, capacity int64, o Options) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(t.Context(), &out, s, s.runs, size, capacity, o); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestGolden(t *testing.T) {
	s, size := sample(t)
	s.data[1], s.data[2] = s.data[1][:8192], s.data[2][:310<<10] // a short file
	s.runs[1].Length, s.runs[2].Length = 8192, 310<<10
	got := write(t, s, size, Unit, Options{})
	const name = "testdata/sample.tar.gz.golden"
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes that differ from the golden file's %d: if that is meant, raise Version and run with -update", len(got), len(want))
	}
}

// The standard library reads one member, of the right format and size, with
// the disk's content and zeros after it.
func TestReadBack(t *testing.T) {
	disks := map[string]func(testing.TB) (*sparse, int64){"sample": sample}
	for _, n := range []int{0, 1, 3, 4, 5, 24, 25, 26, 47} {
		disks[string(rune('A'+n))] = func(t testing.TB) (*sparse, int64) { return scattered(t, n) }
	}
	for name, disk := range disks {
		s, size := disk(t)
		out := write(t, s, size, Unit, Options{})
		z, err := gzip.NewReader(bytes.NewReader(out))
		if err != nil {
			t.Fatal(err)
		}
		z.Multistream(false)
		r := tar.NewReader(z)
		h, err := r.Next()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if h.Name != Member || h.Format != tar.FormatGNU || h.Size != Unit || !h.ModTime.IsZero() && h.ModTime.Unix() != 0 || h.Mode != 0o644 {
			t.Errorf("%s: header %+v", name, h)
		}
		same(t, name, r, s, size)
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("%s: a second member, or %v", name, err)
		}
		if _, err := io.Copy(io.Discard, z); err != nil {
			t.Errorf("%s: gzip: %v", name, err)
		}
	}
}

// same compares r with the disk over its size; more than the first 64 MiB of
// the zeros after it need no look in each case.
func same(t *testing.T, name string, r io.Reader, s *sparse, size int64) {
	t.Helper()
	got := make([]byte, size+(64<<20))
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	want := make([]byte, len(got))
	for i, run := range s.runs {
		copy(want[run.Offset:], s.data[i])
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: the content differs", name)
	}
}

// The same content makes the same bytes, whatever the file system calls a hole
// and however many processors there are.
func TestSameBytes(t *testing.T) {
	s, size := sample(t)
	want := write(t, s, size, Unit, Options{})
	for _, workers := range []int{1, 2, 5, 100} {
		if !bytes.Equal(write(t, s, size, Unit, Options{Workers: workers}), want) {
			t.Errorf("%d workers make other bytes", workers)
		}
	}
	flat := &sparse{t: t}
	all := make([]byte, size)
	for i, r := range s.runs {
		copy(all[r.Offset:], s.data[i])
	}
	flat.add(0, all)
	if !bytes.Equal(write(t, flat, size, Unit, Options{}), want) {
		t.Error("a disk without holes makes other bytes")
	}
	split := &sparse{t: t}
	for i, r := range s.runs {
		for at := int64(0); at < r.Length; at += 512 {
			split.add(r.Offset+at, s.data[i][at:at+512])
		}
	}
	if !bytes.Equal(write(t, split, size, Unit, Options{}), want) {
		t.Error("data in runs of one sector makes other bytes")
	}
}

func TestOpen(t *testing.T) {
	s, size := sample(t)
	for _, capacity := range []int64{Unit, 8 * Unit, 100 * Unit, MaxSize} {
		i, err := Open(bytes.NewReader(write(t, s, size, capacity, Options{})))
		if err != nil {
			t.Fatal(err)
		}
		if i.Size != capacity {
			t.Errorf("size %d, want %d", i.Size, capacity)
		}
		got, want := make([]byte, size), make([]byte, size)
		for i, r := range s.runs {
			copy(want[r.Offset:], s.data[i])
		}
		if err := i.Each(func(off int64, b []byte) error { copy(got[off:], b); return nil }); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Error("the content differs")
		}
	}
}

// Very scattered disks get longer pieces of data, never a list without end.
func TestRunsAreBounded(t *testing.T) {
	m := marks{hole: 2 * extents.Block, most: 8}
	for i := range int64(1000) {
		m.add(extents.Run{Offset: i * 4 * extents.Block, Length: extents.Block})
	}
	if len(m.runs) > 8 || m.runs[0].Offset != 0 || end(m.runs[len(m.runs)-1]) != 999*4*extents.Block+extents.Block {
		t.Errorf("%d runs, from %v", len(m.runs), m.runs)
	}
	if !slices.IsSortedFunc(m.runs, func(a, b extents.Run) int { return int(a.Offset - b.Offset) }) {
		t.Errorf("out of order: %v", m.runs)
	}
}

func TestProgress(t *testing.T) {
	s, size := sample(t)
	last, total := int64(0), int64(0)
	write(t, s, size, Unit, Options{Progress: func(d, n int64) {
		if d < last || d > n {
			t.Errorf("%d of %d after %d", d, n, last)
		}
		last, total = d, n
	}})
	if last != total || total == 0 {
		t.Errorf("ends at %d of %d", last, total)
	}
}

func TestWriteRefuses(t *testing.T) {
	run := func(r ...extents.Run) []extents.Run { return r }
	for _, c := range []struct {
		name           string
		data           []extents.Run
		size, capacity int64
		want           string
	}{
		{"odd size", nil, 1000, Unit, "no whole number of sectors"},
		{"no size", nil, 0, Unit, "no whole number of sectors"},
		{"odd capacity", nil, 1 << 20, Unit + 512, "no whole number of GiB"},
		{"no capacity", nil, 1 << 20, 0, "no whole number of GiB"},
		{"too long", nil, 1 << 20, MaxSize + Unit, "no whole number of GiB"},
		{"does not fit", nil, Unit + 512, Unit, "more than the"},
		{"beyond", run(extents.Run{Offset: 512, Length: 1 << 20}), 1 << 20, Unit, "beyond"},
		{"order", run(extents.Run{Offset: 4096, Length: 4096}, extents.Run{Offset: 0, Length: 512}), 1 << 20, Unit, "out of order"},
	} {
		err := Write(t.Context(), io.Discard, &sparse{t: t}, c.data, c.size, c.capacity, Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

type failing struct{ after int }

var errFull = errors.New("full")

func (f *failing) Write(b []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, errFull
	}
	return len(b), nil
}

type broken struct{ from int64 }

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off >= b.from {
		return 0, errFull
	}
	for i := range p {
		p[i] = 1
	}
	return len(p), nil
}

func TestWriteStops(t *testing.T) {
	s, size := sample(t)
	for after := range 5 {
		if err := Write(t.Context(), &failing{after}, s, s.runs, size, Unit, Options{}); !errors.Is(err, errFull) {
			t.Errorf("a writer that fails after %d: %v", after, err)
		}
	}
	if err := Write(t.Context(), io.Discard, broken{}, s.runs, size, Unit, Options{}); !errors.Is(err, errFull) {
		t.Errorf("a disk that can't be read: %v", err)
	}
	// A file that is shorter than it was.
	if err := Write(t.Context(), io.Discard, strings.NewReader("short"), s.runs, size, Unit, Options{}); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a disk that shrank: %v", err)
	}
	why := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	err := Write(ctx, io.Discard, s, s.runs, size, Unit, Options{Progress: func(_, _ int64) { cancel(why) }})
	if !errors.Is(err, why) {
		t.Errorf("canceled: %v", err)
	}
	if err := Write(ctx, io.Discard, s, s.runs, size, Unit, Options{}); !errors.Is(err, why) {
		t.Errorf("canceled before: %v", err)
	}
}
