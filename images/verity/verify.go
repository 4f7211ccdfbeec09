// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Verify reads every block of dev, data from byte 0 and the superblock at
// hashOffset, and holds it against root. It goes on after a bad block; the
// error is then a *BadBlocksError, which is also the first *BadBlockError to
// errors.As. root does not cover the superblock: a changed salt or length
// shows as bad blocks, other damage to it as a *SuperblockError. progress (may
// be nil) hears data bytes done and in all.
func Verify(ctx context.Context, dev io.ReaderAt, hashOffset int64, root [32]byte, progress func(done, total int64)) error {
	super, err := ReadSuperblock(dev, hashOffset)
	if err != nil {
		return err
	}
	if super.DataBlocks*BlockSize > hashOffset {
		return badSuper("superblock says %d bytes of data, but they end at byte %d", super.DataBlocks*BlockSize, hashOffset)
	}
	plan, _ := levels(super.DataBlocks)
	v := &verification{ctx: ctx, salt: super.Salt}

	// From the top: each row is trusted once it matches the one above.
	want, distrusted := root[:], map[int64]bool{}
	for i := len(plan) - 1; i >= 0; i-- {
		l := plan[i]
		at := hashOffset + l.at*BlockSize
		// Read once: what was compared is what the next row is held against.
		row := make([]byte, l.blocks*BlockSize)
		unreadable, err := readBlocks(dev, row, at)
		if err != nil {
			return err
		}
		distrusted, err = v.compare(bytes.NewReader(row), area{at: at, level: i, blocks: l.blocks, unreadable: unreadable}, want, distrusted, nil)
		if err != nil {
			return err
		}
		// Zeros must follow the last hash, else the superblock hides data.
		if !distrusted[l.blocks-1] && len(bytes.Trim(row[l.hashes*sha256.Size:], "\x00")) != 0 {
			return badSuper("superblock says %d blocks of data, but more were sealed", super.DataBlocks)
		}
		want = row
	}
	if _, err := v.compare(dev, area{level: -1, blocks: super.DataBlocks}, want, distrusted, progress); err != nil {
		return err
	}
	return v.verdict()
}

// area is a run of blocks of one level on the device.
type area struct {
	at     int64 // bytes
	level  int
	blocks int64
	// unreadable are blocks that are known to be.
	unreadable map[int64]error
}

// verification collects what is bad.
type verification struct {
	ctx  context.Context
	salt []byte

	mu   sync.Mutex
	tree []BadBlockError // the first MaxBadBlocks, from the top row down
	data []BadBlockError // the first MaxBadBlocks by offset
	bad  int64
	// unjudged are the data blocks that hang from a bad hash block.
	unjudged int64
}

// compare hashes the blocks of an area against the hashes in want and gives
// the blocks of it that nothing may be held against. A block whose own hash
// lies in a distrusted block of the row above can't be judged: its hash may
// be what changed.
func (v *verification) compare(r io.ReaderAt, a area, want []byte, distrusted map[int64]bool, progress func(done, total int64)) (map[int64]bool, error) {
	out := map[int64]bool{}
	var done int64
	note := func(i int64, cause error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if a.level >= 0 { // nothing hangs from data, and there may be much of it
			out[i] = true
		}
		switch {
		case !distrusted[i/perBlock]:
			v.add(BadBlockError{Offset: a.at + i*BlockSize, Level: a.level, Err: cause})
		case a.level < 0:
			v.unjudged++
		}
	}
	err := hashBlocks(v.ctx, r, a.blocks, v.salt, hashing{
		each: func(i int64, sum [32]byte) {
			cause := a.unreadable[i]
			if cause == nil && !distrusted[i/perBlock] && bytes.Equal(sum[:], want[i*sha256.Size:(i+1)*sha256.Size]) {
				return
			}
			note(i, cause)
		},
		unreadable: note,
		progress: func(blocks int64) {
			if progress == nil {
				return
			}
			v.mu.Lock()
			defer v.mu.Unlock()
			done += blocks * BlockSize
			progress(done, a.blocks*BlockSize)
		},
	})
	return out, err
}

// add keeps a bad block, if it is among the first.
func (v *verification) add(b BadBlockError) {
	v.bad++
	list := &v.data
	if b.Level >= 0 {
		list = &v.tree
	}
	// Rows come one after the other, blocks of a row from several goroutines.
	i := len(*list)
	for i > 0 && (*list)[i-1].Level == b.Level && (*list)[i-1].Offset > b.Offset {
		i--
	}
	if i == MaxBadBlocks {
		return
	}
	*list = append(*list, BadBlockError{})
	copy((*list)[i+1:], (*list)[i:])
	(*list)[i] = b
	*list = (*list)[:min(len(*list), MaxBadBlocks)]
}

func (v *verification) verdict() error {
	if v.bad == 0 {
		return nil
	}
	all := append(v.tree, v.data...)
	return &BadBlocksError{Blocks: all[:min(len(all), MaxBadBlocks)], Total: v.bad, Unjudged: v.unjudged}
}

// readBlocks fills b from dev; where that fails it reads block by block and
// gives the blocks that can't be read. A device that ends too early is an
// error.
func readBlocks(dev io.ReaderAt, b []byte, at int64) (map[int64]error, error) {
	n, err := dev.ReadAt(b, at)
	if n == len(b) {
		return nil, nil
	}
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("dm-verity: read at byte %d: %w", at+int64(n), io.ErrUnexpectedEOF)
	}
	unreadable := map[int64]error{}
	for i := range int64(len(b) / BlockSize) {
		block := b[i*BlockSize : (i+1)*BlockSize]
		if n, err := dev.ReadAt(block, at+i*BlockSize); n < BlockSize {
			clear(block)
			unreadable[i] = err
		}
	}
	return unreadable, nil
}
