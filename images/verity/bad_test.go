// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
)

func TestVerifyNamesAllBlocks(t *testing.T) {
	const blocks = 1000 // 8 hash blocks under one
	good, root := sealed(t, blocks, []byte("salt"))
	tree := func(row0 int64) int64 { return blocks + 2 + row0 }
	for _, c := range []struct {
		name string
		flip []int64
		want string
	}{
		{"two of the data", []int64{140, 7},
			"dm-verity: data block 7 at byte 28672 is not what was sealed; 2 bad blocks in all, at bytes 28672, 573440"},
		{"the last of the data", []int64{999}, "dm-verity: data block 999 at byte 4091904 is not what was sealed"},
		// The data below a bad hash block is not called bad, nor good.
		{"hash block and data", []int64{tree(1), 3, 130},
			"dm-verity: hash block at byte 4108288 (level 0) is not what was sealed; 2 bad blocks in all, at bytes 4108288, 12288; 128 data blocks can't be judged without their hash blocks"},
		{"top of the tree", []int64{blocks + 1, 3},
			"dm-verity: hash block at byte 4100096 (level 1) is not what was sealed; 1000 data blocks can't be judged without their hash blocks"},
		{"the last hash block, which is not full", []int64{tree(7)},
			"dm-verity: hash block at byte 4132864 (level 0) is not what was sealed; 104 data blocks can't be judged without their hash blocks"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := bytes.Clone(good)
			for _, b := range c.flip {
				dev[b*BlockSize+BlockSize-1] ^= 1
			}
			err := Verify(t.Context(), bytes.NewReader(dev), blocks*BlockSize, root, nil)
			if err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestVerifyBoundsWhatItNames(t *testing.T) {
	const blocks = 1000
	dev, root := sealed(t, blocks, []byte("salt"))
	clear(dev[:900*BlockSize])
	err := Verify(t.Context(), bytes.NewReader(dev), blocks*BlockSize, root, nil)
	var all *BadBlocksError
	var first *BadBlockError
	if !errors.As(err, &all) || !errors.As(err, &first) || all.Total != 900 || len(all.Blocks) != MaxBadBlocks || first.Offset != 0 {
		t.Fatalf("%v", err)
	}
	for i, b := range all.Blocks {
		if b.Offset != int64(i)*BlockSize {
			t.Fatalf("block %d of the list is at byte %d", i, b.Offset)
		}
	}
	if text := err.Error(); !strings.HasSuffix(text, " 258048 and 836 more") || strings.Contains(text, "\n") {
		t.Error(text)
	}
}

// worn is a disk with sectors that can't be read.
type worn struct {
	io.ReaderAt
	bad []int64 // blocks
}

func (w worn) ReadAt(b []byte, at int64) (int, error) {
	for _, i := range w.bad {
		if i*BlockSize < at+int64(len(b)) && i*BlockSize >= at {
			n, err := w.ReaderAt.ReadAt(b[:i*BlockSize-at], at)
			return n, errors.Join(syscall.EIO, err)
		}
	}
	return w.ReaderAt.ReadAt(b, at)
}

func TestVerifyGoesOnAfterAReadError(t *testing.T) {
	const blocks = 600
	dev, root := sealed(t, blocks, []byte("salt"))
	dev[500*BlockSize]++
	dev[5*BlockSize]++
	disk := worn{bytes.NewReader(dev), []int64{blocks + 2 + 1, 4, 300}}
	err := Verify(t.Context(), disk, blocks*BlockSize, root, nil)
	var all *BadBlocksError
	if !errors.As(err, &all) || !errors.Is(err, syscall.EIO) || all.Total != 5 || all.Unjudged != 128 {
		t.Fatalf("%v", err)
	}
	var got []string
	for _, b := range all.Blocks {
		got = append(got, fmt.Sprint(b.Offset/BlockSize, " ", b.Err != nil))
	}
	if list := strings.Join(got, ", "); list != "603 true, 4 true, 5 false, 300 true, 500 false" {
		t.Errorf("block and whether it could not be read: %s", list)
	}
}

func TestSuperblockErrorIsItsOwn(t *testing.T) {
	dev, root := sealed(t, 3, nil)
	dev[3*BlockSize]++
	var super *SuperblockError
	var block *BadBlockError
	if err := Verify(t.Context(), bytes.NewReader(dev), 3*BlockSize, root, nil); !errors.As(err, &super) || errors.As(err, &block) {
		t.Errorf("%v", err)
	}
}
