// SPDX-License-Identifier: Apache-2.0

package vmdk

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress"
	"github.com/klauspost/compress/zlib"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// worker reads and deflates jobs, one at a time.
type worker struct {
	e   *encoder
	in  []byte
	out []byte
	// fast and tight by how much a grain promises to shrink.
	fast, tight *zlib.Writer
}

func (w *worker) do(j *job) error {
	in, err := w.read(j)
	if err != nil {
		return err
	}
	w.out = nil
	if b, ok := w.e.free.Get().(*[]byte); ok {
		w.out = (*b)[:0]
	}
	if w.out == nil {
		// Deflate never grows a grain by more than a few bytes.
		w.out = make([]byte, 0, batch*(GrainSize+2*SectorSize))
	}
	for i := range j.n {
		content := in[i*GrainSize:]
		content = content[:w.e.l.grainLen(j.first+i)]
		if isZero(content) {
			continue
		}
		from := len(w.out)
		if err := w.deflate(j.first+i, content); err != nil {
			return err
		}
		j.grains = append(j.grains, grain{index: j.first + i, from: from, to: len(w.out), sum: crc32.Checksum(content, castagnoli)})
	}
	j.out = w.out
	return nil
}

// read fills w.in with the job's grains: its runs, and zeros between them.
func (w *worker) read(j *job) ([]byte, error) {
	start := j.first * GrainSize
	in := w.in[:min(j.n*GrainSize, w.e.l.capacity-start)]
	at := start
	for _, r := range j.runs {
		from, to := max(r.Offset, start), min(r.Offset+r.Length, start+int64(len(in)))
		if from >= to {
			continue
		}
		clear(in[at-start : from-start])
		if n, err := w.e.src.ReadAt(in[from-start:to-start], from); int64(n) < to-from {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("read the disk at %d: %w", from, err)
		}
		j.read += to - from
		at = to
	}
	clear(in[at-start:])
	return in, nil
}

// deflate appends a grain's record to w.out, padded to whole sectors.
func (w *worker) deflate(index int64, content []byte) error {
	from := len(w.out)
	w.out = binary.LittleEndian.AppendUint64(w.out, uint64(index*grainSectors))
	w.out = binary.LittleEndian.AppendUint32(w.out, 0)
	z, level := &w.fast, levelFast
	if compress.Estimate(content) > promising {
		z, level = &w.tight, levelTight
	}
	if *z == nil {
		var err error
		if *z, err = zlib.NewWriterLevel(w, level); err != nil {
			return err
		}
	} else {
		(*z).Reset(w)
	}
	if _, err := (*z).Write(content); err != nil {
		return err
	}
	if err := (*z).Close(); err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(w.out[from+8:], uint32(len(w.out)-from-markerSize))
	w.out = append(w.out, make([]byte, -len(w.out)&(SectorSize-1))...)
	return nil
}

// Write takes what zlib makes.
func (w *worker) Write(b []byte) (int, error) {
	w.out = append(w.out, b...)
	return len(b), nil
}

func isZero(b []byte) bool { return string(b) == zeroGrain[:len(b)] }

var zeroGrain = string(make([]byte, GrainSize))
