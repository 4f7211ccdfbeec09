// SPDX-License-Identifier: Apache-2.0

package ebs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/extents"
)

var update = flag.Bool("update", false, "write the golden files anew")

// random is n bytes that are the same in every run.
func random(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// disk is a disk in memory whose data is all that is not zero, by 4 KiB.
func disk(t testing.TB, raw []byte) *Disk {
	t.Helper()
	var runs []extents.Run
	for at := 0; at < len(raw); at += 4096 {
		n := min(4096, len(raw)-at)
		if !bytes.Equal(raw[at:at+n], zeros[:n]) {
			runs = append(runs, extents.Run{Offset: int64(at), Length: int64(n)})
		}
	}
	d, err := NewDisk(bytes.NewReader(raw), runs, int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func listOf(t testing.TB, d *Disk, parent *List) (*List, []Entry) {
	t.Helper()
	var put []Entry
	for b, err := range d.Blocks(t.Context(), parent) {
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Data) != BlockSize || Sum(sha256.Sum256(b.Data)) != b.Sum {
			t.Errorf("block %d: %d bytes with another digest", b.Index, len(b.Data))
		}
		put = append(put, Entry{b.Index, b.Sum})
	}
	l, err := parent.Apply(d.GiB(), put)
	if err != nil {
		t.Fatal(err)
	}
	return l, put
}

// sample is 4.5 blocks: one of data, one of zeros, one with data at its end, one
// of data, and half a block of data.
func sample() []byte {
	raw := make([]byte, 4*BlockSize+BlockSize/2)
	copy(raw, random(1, BlockSize))
	copy(raw[3*BlockSize-512:], random(2, 512))
	copy(raw[3*BlockSize:], random(3, BlockSize))
	copy(raw[4*BlockSize:], random(4, BlockSize/2))
	return raw
}

// The golden lists index and digest of each block, as `sha256sum` has it, and
// the checksum over them.
func TestBlocksGolden(t *testing.T) {
	raw := sample()
	first, put := listOf(t, disk(t, raw), nil)
	text := report("full", put)
	next := bytes.Clone(raw)
	clear(next[:BlockSize])               // data becomes zeros
	copy(next[BlockSize+5:], "no longer") // zeros become data
	next[3*BlockSize]++                   // a changed byte
	_, put = listOf(t, disk(t, next), first)
	text += report("on top of it", put)
	const golden = "testdata/blocks.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || string(want) != text {
		t.Errorf("got\n%swant\n%s(%v)", text, want, err)
	}
}

func report(name string, put []Entry) string {
	n, sum := Checksum(put)
	text := fmt.Sprintf("%s: %d blocks, checksum %s\n", name, n, sum)
	for _, e := range put {
		text += fmt.Sprintf("%4d %x\n", e.Index, e.Sum[:])
	}
	return text
}

// Whatever the disk and whatever the parent, the parent with the blocks on top
// is the disk.
func TestBlocksMakeTheDisk(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const blocks = 12
	volume := make([]byte, blocks*BlockSize)
	var have *List
	for round := range 8 {
		raw := make([]byte, (1+r.IntN(blocks*1024-1))*512)
		for range r.IntN(5) {
			at := r.IntN(len(raw))
			copy(raw[at:], random(byte(round), r.IntN(3*BlockSize)))
		}
		d := disk(t, raw)
		for b, err := range d.Blocks(t.Context(), have) {
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(b.Data, volume[int(b.Index)*BlockSize:][:BlockSize]) {
				t.Errorf("round %d: block %d was there already", round, b.Index)
			}
			copy(volume[int(b.Index)*BlockSize:], b.Data)
		}
		have, _ = listOf(t, d, have)
		want := append(bytes.Clone(raw), make([]byte, len(volume)-len(raw))...)
		if !bytes.Equal(volume, want) {
			t.Fatalf("round %d: the volume is not the disk", round)
		}
		for _, e := range have.Entries() {
			if Digest(volume[int(e.Index)*BlockSize:][:BlockSize]) != e.Sum {
				t.Errorf("round %d: the list has another digest for block %d", round, e.Index)
			}
		}
	}
}

// Only data is read: a source that fails in holes never notices.
func TestBlocksReadDataOnly(t *testing.T) {
	src := onlyIn{extents.Run{Offset: 5 << 20, Length: 4096}}
	d, err := NewDisk(src, []extents.Run{src.Run}, 100<<30)
	if err != nil {
		t.Fatal(err)
	}
	if _, put := listOf(t, d, nil); len(put) != 1 || put[0].Index != 10 {
		t.Errorf("put %v, want block 10 alone", put)
	}
}

type onlyIn struct{ extents.Run }

func (o onlyIn) ReadAt(b []byte, off int64) (int, error) {
	if off < o.Offset || off+int64(len(b)) > o.Offset+o.Length {
		return 0, errors.New("read in a hole")
	}
	for i := range b {
		b[i] = 7
	}
	return len(b), nil
}

func TestBlocksEnd(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	gone := errors.New("gone")
	n := 0
	for _, err := range disk(t, sample()).Blocks(ctx, nil) {
		if n++; n == 2 {
			if !errors.Is(err, gone) {
				t.Errorf("error %v, want %v", err, gone)
			}
			continue
		}
		cancel(gone)
	}
	if n != 2 {
		t.Errorf("%d blocks after the end", n)
	}
	d, err := NewDisk(bytes.NewReader(nil), []extents.Run{{Offset: 0, Length: 512}}, 512)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range d.Blocks(t.Context(), nil) {
		if err == nil || !strings.Contains(err.Error(), "read the disk at 0") {
			t.Errorf("a disk that is too short: %v", err)
		}
	}
}

func TestNewDiskRefuses(t *testing.T) {
	for _, c := range []struct {
		runs []extents.Run
		size int64
	}{
		{nil, 0}, {nil, 511}, {nil, MaxGiB*GiB + 512}, {[]extents.Run{{Offset: 0, Length: 1024}}, 512},
		{[]extents.Run{{Offset: 512, Length: 512}, {Offset: 0, Length: 512}}, 1024}, {[]extents.Run{{Offset: -1, Length: 1}}, 512},
	} {
		if _, err := NewDisk(bytes.NewReader(nil), c.runs, c.size); err == nil {
			t.Errorf("a disk of %d bytes with %v was taken", c.size, c.runs)
		}
	}
}

func FuzzDisk(f *testing.F) {
	f.Add(int64(4<<20), int64(0), int64(512), int64(1<<20), int64(1<<20))
	f.Add(int64(1<<20), int64(0), int64(1<<20), int64(1<<20), int64(0))
	f.Add(int64(-512), int64(-1), int64(-5), int64(1)<<62, int64(1)<<62)
	f.Fuzz(func(t *testing.T, size, a, n, b, m int64) {
		if size > 16<<20 {
			size %= 16 << 20
		}
		d, err := NewDisk(bytes.NewReader(make([]byte, max(0, size))), []extents.Run{{Offset: a, Length: n}, {Offset: b, Length: m}}, size)
		if err != nil {
			return
		}
		buf := make([]byte, BlockSize)
		for _, i := range d.Touched() {
			if int64(i)*BlockSize >= size {
				t.Errorf("block %d of a disk of %d bytes", i, size)
			}
			if err := d.Read(i, buf); err != nil {
				t.Error(err)
			}
		}
	})
}
