// SPDX-License-Identifier: Apache-2.0

// Package chunk cuts a file into content-defined chunks, so that two versions
// of it share those that did not change wherever they lie, and describes the
// cut in an index: what a box compares to know which bytes it has to fetch.
package chunk

// Sum is the first half of a chunk's SHA-256. It finds chunks; that the whole
// is right is for the whole's own digest to say.
type Sum [16]byte

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
