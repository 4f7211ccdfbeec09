// SPDX-License-Identifier: Apache-2.0

package vmdk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/images/extents"
)

var update = flag.Bool("update", false, "write the golden files anew")

const mib = 1 << 20

// disk is a raw disk in memory with its data runs; reading outside them fails
// the test.
type disk struct {
	t    testing.TB
	size int64
	runs []extents.Run
	data map[int64][]byte
}

// newDisk has data at runs: random bytes, or text where the run's index is odd.
func newDisk(t testing.TB, size int64, runs ...extents.Run) *disk {
	d := &disk{t: t, size: size, runs: runs, data: map[int64][]byte{}}
	random := rand.NewChaCha8([32]byte{7})
	for i, r := range runs {
		b := make([]byte, r.Length)
		if i%2 == 0 {
			random.Read(b)
		} else {
			copy(b, bytes.Repeat([]byte("holdfast keeps a small machine healthy. "), int(r.Length)/40+1))
		}
		d.data[r.Offset] = b
	}
	return d
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	for _, r := range d.runs {
		if off >= r.Offset && off+int64(len(p)) <= r.Offset+r.Length {
			return copy(p, d.data[r.Offset][off-r.Offset:]), nil
		}
	}
	d.t.Errorf("a hole was read: %d+%d", off, len(p))
	return 0, io.EOF
}

func (d *disk) whole(capacity int64) []byte {
	b := make([]byte, capacity)
	for at, data := range d.data {
		copy(b[at:], data)
	}
	return b
}

