// SPDX-License-Identifier: Apache-2.0

// Package verity makes and checks dm-verity hash trees: sha256 over blocks of
// 4096 bytes, hash type 1 (salt first), superblock version 1. It needs the data
// and a place for the tree; it refuses data that is not whole blocks.
//
// Format: cryptsetup's DMVerity on-disk format and the kernel's
// Documentation/admin-guide/device-mapper/verity.rst. The output equals that
// of `veritysetup format`.
package verity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// BlockSize of data and of hashes in bytes.
	BlockSize = 4096
	perBlock  = BlockSize / sha256.Size
	maxSalt   = 256
	// maxData bounds what is accepted: 16 TiB keeps all sums far from overflow.
	maxData = 16 << 40
	// batch is the number of blocks one worker reads at a time (1 MiB).
	batch = 256
)

var magic = [8]byte{'v', 'e', 'r', 'i', 't', 'y'}

// level is one row of the tree; row 0 holds the hashes of data blocks.
type level struct {
	hashes int64 // how many
	blocks int64 // what they fill
	at     int64 // first block, counted from the superblock's block
}

// levels gives the rows from 0 up, laid out as dm-verity wants them: the top row
// comes first on disk. Data of one block has no rows: its own hash is the root.
func levels(dataBlocks int64) (rows []level, blocks int64) {
	for n := dataBlocks; n > 1; {
		b := (n + perBlock - 1) / perBlock
		rows = append(rows, level{hashes: n, blocks: b})
		n = b
	}
	at := int64(1)
	for i := len(rows) - 1; i >= 0; i-- {
		rows[i].at = at
		at += rows[i].blocks
	}
	return rows, at
}

// HashSize is the bytes that superblock and tree take for dataSize bytes of
// data, a multiple of BlockSize.
func HashSize(dataSize int64) int64 {
	_, blocks := levels((dataSize + BlockSize - 1) / BlockSize)
	return blocks * BlockSize
}

// Superblock is the head of the hash area.
type Superblock struct {
	UUID       [16]byte
	DataBlocks int64
	Salt       []byte
}

func (s Superblock) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, BlockSize)
	copy(b, magic[:])
	le.PutUint32(b[8:], 1)  // superblock version
	le.PutUint32(b[12:], 1) // hash type: salt first
	copy(b[16:], s.UUID[:])
	copy(b[32:64], "sha256")
	le.PutUint32(b[64:], BlockSize)
	le.PutUint32(b[68:], BlockSize)
	le.PutUint64(b[72:], uint64(s.DataBlocks))
	le.PutUint16(b[80:], uint16(len(s.Salt)))
	copy(b[88:], s.Salt)
	return b
}

// ReadSuperblock reads the one at hashOffset; it takes only what Format writes,
// anything else is a *SuperblockError.
func ReadSuperblock(r io.ReaderAt, hashOffset int64) (Superblock, error) {
	le := binary.LittleEndian
	b := make([]byte, BlockSize)
	if n, err := r.ReadAt(b, hashOffset); n < len(b) {
		return Superblock{}, fmt.Errorf("dm-verity: read superblock at byte %d: %w", hashOffset, err)
	}
	if [8]byte(b[:8]) != magic {
		return Superblock{}, badSuper("no superblock at byte %d", hashOffset)
	}
	algorithm, _, _ := bytes.Cut(b[32:64], []byte{0})
	if v, t := le.Uint32(b[8:]), le.Uint32(b[12:]); v != 1 || t != 1 || string(algorithm) != "sha256" ||
		le.Uint32(b[64:]) != BlockSize || le.Uint32(b[68:]) != BlockSize {
		return Superblock{}, badSuper("superblock at byte %d is not version 1, type 1, sha256 with blocks of %d", hashOffset, BlockSize)
	}
	blocks, salt := le.Uint64(b[72:]), int(le.Uint16(b[80:]))
	if blocks == 0 || blocks > maxData/BlockSize || salt > maxSalt {
		return Superblock{}, badSuper("superblock at byte %d has %d data blocks and a salt of %d bytes, which is out of range", hashOffset, blocks, salt)
	}
	s := Superblock{UUID: [16]byte(b[16:32]), DataBlocks: int64(blocks), Salt: bytes.Clone(b[88 : 88+salt])}
	// No root hash covers this block, so nothing in it may go unread.
	if !bytes.Equal(b, s.encode()) {
		return Superblock{}, badSuper("superblock at byte %d is damaged: bytes that must be zero are not", hashOffset)
	}
	return s, nil
}

