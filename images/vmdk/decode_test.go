// SPDX-License-Identifier: Apache-2.0

package vmdk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/extents"
)

// Each fault is refused as one of the format, and at once or when its grain is
// read, never as other content.
func TestReaderRefuses(t *testing.T) {
	good, _ := encode(t, newDisk(t, 2*mib, extents.Run{Offset: 0, Length: mib}), Options{})
	le := binary.LittleEndian
	first := int(newLayout(2 * mib).grainsAt)
	for _, c := range []struct {
		name, want string
		change     func(b []byte) []byte
	}{
		{"empty", "0 bytes", func(b []byte) []byte { return nil }},
		{"another file", "no KDMV", func(b []byte) []byte { return make([]byte, 4096) }},
		{"header only", "descriptor lies outside", func(b []byte) []byte { return b[:512] }},
		{"version", "version 4", func(b []byte) []byte { b[4] = 4; return b }},
		{"text transfer", "fetch it again as binary", func(b []byte) []byte { b[75] = '\n'; return b }},
		{"not compressed", "flags 0x1", func(b []byte) []byte { le.PutUint32(b[8:], 1); return b }},
		{"compression", "compression 7", func(b []byte) []byte { b[77] = 7; return b }},
		{"grain size", "grains of 256", func(b []byte) []byte { le.PutUint64(b[20:], 256); return b }},
		{"no capacity", "capacity of 0", func(b []byte) []byte { le.PutUint64(b[12:], 0); return b }},
		{"too large", "a capacity of", func(b []byte) []byte { le.PutUint64(b[12:], 1<<60); return b }},
		{"larger than its directory", "directory lies outside", func(b []byte) []byte { le.PutUint64(b[12:], MaxCapacity/512); return b }},
		{"directory at the end", "qemu-img convert", func(b []byte) []byte { le.PutUint64(b[56:], atEnd); return b }},
		{"directory outside", "directory lies outside", func(b []byte) []byte { le.PutUint64(b[56:], 1<<54+1); return b }},
		{"descriptor", "descriptor of 9999", func(b []byte) []byte { le.PutUint64(b[36:], 9999); return b }},
		{"table outside", "grain table lies outside", func(b []byte) []byte { le.PutUint32(b[21*512:], 1<<31); return b }},
		{"grain outside", "marker lies outside", func(b []byte) []byte { le.PutUint32(b[22*512:], 1<<31); return b }},
		{"another grain's place", "marker says sector", func(b []byte) []byte { copy(b[22*512:], b[22*512+4:22*512+8]); return b }},
		{"grain size of zero", "0 compressed", func(b []byte) []byte { le.PutUint32(b[first+8:], 0); return b }},
		{"grain too long", "compressed bytes", func(b []byte) []byte { le.PutUint32(b[first+8:], 1<<20); return b }},
		{"a flipped bit", "", func(b []byte) []byte { b[first+20000] ^= 4; return b }},
		{"cut off", "outside the file", func(b []byte) []byte { return b[:first+20000] }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.change(bytes.Clone(good))
			r, err := Open(bytes.NewReader(b), int64(len(b)))
			if err == nil {
				_, err = io.Copy(io.Discard, io.NewSectionReader(r, 0, r.Capacity()))
			}
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzOpen(f *testing.F) {
	for _, c := range []int{0, 1, 4, 7} {
		c := disks[c]
		b, _ := encode(f, newDisk(f, c.size, c.runs...), Options{})
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("%v is not ErrFormat", err)
			}
			return
		}
		r.CID()
		if _, err := io.Copy(io.Discard, io.NewSectionReader(r, 0, min(r.Capacity(), mib))); err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("%v is not ErrFormat", err)
		}
	})
}

// What goes in comes out, wherever the runs lie.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("some bytes of a disk"), uint32(77), uint32(70000), uint32(9))
	f.Add(bytes.Repeat([]byte{0}, 200000), uint32(0), uint32(0), uint32(0))
	f.Fuzz(func(t *testing.T, content []byte, gap1, gap2, tail uint32) {
		if len(content) > mib {
			return
		}
		half := len(content) / 2
		at := int64(gap1 % mib)
		d := &disk{t: t, data: map[int64][]byte{}}
		for _, part := range [][]byte{content[:half], content[half:]} {
			if len(part) > 0 {
				d.runs = append(d.runs, extents.Run{Offset: at, Length: int64(len(part))})
				d.data[at] = part
				at += int64(len(part))
			}
			at += int64(gap2%mib) + 1
		}
		d.size = ceil(at+int64(tail%mib), SectorSize) * SectorSize
		b, _ := encode(t, d, Options{Workers: 2})
		got := make([]byte, d.size)
		if _, err := open(t, b).ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, d.whole(d.size)) {
			t.Error("content differs")
		}
	})
}

// BenchmarkEncode is over the disk that HOLDFAST_DISK names, else over one that
// is half random and half text.
func BenchmarkEncode(b *testing.B) {
	f, err := os.Open(os.Getenv("HOLDFAST_DISK"))
	if errors.Is(err, os.ErrNotExist) {
		if f, err = os.CreateTemp(b.TempDir(), "raw"); err == nil {
			for at, data := range newDisk(b, 64*mib, extents.Run{Offset: 0, Length: 32 * mib}, extents.Run{Offset: 32 * mib, Length: 32 * mib}).data {
				if _, err := f.WriteAt(data, at); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		b.Fatal(err)
	}
	runs, err := extents.Runs(f)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(extents.Total(runs))
	for b.Loop() {
		out, err := os.CreateTemp(b.TempDir(), "vmdk")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Encode(b.Context(), out, f, st.Size(), runs, Options{Capacity: st.Size(), Name: "x.vmdk"}); err != nil {
			b.Fatal(err)
		}
		out.Close()
		os.Remove(out.Name())
	}
}