// encode writes d to a file and returns its bytes.
func encode(t testing.TB, d *disk, o Options) ([]byte, Result) {
	t.Helper()
	if o.Name == "" {
		o.Name = "disk.vmdk"
	}
	if o.Capacity == 0 {
		o.Capacity = d.size
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.vmdk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	res, err := Encode(t.Context(), f, d, d.size, d.runs, o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != res.Size {
		t.Errorf("the file has %d bytes, Encode says %d", len(b), res.Size)
	}
	return b, res
}

func open(t testing.TB, b []byte) *Reader {
	t.Helper()
	r, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var disks = []struct {
	name     string
	size     int64
	capacity int64
	runs     []extents.Run
	// grains that hold data
	grains int
}{
	{"only a hole", mib, 0, nil, 0},
	{"one sector", 512, 0, []extents.Run{{Offset: 0, Length: 512}}, 1},
	{"whole grains", mib, 0, []extents.Run{{Offset: 0, Length: mib}}, 16},
	{"runs inside grains", 4 * mib, 0, []extents.Run{{Offset: 4096, Length: 4096}, {Offset: 70000, Length: 10}, {Offset: mib + 100, Length: 3*GrainSize + 5}}, 6},
	{"two runs in one grain", mib, 0, []extents.Run{{Offset: 0, Length: 10}, {Offset: 30000, Length: 10}, {Offset: 60000, Length: 10}}, 1},
	{"a run over several batches", 8 * mib, 0, []extents.Run{{Offset: 12345, Length: 5 * mib}, {Offset: 5*mib + 12345, Length: mib}}, 97},
	{"the last grain is short", 3*mib + 1536, 0, []extents.Run{{Offset: 3 * mib, Length: 1536}}, 1},
	{"a longer disk", mib, 3 * mib, []extents.Run{{Offset: mib - 512, Length: 512}}, 1},
	{"a longer disk, short source in a grain", mib + 512, 65 * mib, []extents.Run{{Offset: mib, Length: 512}}, 1},
	{"more than one grain table", 100 * mib, 0, []extents.Run{{Offset: 0, Length: 1}, {Offset: 31 * mib, Length: 2 * mib}, {Offset: 99 * mib, Length: mib}}, 49},
}

func TestRoundTrip(t *testing.T) {
	for _, c := range disks {
		t.Run(c.name, func(t *testing.T) {
			capacity := max(c.capacity, c.size)
			d := newDisk(t, c.size, c.runs...)
			var done, total int64
			b, res := encode(t, d, Options{Capacity: capacity, Progress: func(d, a int64) { done, total = d, a }})
			if want := extents.Total(c.runs); done != want || (total != want && want > 0) {
				t.Errorf("progress %d of %d, data %d", done, total, want)
			}
			checkLayout(t, b, capacity, c.grains)
			r := open(t, b)
			if r.Capacity() != capacity || r.CID() != res.CID {
				t.Errorf("capacity %d, CID %08x, want %d, %08x", r.Capacity(), r.CID(), capacity, res.CID)
			}
			want := d.whole(capacity)
			got := make([]byte, capacity)
			if _, err := r.ReadAt(got, 0); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Error("content differs")
			}
			if n, err := r.ReadAt(make([]byte, 10), capacity-3); n != 3 || !errors.Is(err, io.EOF) {
				t.Errorf("over the end: %d, %v", n, err)
			}
			raw, err := os.Create(filepath.Join(t.TempDir(), "raw"))
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			if err := r.WriteRaw(t.Context(), raw); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(raw.Name()); err != nil || !bytes.Equal(got, want) {
				t.Errorf("WriteRaw: content differs, %v", err)
			}
		})
	}
}

// checkLayout holds a file against the rules of the format, without Reader.
func checkLayout(t *testing.T, b []byte, capacity int64, grains int) {
	t.Helper()
	le := binary.LittleEndian
	if string(b[:4]) != "KDMV" || le.Uint32(b[4:]) != 3 || le.Uint32(b[8:]) != 0x30001 || le.Uint64(b[12:]) != uint64(capacity/512) {
		t.Errorf("header starts %x", b[:20])
	}
	n := ceil(capacity, GrainSize)
	tables := ceil(n, 512)
	tablesAt := 21 + ceil(tables*4, 512)
	overhead := tablesAt + tables*4
	if le.Uint64(b[48:]) != 0 || le.Uint64(b[56:]) != 21 || le.Uint64(b[64:]) != uint64(overhead) {
		t.Errorf("addresses %x, want overhead %d", b[48:72], overhead)
	}
	at, found := overhead, 0
	for i := range n {
		if i%512 == 0 && le.Uint32(b[21*512+i/512*4:]) != uint32(tablesAt+i/512*4) {
			t.Fatalf("table %d is not where it belongs", i/512)
		}
		e := int64(le.Uint32(b[tablesAt*512+i*4:]))
		if e == 0 {
			continue
		}
		found++
		if e != at || le.Uint64(b[e*512:]) != uint64(i*128) {
			t.Fatalf("grain %d is at %d, want %d, with LBA %d", i, e, at, le.Uint64(b[e*512:]))
		}
		size := 12 + int64(le.Uint32(b[e*512+8:]))
		at += ceil(size, 512)
		for _, v := range b[e*512+size : at*512] {
			if v != 0 {
				t.Fatalf("grain %d is not padded with zeros", i)
			}
		}
	}
	if found != grains {
		t.Errorf("%d grains, want %d", found, grains)
	}
	if int64(len(b)) != at*512+512 || !bytes.Equal(b[at*512:], make([]byte, 512)) {
		t.Errorf("after the last grain come %d bytes, want one sector of zeros", int64(len(b))-at*512)
	}
}

// Neither the number of workers nor the way a file system cuts data into runs
// changes the bytes; content and capacity do.
func TestSameBytes(t *testing.T) {
	runs := []extents.Run{{Offset: 0, Length: 3*mib + 77}, {Offset: 20 * mib, Length: mib}}
	d := newDisk(t, 40*mib, runs...)
	want, res := encode(t, d, Options{Workers: 1})
	for _, workers := range []int{2, 7, 100} {
		if got, _ := encode(t, d, Options{Workers: workers}); !bytes.Equal(got, want) {
			t.Errorf("%d workers make other bytes", workers)
		}
	}
	whole := &disk{t: t, size: d.size, runs: []extents.Run{{Offset: 0, Length: d.size}}, data: map[int64][]byte{0: d.whole(d.size)}}
	if got, _ := encode(t, whole, Options{}); !bytes.Equal(got, want) {
		t.Error("one run over the whole disk makes other bytes")
	}
	if _, longer := encode(t, d, Options{Capacity: 41 * mib}); longer.CID == res.CID {
		t.Error("another capacity has the same CID")
	}
	d.data[0][5] ^= 1
	if _, other := encode(t, d, Options{}); other.CID == res.CID {
		t.Error("other content has the same CID")
	}
}

// TestGolden pins every byte; -update writes the file anew, which is right only
// when the encoder or its deflate library was changed on purpose.
func TestGolden(t *testing.T) {
	b, _ := encode(t, newDisk(t, mib, extents.Run{Offset: 4096, Length: 1000}, extents.Run{Offset: 300000, Length: 150000}), Options{Capacity: 2 * mib, Name: "golden.vmdk"})
	file := "testdata/small.vmdk.golden"
	if *update {
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, want) {
		t.Errorf("the bytes changed (%d, were %d); descriptor:\n%s", len(b), len(want), open(t, b).Descriptor())
	}
}

func TestBadInput(t *testing.T) {
	run := []extents.Run{{Offset: 0, Length: 512}}
	for _, c := range []struct {
		want string
		size int64
		runs []extents.Run
		o    Options
	}{
		{"not a whole number of sectors", 1000, nil, Options{Capacity: 1024}},
		{"not a whole number of sectors", 0, nil, Options{Capacity: 1024}},
		{"must be whole sectors and no less", 1024, nil, Options{Capacity: 512}},
		{"must be whole sectors and no less", 1024, nil, Options{Capacity: 1025}},
		{"62 TiB", 1024, nil, Options{Capacity: 62<<40 + 512}},
		{"out of order", 1024, []extents.Run{{Offset: 512, Length: 512}, {Offset: 0, Length: 512}}, Options{Capacity: 1024}},
		{"outside the disk", 1024, []extents.Run{{Offset: 512, Length: 513}}, Options{Capacity: 1024}},
		{"outside the disk", 1024, []extents.Run{{Offset: 512, Length: 1<<63 - 1}}, Options{Capacity: 1024}},
		{"plain file name", 512, run, Options{Capacity: 512, Name: "a/b.vmdk"}},
		{"plain file name", 512, run, Options{Capacity: 512, Name: "a\"b"}},
	} {
		if c.o.Name == "" {
			c.o.Name = "x.vmdk"
		}
		_, err := Encode(t.Context(), failing{}, bytes.NewReader(make([]byte, 1024)), c.size, c.runs, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

// failing is a full disk, after left bytes.
type failing struct{ left int }

func (f failing) WriteAt(b []byte, at int64) (int, error) {
	if int(at)+len(b) > f.left {
		return 0, unix.ENOSPC
	}
	return len(b), nil
}

// A disk that is full, a source that fails and a cancelled context each end it
// with that error.
func TestEncodeStops(t *testing.T) {
	d := newDisk(t, 64*mib, extents.Run{Offset: 0, Length: 8 * mib})
	o := Options{Capacity: d.size, Name: "x.vmdk"}
	for _, left := range []int{0, mib, 9 * mib} {
		o := o
		if _, err := Encode(t.Context(), failing{left}, d, d.size, d.runs, o); (left < 9*mib) != errors.Is(err, unix.ENOSPC) {
			t.Errorf("full after %d bytes: %v", left, err)
		}
	}
	short := bytes.NewReader(make([]byte, mib))
	if _, err := Encode(t.Context(), failing{1 << 30}, short, d.size, d.runs, o); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source that ends early: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(int64, int64) { cancel() }
	if _, err := Encode(ctx, failing{1 << 30}, d, d.size, d.runs, o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A disk of 100 GiB costs no more memory than a small one.
func TestMemoryIsBounded(t *testing.T) {
	const size = 100 << 30
	var runs []extents.Run
	for at := int64(0); at < size; at += 4 << 30 {
		runs = append(runs, extents.Run{Offset: at, Length: 2 * mib})
	}
	same := bytes.Repeat([]byte("0123456789abcdef"), mib/16)
	src := readerAt(func(p []byte, off int64) (int, error) { return copy(p, same), nil })
	f, err := os.Create(filepath.Join(t.TempDir(), "x.vmdk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Encode(t.Context(), f, src, size, runs, Options{Capacity: size, Name: "x.vmdk"}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 128*mib {
		t.Errorf("the heap grew by %d MiB", grown/mib)
	}
}

type readerAt func(p []byte, off int64) (int, error)

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r(p, off) }
