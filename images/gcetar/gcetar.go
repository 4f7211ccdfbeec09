// SPDX-License-Identifier: Apache-2.0

// Package gcetar writes and reads the one form of disk that Google Compute
// Engine imports: a gzip-compressed tar in the old GNU format with one member,
// disk.raw, whose size is a whole number of GiB
// (https://cloud.google.com/compute/docs/images/import-existing-image, "Requirements
// for the image file"). It reads only the data of a sparse disk, and its bytes
// depend on the content of the disk alone: not on where a file system keeps
// holes, nor on how many processors there are. It refuses every other tar.
package gcetar

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/holdfast/holdfast/images/extents"
)

const (
	// Member is the name of the only member.
	Member = "disk.raw"
	// Unit is what the length of a disk must be a multiple of, in bytes.
	Unit = int64(1) << 30
	// MaxSize is the longest disk Compute Engine has, in bytes
	// (https://cloud.google.com/compute/docs/disks, 64 TiB).
	MaxSize = int64(64) << 40

	// Version rises whenever the encoder writes other bytes for the same disk.
	Version = 1

	// minHole is the shortest stretch of zeros that becomes a hole, in bytes.
	// Shorter ones cost less in the compressed data than in the list of holes.
	minHole = 64 << 10
	// maxRuns is the longest list of data that is written or read.
	maxRuns = 1 << 20
)

// Options of Write.
type Options struct {
	// Workers compress side by side; 0 means one for each processor, at most 16.
	Workers int
	// Progress, when not nil, hears data bytes of the disk written and in all.
	Progress func(done, total int64)
}

// Write writes a disk to w. The disk is src over its first size bytes and zeros
// up to capacity; data lists what of src may hold data, in order, and nothing
// else of src is read. size is a multiple of 512, capacity of Unit. It holds
// about 4 MiB for each worker in memory, and at most 64 MiB for the list of
// holes of a very scattered disk, whatever its size. An error of w or src is wrapped; what w got
// until then is worth nothing.
func Write(ctx context.Context, w io.Writer, src io.ReaderAt, data []extents.Run, size, capacity int64, o Options) error {
	if err := check(data, size, capacity); err != nil {
		return err
	}
	d := disk{src: src, data: data}
	runs, err := d.scan(ctx)
	if err != nil {
		return err
	}
	s := newStream(d, header(runs, capacity), runs)
	return compress(ctx, w, s, o)
}

func check(data []extents.Run, size, capacity int64) error {
	switch {
	case size <= 0 || size%block != 0:
		return fmt.Errorf("a disk of %d bytes is no whole number of sectors of %d bytes", size, block)
	case capacity <= 0 || capacity%Unit != 0 || capacity > MaxSize:
		return fmt.Errorf("a disk of %d bytes is no whole number of GiB up to %d", capacity, MaxSize/Unit)
	case size > capacity:
		return fmt.Errorf("the disk has %d bytes, more than the %d it shall get", size, capacity)
	}
	at := int64(0)
	for _, r := range data {
		if r.Offset < at || r.Length < 0 || r.Length > size-r.Offset {
			return fmt.Errorf("run of %d bytes at %d: out of order or beyond the disk's %d bytes", r.Length, r.Offset, size)
		}
		at = end(r)
	}
	return nil
}

// disk reads like the whole disk, zeros included, but touches only data.
type disk struct {
	src  io.ReaderAt
	data []extents.Run
}

// readAt fills b with what is at off.
func (d disk) readAt(b []byte, off int64) error {
	clear(b)
	last := off + int64(len(b))
	i, _ := slices.BinarySearchFunc(d.data, off, func(r extents.Run, at int64) int {
		if end(r) <= at {
			return -1
		}
		return 1
	})
	for ; i < len(d.data) && d.data[i].Offset < last; i++ {
		from, to := max(off, d.data[i].Offset), min(last, end(d.data[i]))
		if _, err := io.ReadFull(io.NewSectionReader(d.src, from, to-from), b[from-off:to-off]); err != nil {
			return fmt.Errorf("read the disk at %d: %w", from, err)
		}
	}
	return nil
}

// scan lists the runs that hold anything but zeros, by whole blocks of
// extents.Block, with holes of at least minHole between them.
func (d disk) scan(ctx context.Context) ([]extents.Run, error) {
	m := marks{hole: minHole, most: maxRuns}
	buf, zeros := make([]byte, 1<<20), make([]byte, extents.Block)
	at := int64(0) // nothing before it need be looked at any more
	for _, r := range d.data {
		for at = max(at, r.Offset-r.Offset%extents.Block); at < end(r); {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			b := buf[:min(int64(len(buf)), (end(r)-at+extents.Block-1)/extents.Block*extents.Block)]
			if err := d.readAt(b, at); err != nil {
				return nil, err
			}
			for i := 0; i < len(b); i += extents.Block {
				if !bytes.Equal(b[i:i+extents.Block], zeros) {
					m.add(extents.Run{Offset: at + int64(i), Length: extents.Block})
				}
			}
			at += int64(len(b))
		}
	}
	return m.runs, nil
}

// marks gathers runs in order, and joins those with less than hole between
// them. Too many runs make the shortest holes data again, so that the list is
// bounded and still follows from the content alone.
type marks struct {
	runs []extents.Run
	hole int64
	most int
}

func (m *marks) add(r extents.Run) {
	if n := len(m.runs); n > 0 && r.Offset-end(m.runs[n-1]) < m.hole {
		m.runs[n-1].Length = end(r) - m.runs[n-1].Offset
		return
	}
	m.runs = append(m.runs, r)
	for len(m.runs) > m.most {
		again := marks{runs: m.runs[:0], hole: 2 * m.hole, most: m.most}
		for _, r := range m.runs {
			again.add(r)
		}
		*m = again
	}
}

func end(r extents.Run) int64 { return r.Offset + r.Length }
