// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"
)

// Verify reads every block of dev, data from byte 0 and the superblock at
// hashOffset, and holds it against root. The error is *BadBlockError for the
// first bad block, rows of the tree before the data they vouch for. root does
// not cover the superblock, so a changed salt or length shows as a bad block.
// progress (may be nil) hears data bytes done and in all.
func Verify(ctx context.Context, dev io.ReaderAt, hashOffset int64, root [32]byte, progress func(done, total int64)) error {
	super, err := ReadSuperblock(dev, hashOffset)
	if err != nil {
		return err
	}
	if super.DataBlocks*BlockSize > hashOffset {
		return fmt.Errorf("dm-verity: superblock says %d bytes of data, but they end at byte %d", super.DataBlocks*BlockSize, hashOffset)
	}
	plan, _ := levels(super.DataBlocks)

	// From the top: each row is trusted once it matches the one above.
	want := root[:]
	for i := len(plan) - 1; i >= 0; i-- {
		l := plan[i]
		at := hashOffset + l.at*BlockSize
		// Read once: what was compared is what the next row is held against.
		row := make([]byte, l.blocks*BlockSize)
		if _, err := io.ReadFull(io.NewSectionReader(dev, at, int64(len(row))), row); err != nil {
			return fmt.Errorf("dm-verity: read at byte %d: %w", at, err)
		}
		bad, err := compare(ctx, bytes.NewReader(row), l.blocks, super.Salt, want, nil)
		if err != nil {
			return err
		}
		if bad >= 0 {
			return &BadBlockError{Offset: at + bad*BlockSize, Level: i}
		}
		// Zeros must follow the last hash, else the superblock hides data.
		if len(bytes.Trim(row[l.hashes*sha256.Size:], "\x00")) != 0 {
			return fmt.Errorf("dm-verity: superblock says %d blocks of data, but more were sealed", super.DataBlocks)
		}
		want = row
	}
	bad, err := compare(ctx, dev, super.DataBlocks, super.Salt, want, progress)
	if err != nil {
		return err
	}
	if bad >= 0 {
		return &BadBlockError{Offset: bad * BlockSize, Level: -1}
	}
	return nil
}

// compare hashes n blocks of r and returns the first that differs from the
// hashes in want, or -1.
func compare(ctx context.Context, r io.ReaderAt, n int64, salt, want []byte, progress func(done, total int64)) (int64, error) {
	var mu sync.Mutex
	bad, done := int64(-1), int64(0)
	err := hashBlocks(ctx, r, n, salt, func(i int64, sum [32]byte) {
		if bytes.Equal(sum[:], want[i*sha256.Size:(i+1)*sha256.Size]) {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if bad < 0 || i < bad {
			bad = i
		}
	}, func(blocks int64) {
		if progress == nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		done += blocks * BlockSize
		progress(done, n*BlockSize)
	})
	return bad, err
}
