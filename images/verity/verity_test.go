// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

// device is memory that can be written anywhere.
type device []byte

func (d *device) WriteAt(b []byte, off int64) (int, error) {
	if need := int(off) + len(b); need > len(*d) {
		*d = append(*d, make([]byte, need-len(*d))...)
	}
	return copy((*d)[off:], b), nil
}

func sealed(t testing.TB, blocks int64, salt []byte) (dev device, root [32]byte) {
	t.Helper()
	dev = make(device, blocks*BlockSize)
	src := rand.NewChaCha8([32]byte{byte(blocks)})
	src.Read(dev)
	size := int64(len(dev))
	root, err := Format(t.Context(), bytes.NewReader(bytes.Clone(dev)), size, &dev, size, salt, [16]byte{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(dev)) != size+HashSize(size) {
		t.Fatalf("%d blocks: HashSize says %d, %d were written", blocks, HashSize(size), int64(len(dev))-size)
	}
	return dev, root
}

// The root hash of veritysetup 2.7.5 for 300 blocks, block i filled with byte i,
// salt of 32 times 0x5a; the tools test compares whole trees.
func TestKnownRoot(t *testing.T) {
	var dev device
	for i := range 300 {
		dev = append(dev, bytes.Repeat([]byte{byte(i)}, BlockSize)...)
	}
	size := int64(len(dev))
	root, err := Format(t.Context(), bytes.NewReader(bytes.Clone(dev)), size, &dev, size, bytes.Repeat([]byte{0x5a}, 32), [16]byte{})
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(root[:]); got != knownRoot {
		t.Errorf("root hash %s, want %s", got, knownRoot)
	}
}

func TestVerifyAccepts(t *testing.T) {
	for _, blocks := range []int64{1, 2, 128, 129, 1000} {
		for _, salt := range [][]byte{nil, bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{7}, 256)} {
			dev, root := sealed(t, blocks, salt)
			var done, total int64
			err := Verify(t.Context(), bytes.NewReader(dev), blocks*BlockSize, root, func(d, n int64) { done, total = d, n })
			if err != nil || done != blocks*BlockSize || total != done {
				t.Errorf("%d blocks, salt of %d: %v, progress %d of %d", blocks, len(salt), err, done, total)
			}
		}
	}
}

// Every block of the device is covered: a flipped bit anywhere is found, and
// named where it is.
func TestVerifyNamesTheBlock(t *testing.T) {
	const blocks = 150
	dev, root := sealed(t, blocks, []byte("salt"))
	for at := int64(0); at < int64(len(dev)); at += BlockSize {
		bad := bytes.Clone(dev)
		bad[at+at/BlockSize%BlockSize] ^= 0x10
		err := Verify(t.Context(), bytes.NewReader(bad), blocks*BlockSize, root, nil)
		var block *BadBlockError
		switch {
		case at == blocks*BlockSize:
			if err == nil || !strings.Contains(err.Error(), "must be zero") {
				t.Fatalf("flip in the superblock: %v", err)
			}
		case !errors.As(err, &block):
			t.Fatalf("flip in block at %d: %v", at, err)
		case block.Offset != at || (block.Level < 0) != (at < blocks*BlockSize):
			t.Fatalf("flip in block at %d is reported as %v", at, err)
		}
	}
}

func TestSuperblock(t *testing.T) {
	const at = 4 * BlockSize
	dev, root := sealed(t, 4, []byte("salt"))
	got, err := ReadSuperblock(bytes.NewReader(dev), at)
	if err != nil || got.DataBlocks != 4 || string(got.Salt) != "salt" || got.UUID != [16]byte{1, 2, 3} {
		t.Errorf("%+v, %v", got, err)
	}
	for _, c := range []struct {
		name string
		at   int
		to   byte
		want string
	}{
		{"magic", 0, 'x', "no superblock"}, {"version", 8, 2, "not version 1"}, {"type", 12, 0, "not version 1"},
		{"algorithm", 32, 'S', "not version 1"}, {"block size", 65, 0x20, "not version 1"},
		{"no data", 72, 0, "out of range"}, {"endless data", 79, 0x7f, "out of range"}, {"endless salt", 81, 0xff, "out of range"},
		{"more data than fits", 72, 5, "but they end at byte"}, {"less data", 72, 3, "more were sealed"},
		{"other salt", 88, 'S', "not what was sealed"}, {"after the salt", 92, 1, "must be zero"},
		{"after the name", 40, 'x', "must be zero"}, {"last byte", BlockSize - 1, 1, "must be zero"},
	} {
		bad := bytes.Clone(dev)
		bad[at+c.at] = c.to
		if err := Verify(t.Context(), bytes.NewReader(bad), at, root, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if err := Verify(t.Context(), bytes.NewReader(dev[:at]), at, root, nil); err == nil {
		t.Error("a device without a tree passes")
	}
	if err := Verify(t.Context(), bytes.NewReader(dev), at, sha256.Sum256(nil), nil); err == nil {
		t.Error("another root hash passes")
	}
}

func TestFormatRefuses(t *testing.T) {
	data := bytes.NewReader(make([]byte, 3*BlockSize))
	for _, c := range []struct {
		name         string
		size, offset int64
		salt         int
		want         string
	}{
		{"no data", 0, 0, 0, "not whole blocks"}, {"part of a block", 100, 0, 0, "not whole blocks"},
		{"odd offset", BlockSize, 100, 0, "not a multiple"}, {"long salt", BlockSize, BlockSize, 257, "at most 256"},
		{"short data", 4 * BlockSize, 4 * BlockSize, 0, "read at byte 12288"},
	} {
		var dev device
		_, err := Format(t.Context(), data, c.size, &dev, c.offset, make([]byte, c.salt), [16]byte{})
		if err == nil || !strings.Contains(err.Error(), c.want) || len(dev) != 0 {
			t.Errorf("%s: %v, want %q; %d bytes written", c.name, err, c.want, len(dev))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var dev device
	if _, err := Format(ctx, data, BlockSize, &dev, BlockSize, nil, [16]byte{}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	dev, root := sealed(f, 3, []byte("salt"))
	f.Add([]byte(dev[3*BlockSize:][:128]))
	f.Fuzz(func(t *testing.T, super []byte) {
		bad := bytes.Clone(dev)
		copy(bad[3*BlockSize:4*BlockSize], super)
		err := Verify(t.Context(), bytes.NewReader(bad), 3*BlockSize, root, nil)
		same := len(super) >= 92 && bytes.Equal(super[32:92], dev[3*BlockSize+32:][:60])
		if err == nil && len(super) > 92 && !same {
			// Only what the tree does not depend on may differ: uuid, padding.
			s, e := ReadSuperblock(bytes.NewReader(bad), 3*BlockSize)
			if e != nil || s.DataBlocks != 3 || string(s.Salt) != "salt" {
				t.Fatalf("accepted %+v, %v", s, e)
			}
		}
	})
}

const knownRoot = "2f94970663562df60d2ad33c3dc99ad7ee6e093ffcdf2a40490281488ceec45d"
