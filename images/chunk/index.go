// SPDX-License-Identifier: Apache-2.0

// Package chunk cuts a file into content-defined chunks, so that two versions
// of it share those that did not change wherever they lie, and describes the
// cut in an index: what a box compares to know which bytes it has to fetch.
package chunk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/restic/chunker"
)

// How files are cut. Both sides of an upgrade cut on their own, so these are
// part of the index's format: another value needs another magic.
const (
	// MinLen and MaxLen are the bounds of a chunk in bytes; only the last of
	// a file may be shorter.
	MinLen = 4 << 10
	MaxLen = 64 << 10
	// averageBits: a boundary follows every 16 KiB on average, after MinLen.
	averageBits = 14
	// polynomial of the rolling checksum: irreducible, of degree 53.
	polynomial = chunker.Pol(0x3DA3358B4DC173)
)

// Sum is the first half of a chunk's SHA-256. It finds chunks; that the whole
// is right is for the whole's own digest to say.
type Sum [16]byte

// SumOf is the sum of a chunk's bytes.
func SumOf(data []byte) Sum {
	h := sha256.Sum256(data)
	return Sum(h[:16])
}

// Chunk is one piece of a file.
type Chunk struct {
	Sum Sum
	// Len in bytes.
	Len int32
}

// Index is a file as its chunks, in order.
type Index struct {
	// Size of the file in bytes: the chunks' lengths together.
	Size   int64
	Chunks []Chunk
}

// Make cuts what r gives, up to its end. It holds one chunk and one buffer of
// 512 KiB in memory, whatever the file's size.
func Make(ctx context.Context, r io.Reader) (Index, error) {
	var x Index
	err := Cut(ctx, r, func(c Chunk, _ []byte) error {
		x.Size += int64(c.Len)
		x.Chunks = append(x.Chunks, c)
		return nil
	})
	if err != nil {
		return Index{}, err
	}
	return x, nil
}

// Cut hands each chunk of what r gives to take, in order. data is only valid
// until take returns; an error of take ends the cut.
func Cut(ctx context.Context, r io.Reader, take func(c Chunk, data []byte) error) error {
	cut := chunker.NewWithBoundaries(r, polynomial, MinLen, MaxLen)
	cut.SetAverageBits(averageBits)
	buf := make([]byte, 0, MaxLen)
	for total := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		piece, err := cut.Next(buf[:0])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cutting after byte %d: %w", total, err)
		}
		if total > math.MaxInt64-MaxLen {
			return errors.New("the file has no end")
		}
		total += int64(piece.Length)
		if err := take(Chunk{Sum: SumOf(piece.Data), Len: int32(piece.Length)}, piece.Data); err != nil {
			return err
		}
	}
}
