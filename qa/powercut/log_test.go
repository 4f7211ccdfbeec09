// SPDX-License-Identifier: Apache-2.0

package powercut

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const unit = 512

// event is a request of a synthetic log.
type event struct {
	sector, sectors uint64
	flags           uint64
	fill            byte
	text            string
}

// encode writes a log as QEMU does.
func encode(events []event) []byte {
	le := binary.LittleEndian
	b := make([]byte, unit)
	le.PutUint64(b, logMagic)
	le.PutUint64(b[8:], logVersion)
	le.PutUint64(b[16:], uint64(len(events)))
	le.PutUint32(b[24:], unit)
	for _, e := range events {
		h := make([]byte, unit)
		le.PutUint64(h, e.sector)
		le.PutUint64(h[8:], e.sectors)
		le.PutUint64(h[16:], e.flags)
		le.PutUint64(h[24:], uint64(len(e.text)))
		copy(h[entryHead:], e.text)
		b = append(b, h...)
		if e.flags&(Discard|Mark) == 0 {
			b = append(b, bytes.Repeat([]byte{e.fill}, int(e.sectors)*unit)...)
		}
	}
	return b
}

const diskSize = 4 << 20

func newReplay(t testing.TB, events []event) (*Replay, *os.File) {
	t.Helper()
	raw := encode(events)
	l, err := ReadLog(bytes.NewReader(raw), int64(len(raw)), diskSize)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(diskSize); err != nil {
		t.Fatal(err)
	}
	r, err := NewReplay(l, f)
	if err != nil {
		t.Fatal(err)
	}
	return r, f
}

func sector(t testing.TB, r io.ReaderAt, n int64) byte {
	t.Helper()
	b := make([]byte, unit)
	if _, err := r.ReadAt(b, n*unit); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, bytes.Repeat(b[:1], unit)) {
		t.Fatalf("sector %d is torn inside", n)
	}
	return b[0]
}

// Before a flush all is certain, after it nothing is, but for FUA.
func TestCut(t *testing.T) {
	r, disk := newReplay(t, []event{
		{sector: 0, sectors: 2, fill: 1},
		{flags: Flush},
		{sector: 0, sectors: 2, fill: 2},
		{sector: 8, sectors: 1, fill: 3, flags: FUA},
		{flags: Mark, text: "here"},
		{flags: Flush},
		{sector: 0, sectors: 2, fill: 4},
	})
	if got := r.log.Entries[4].Text; got != "here" {
		t.Errorf("mark reads %q", got)
	}
	seen := map[[2]byte]bool{}
	for seed := range uint64(200) {
		c, err := r.Cut(5, seed)
		if err != nil {
			t.Fatal(err)
		}
		a, b := sector(t, disk, 0), sector(t, disk, 1)
		seen[[2]byte{a, b}] = true
		if sector(t, disk, 8) != 3 || c.Durable != 1 {
			t.Fatalf("a FUA write is not on the disk at %s", c)
		}
	}
	for _, want := range [][2]byte{{1, 1}, {1, 2}, {2, 1}, {2, 2}} {
		if !seen[want] {
			t.Errorf("no cut leaves the two sectors as %v", want)
		}
	}
	if len(seen) != 4 {
		t.Errorf("%d states of two sectors with two values each", len(seen))
	}
	for seed := range uint64(20) {
		if _, err := r.Cut(6, seed); err != nil {
			t.Fatal(err)
		}
		if sector(t, disk, 0) != 2 || sector(t, disk, 1) != 2 {
			t.Fatal("a flushed write is not on the disk")
		}
	}
	if _, err := r.Cut(3, 0); err == nil {
		t.Error("a cut before an earlier one was given")
	}
}

// A flush that carries data covers what came before it, not its own bytes.
func TestFlushWithData(t *testing.T) {
	r, disk := newReplay(t, []event{
		{sector: 0, sectors: 1, fill: 1},
		{sector: 1, sectors: 1, fill: 2, flags: Flush},
	})
	lost := false
	for seed := range uint64(50) {
		if _, err := r.Cut(2, seed); err != nil {
			t.Fatal(err)
		}
		if sector(t, disk, 0) != 1 {
			t.Fatal("the flush did not cover the write before it")
		}
		lost = lost || sector(t, disk, 1) == 0
	}
	if !lost {
		t.Error("the flush's own data was never lost")
	}
}

