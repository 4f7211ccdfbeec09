// SPDX-License-Identifier: Apache-2.0

package gcetar

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"slices"
	"sync"

	"github.com/klauspost/compress/flate"

	"github.com/holdfast/holdfast/images/extents"
)

const (
	// piece of the tar is compressed on its own, in bytes.
	piece = 1 << 20
	// window is how far deflate looks back, in bytes: each piece starts with
	// the end of the one before as its dictionary.
	window = 32 << 10
	// level of klauspost's deflate: a tenth of what pigz takes on a disk whose
	// content is packed already, a quarter where it is not, at about its size.
	level = 6
	// maxWorkers bounds memory.
	maxWorkers = 16
)

// stream is the uncompressed tar: header, data of runs, zeros to the end.
type stream struct {
	disk disk
	head []byte
	runs []extents.Run
	// starts of runs in the stream, in bytes.
	starts []int64
	size   int64
}

func newStream(d disk, head []byte, runs []extents.Run) *stream {
	s := &stream{disk: d, head: head, runs: runs, size: int64(len(head))}
	for _, r := range runs {
		s.starts = append(s.starts, s.size)
		s.size += r.Length
	}
	s.size = (s.size + 2*block + record - 1) / record * record
	return s
}

// readAt fills b with what is at off of the stream.
func (s *stream) readAt(b []byte, off int64) error {
	clear(b)
	if off < int64(len(s.head)) {
		n := copy(b, s.head[off:])
		b, off = b[n:], off+int64(n)
	}
	i, found := slices.BinarySearch(s.starts, off)
	if !found && i > 0 {
		i--
	}
	for ; i < len(s.runs) && len(b) > 0; i++ {
		skip := off - s.starts[i]
		n := min(int64(len(b)), s.runs[i].Length-skip)
		if n <= 0 {
			continue
		}
		if err := s.disk.readAt(b[:n], s.runs[i].Offset+skip); err != nil {
			return err
		}
		b, off = b[n:], off+n
	}
	return nil
}

// job is one piece on its way.
type job struct {
	off  int64
	dict int // bytes of raw that are the dictionary
	raw  []byte
	out  bytes.Buffer
	err  error
	done chan struct{}
}

func (j *job) run(s *stream, z *flate.Writer) error {
	j.dict = int(min(j.off, window))
	j.raw = j.raw[:int64(j.dict)+min(piece, s.size-j.off)]
	if err := s.readAt(j.raw, j.off-int64(j.dict)); err != nil {
		return err
	}
	j.out.Reset()
	z.ResetDict(&j.out, j.raw[:j.dict])
	if _, err := z.Write(j.raw[j.dict:]); err != nil {
		return err
	}
	// Ends at a byte, with an empty stored block: pieces can be put together.
	return z.Flush()
}

// compress writes the stream as one gzip member (RFC 1952), its pieces deflated
// side by side and written in order.
func compress(ctx context.Context, w io.Writer, s *stream, o Options) error {
	workers := o.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	workers = min(workers, maxWorkers, int((s.size+piece-1)/piece))
	ctx, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer running.Wait() // after return nothing reads the disk any more
	defer cancel(nil)

	free, todo, order := make(chan *job, workers+2), make(chan *job), make(chan *job, workers+2)
	for range cap(free) {
		free <- &job{raw: make([]byte, 0, window+piece), done: make(chan struct{}, 1)}
	}
	for range workers {
		z, err := flate.NewWriter(nil, level)
		if err != nil {
			return err
		}
		running.Go(func() {
			for j := range todo {
				j.err = j.run(s, z)
				j.done <- struct{}{}
			}
		})
	}
	running.Go(func() {
		defer close(order)
		defer close(todo)
		for off := int64(0); off < s.size; off += piece {
			select {
			case j := <-free:
				j.off = off
				order <- j
				todo <- j
			case <-ctx.Done():
				return
			}
		}
	})
	return collect(ctx, w, s, free, order, o.Progress)
}

// collect writes the pieces in their order, with gzip's header and trailer.
func collect(ctx context.Context, w io.Writer, s *stream, free chan<- *job, order <-chan *job, progress func(done, total int64)) error {
	// No name, no time, unknown system: nothing that differs between two runs.
	if _, err := w.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}); err != nil {
		return fmt.Errorf("write %s: %w", Member, err)
	}
	crc, total := uint32(0), extents.Total(s.runs)
	for off := int64(0); off < s.size; off += piece {
		j, open := <-order
		if !open {
			return context.Cause(ctx)
		}
		<-j.done
		if j.err != nil {
			return j.err
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		raw := j.raw[j.dict:]
		crc = crc32.Update(crc, crc32.IEEETable, raw)
		if _, err := w.Write(j.out.Bytes()); err != nil {
			return fmt.Errorf("write %s: %w", Member, err)
		}
		if progress != nil {
			progress(min(max(off+int64(len(raw))-int64(len(s.head)), 0), total), total)
		}
		free <- j
	}
	end := []byte{3, 0} // an empty last block
	end = binary.LittleEndian.AppendUint32(end, crc)
	end = binary.LittleEndian.AppendUint32(end, uint32(s.size))
	if _, err := w.Write(end); err != nil {
		return fmt.Errorf("write %s: %w", Member, err)
	}
	return nil
}
