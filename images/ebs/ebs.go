// SPDX-License-Identifier: Apache-2.0

// Package ebs cuts a disk into what the EBS direct APIs take: blocks of 512 KiB
// with their SHA-256, in the order of their index, without blocks of zeros, and
// the checksum over all of them
// (https://docs.aws.amazon.com/ebs/latest/userguide/ebs-accessing-snapshot.html).
// It touches only the data of a sparse disk, holds one block in memory, and
// sends nothing. It refuses disks longer than EBS has.
package ebs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/holdfast/holdfast/images/extents"
)

const (
	// BlockSize is the one length of a block in bytes.
	BlockSize = 512 << 10
	// GiB is the unit of a volume's size in bytes.
	GiB = int64(1) << 30
	// MaxGiB is the largest volume in GiB (StartSnapshot, VolumeSize).
	MaxGiB = int64(65536)

	blocksPerGiB = int64(1<<30) / BlockSize
)

// Sum is the SHA-256 of a block.
type Sum [sha256.Size]byte

// String is the form of a checksum in requests: base64.
func (s Sum) String() string { return base64.StdEncoding.EncodeToString(s[:]) }

var (
	zeros = make([]byte, BlockSize)
	// ZeroSum is the digest of a block of zeros.
	ZeroSum = Sum(sha256.Sum256(zeros))
)

// Block is one block of a volume.
type Block struct {
	// Index counts blocks of BlockSize from the start of the volume.
	Index int32
	// Data is BlockSize bytes; it is used again for the next block.
	Data []byte
	Sum  Sum
}

// Disk is a disk to cut into blocks.
type Disk struct {
	src  io.ReaderAt
	runs []extents.Run
	size int64
}

// NewDisk takes a disk of size bytes (a multiple of 512) whose data lies in
// runs, in order; nothing else of src is read.
func NewDisk(src io.ReaderAt, runs []extents.Run, size int64) (*Disk, error) {
	if size <= 0 || size%512 != 0 {
		return nil, fmt.Errorf("a disk of %d bytes is no whole number of sectors of 512 bytes", size)
	}
	if size > MaxGiB*GiB {
		return nil, fmt.Errorf("a disk of %d bytes is longer than the %d GiB a volume can have", size, MaxGiB)
	}
	at := int64(0)
	for _, r := range runs {
		if r.Offset < at || r.Length < 0 || r.Length > size-r.Offset {
			return nil, fmt.Errorf("run of %d bytes at %d: out of order or beyond the disk's %d bytes", r.Length, r.Offset, size)
		}
		at = r.Offset + r.Length
	}
	return &Disk{src: src, runs: runs, size: size}, nil
}

// GiB is the size of the smallest volume that holds the disk, in GiB.
func (d *Disk) GiB() int64 { return (d.size + GiB - 1) / GiB }

// Touched lists the blocks that may hold anything but zeros, in order.
func (d *Disk) Touched() []int32 {
	var list []int32
	next := int64(0)
	for _, r := range d.runs {
		if r.Length == 0 {
			continue
		}
		last := (r.Offset + r.Length - 1) / BlockSize
		for i := max(next, r.Offset/BlockSize); i <= last; i++ {
			list = append(list, int32(i))
		}
		next = max(next, last+1)
	}
	return list
}

// Read fills b, BlockSize bytes, with a block of the volume: zeros where the
// disk has a hole or has ended. Several may be read at once.
func (d *Disk) Read(index int32, b []byte) error {
	clear(b)
	from := int64(index) * BlockSize
	to := from + BlockSize
	i, _ := slices.BinarySearchFunc(d.runs, from, func(r extents.Run, at int64) int {
		if r.Offset+r.Length <= at {
			return -1
		}
		return 1
	})
	for ; i < len(d.runs) && d.runs[i].Offset < to; i++ {
		lo, hi := max(from, d.runs[i].Offset), min(to, d.runs[i].Offset+d.runs[i].Length)
		if _, err := io.ReadFull(io.NewSectionReader(d.src, lo, hi-lo), b[lo-from:hi-from]); err != nil {
			return fmt.Errorf("read the disk at %d: %w", lo, err)
		}
	}
	return nil
}

// Digest is the digest of a block; a block of zeros costs a comparison only.
func Digest(b []byte) Sum {
	if bytes.Equal(b, zeros) {
		return ZeroSum
	}
	return Sum(sha256.Sum256(b))
}

// Blocks yields the blocks to put, in order of their index: all that are not
// zero, or, with the list of a parent snapshot, all that differ from it, of
// which some may be zeros. It ends at the first error.
func (d *Disk) Blocks(ctx context.Context, parent *List) iter.Seq2[Block, error] {
	return func(yield func(Block, error) bool) {
		buf := make([]byte, BlockSize)
		for _, i := range d.Candidates(parent) {
			if ctx.Err() != nil {
				yield(Block{}, context.Cause(ctx))
				return
			}
			if err := d.Read(i, buf); err != nil {
				yield(Block{}, err)
				return
			}
			sum := Digest(buf)
			if sum != parent.Sum(i) && !yield(Block{i, buf, sum}, nil) {
				return
			}
		}
	}
}

// Candidates lists the blocks that may have to be put on top of a parent (nil:
// none): what the disk touches and what the parent holds, in order.
func (d *Disk) Candidates(parent *List) []int32 {
	mine := d.Touched()
	if parent == nil || len(parent.entries) == 0 {
		return mine
	}
	for _, e := range parent.entries {
		mine = append(mine, e.Index)
	}
	slices.Sort(mine)
	return slices.Compact(mine)
}
