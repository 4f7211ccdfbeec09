// SPDX-License-Identifier: Apache-2.0

package chunk

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// An encoded index is little-endian and has one form only:
//
//	8 bytes   magic, with the version and the way of cutting
//	8 bytes   size of the file
//	per chunk 16 bytes sum, 2 bytes length less one
const (
	magic    = "HFCHUNK1"
	headLen  = len(magic) + 8
	entryLen = 16 + 2
	maxFile  = int64(1) << 40
)

// Encode is the index as bytes: 18 for each chunk and 16 more. The index must
// be Make's or Decode's.
func (x Index) Encode() []byte {
	b := make([]byte, 0, headLen+entryLen*len(x.Chunks))
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(x.Size))
	for _, c := range x.Chunks {
		b = append(b, c.Sum[:]...)
		b = binary.LittleEndian.AppendUint16(b, uint16(c.Len-1))
	}
	return b
}

// EncodedMax is the most bytes that an index of a file of size bytes can have.
func EncodedMax(size int64) int64 {
	return int64(headLen) + int64(entryLen)*(size/MinLen+1)
}

// Decode reads an index of a file of at most maxSize bytes. What it takes,
// Encode gives back byte for byte, and the chunks are as long as a cut makes
// them: so what it holds in memory is bounded by maxSize.
func Decode(b []byte, maxSize int64) (Index, error) {
	if len(b) < headLen || string(b[:len(magic)]) != magic {
		return Index{}, errors.New("chunk index: not an index of a version this program knows")
	}
	size := binary.LittleEndian.Uint64(b[len(magic):headLen])
	if maxSize > maxFile {
		maxSize = maxFile
	}
	if maxSize < 0 || size > uint64(maxSize) {
		return Index{}, fmt.Errorf("chunk index: of a file of %d bytes; at most %d are taken", size, maxSize)
	}
	body := b[headLen:]
	if len(body)%entryLen != 0 || int64(len(b)) > EncodedMax(int64(size)) {
		return Index{}, fmt.Errorf("chunk index: %d bytes are not the entries of a file of %d", len(b), size)
	}
	x := Index{Size: int64(size), Chunks: make([]Chunk, len(body)/entryLen)}
	left := x.Size
	for i := range x.Chunks {
		e := body[i*entryLen:]
		c := Chunk{Sum: Sum(e[:16]), Len: int32(binary.LittleEndian.Uint16(e[16:])) + 1}
		last := i == len(x.Chunks)-1
		if c.Len > MaxLen || c.Len < MinLen && !last {
			return Index{}, fmt.Errorf("chunk index: chunk %d has %d bytes; a cut makes %d to %d", i, c.Len, MinLen, MaxLen)
		}
		if left -= int64(c.Len); left < 0 {
			break
		}
		x.Chunks[i] = c
	}
	if left != 0 {
		return Index{}, fmt.Errorf("chunk index: its chunks are not the %d bytes of the file", size)
	}
	return x, nil
}