// The incremental replay gives, for each seed, the disk that a replay from the
// start gives, and a reset leaves what is certain.
func TestIncremental(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var events []event
	for range 300 {
		e := event{sector: rnd.Uint64N(200), sectors: 1 + rnd.Uint64N(20), fill: byte(1 + rnd.IntN(255))}
		switch rnd.IntN(8) {
		case 0:
			e = event{flags: Flush}
		case 1:
			e.flags = FUA
		case 2:
			e.flags = Discard
		}
		events = append(events, e)
	}
	r, disk := newReplay(t, events)
	read := func(f *os.File) []byte {
		b := make([]byte, diskSize)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		return b
	}
	for at := 0; at <= len(events); at += 7 {
		if _, err := r.Cut(at, 9); err != nil {
			t.Fatal(err)
		}
		fresh, other := newReplay(t, events)
		if _, err := fresh.Cut(at, 9); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read(disk), read(other)) {
			t.Fatalf("at %d the disk depends on the cuts before", at)
		}
	}
	before := r.Changes(0, diskSize)
	if err := r.Reset(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Cut(len(events), 10); err != nil {
		t.Fatal(err)
	}
	if r.Changes(0, diskSize) == before || r.Changes(2<<20, 1<<20) != 0 {
		t.Error("changes are not counted where they are")
	}
}

func TestReadLogRefuses(t *testing.T) {
	good := encode([]event{{sector: 1, sectors: 2, fill: 7}, {flags: Flush}})
	change := func(at int, v uint64) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint64(b[at:], v)
		return b
	}
	for _, c := range []struct {
		name, want string
		raw        []byte
	}{
		{"nothing", "superblock", nil},
		{"magic", "not a log", change(0, 1)},
		{"version", "not a log", change(8, 2)},
		{"too many entries", "do not fit", change(16, 1<<40)},
		{"an entry too many", "ends before entry 2", change(16, 3)},
		{"sector size", "sectors of", change(24, 3)},
		{"beyond the disk", "beyond the disk", change(unit, 1<<50)},
		{"overflow", "beyond the disk", change(unit+8, 1<<63)},
		{"flags", "not known", change(unit+16, 1<<9)},
		{"text", "do not fit its sector", change(unit+24, 4096)},
		{"an empty entry", "says nothing", change(unit+8, 0)},
		{"cut short", "within the data", good[:3*unit]},
	} {
		_, err := ReadLog(bytes.NewReader(c.raw), int64(len(c.raw)), diskSize)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func FuzzReadLog(f *testing.F) {
	f.Add(encode([]event{{sector: 1, sectors: 2, fill: 7}, {flags: Flush}, {flags: Mark, text: "x"}, {sector: 3, sectors: 1, flags: Discard}}))
	f.Add(encode(nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := ReadLog(bytes.NewReader(raw), int64(len(raw)), diskSize)
		if err != nil {
			return
		}
		for i, e := range l.Entries {
			if e.Offset < 0 || e.Len < 0 || e.Offset > diskSize-e.Len {
				t.Fatalf("entry %d lies beyond the disk", i)
			}
			if n, err := io.Copy(io.Discard, l.Data(e)); e.Writes() && (n != e.Len || err != nil) {
				t.Fatalf("entry %d has %d of %d bytes: %v", i, n, e.Len, err)
			}
		}
	})
}

// Where a disk writes 4 KiB whole, no cut tears within them.
func TestUnit(t *testing.T) {
	r, disk := newReplay(t, []event{{sector: 4, sectors: 20, fill: 1}})
	r.Whole = []Range{{Offset: 0, Len: diskSize, Unit: 4096}}
	torn := false
	for seed := range uint64(200) {
		if _, err := r.Cut(1, seed); err != nil {
			t.Fatal(err)
		}
		for block := int64(1); block < 3; block++ {
			first := sector(t, disk, block*8)
			for i := range int64(8) {
				if sector(t, disk, block*8+i) != first {
					t.Fatalf("seed %d tears block %d", seed, block)
				}
			}
		}
		torn = torn || sector(t, disk, 8) != sector(t, disk, 16)
	}
	if !torn {
		t.Error("no cut tears between the blocks")
	}
}