// Format writes superblock and tree for dataSize bytes of data at hashOffset of
// w and returns the root hash. dataSize and hashOffset are multiples of
// BlockSize; data and w may be the same file. Salt is at most 256 bytes and may
// be empty. It hashes on all processors.
func Format(ctx context.Context, data io.ReaderAt, dataSize int64, w io.WriterAt, hashOffset int64, salt []byte, uuid [16]byte) (root [32]byte, err error) {
	switch {
	case dataSize <= 0 || dataSize%BlockSize != 0 || dataSize > maxData:
		return root, fmt.Errorf("dm-verity: data of %d bytes is not whole blocks of %d, at least 1", dataSize, BlockSize)
	case hashOffset < 0 || hashOffset%BlockSize != 0 || hashOffset > maxData:
		return root, fmt.Errorf("dm-verity: hash offset %d is not a multiple of %d", hashOffset, BlockSize)
	case len(salt) > maxSalt:
		return root, fmt.Errorf("dm-verity: salt of %d bytes, at most %d", len(salt), maxSalt)
	}
	rows, root, err := tree(ctx, data, dataSize/BlockSize, salt)
	if err != nil {
		return root, err
	}
	super := Superblock{UUID: uuid, DataBlocks: dataSize / BlockSize, Salt: salt}
	if _, err := w.WriteAt(super.encode(), hashOffset); err != nil {
		return root, err
	}
	plan, _ := levels(dataSize / BlockSize)
	for i, row := range rows {
		if _, err := w.WriteAt(row, hashOffset+plan[i].at*BlockSize); err != nil {
			return root, err
		}
	}
	return root, nil
}

// tree computes all rows, each padded to whole blocks, and the root hash.
func tree(ctx context.Context, data io.ReaderAt, blocks int64, salt []byte) (rows [][]byte, root [32]byte, err error) {
	plan, _ := levels(blocks)
	var from io.ReaderAt = data
	n := blocks
	for _, l := range plan {
		row := make([]byte, l.blocks*BlockSize)
		if err := hashBlocks(ctx, from, n, salt, hashing{each: func(i int64, sum [32]byte) {
			copy(row[i*sha256.Size:], sum[:])
		}}); err != nil {
			return nil, root, err
		}
		rows = append(rows, row)
		from, n = bytes.NewReader(row), l.blocks
	}
	err = hashBlocks(ctx, from, 1, salt, hashing{each: func(_ int64, sum [32]byte) { root = sum }})
	return rows, root, err
}

// hashing hears of the blocks, from several goroutines at once.
type hashing struct {
	each func(i int64, sum [32]byte)
	// unreadable hears of a block that can't be read, in place of each; nil
	// makes the first such block the end.
	unreadable func(i int64, err error)
	// progress (may be nil) hears how many blocks were done just now.
	progress func(blocks int64)
}

// hashBlocks hands on the salted hash of each of n blocks.
func hashBlocks(ctx context.Context, r io.ReaderAt, n int64, salt []byte, to hashing) error {
	batches := (n + batch - 1) / batch
	workers := int(min(int64(runtime.GOMAXPROCS(0)), batches))
	var next atomic.Int64
	var mu sync.Mutex
	var first error
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = err
		}
		next.Store(batches)
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			h := sha256.New()
			buf := make([]byte, min(n, batch)*BlockSize)
			var sum [32]byte
			for {
				b := next.Add(1) - 1
				if b >= batches {
					return
				}
				if err := ctx.Err(); err != nil {
					fail(err)
					return
				}
				at, count := b*batch, min(batch, n-b*batch)
				var unreadable map[int64]error
				if k, err := r.ReadAt(buf[:count*BlockSize], at*BlockSize); int64(k) < count*BlockSize {
					if to.unreadable != nil {
						unreadable, err = readBlocks(r, buf[:count*BlockSize], at*BlockSize)
					} else {
						err = fmt.Errorf("dm-verity: read at byte %d: %w", at*BlockSize+int64(k), err)
					}
					if err != nil {
						fail(err)
						return
					}
				}
				for i := range count {
					if err := unreadable[i]; err != nil {
						to.unreadable(at+i, err)
						continue
					}
					h.Reset()
					h.Write(salt)
					h.Write(buf[i*BlockSize : (i+1)*BlockSize])
					h.Sum(sum[:0])
					to.each(at+i, sum)
				}
				if to.progress != nil {
					to.progress(count)
				}
			}
		})
	}
	wg.Wait()
	return first
}
