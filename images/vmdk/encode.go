// SPDX-License-Identifier: Apache-2.0

package vmdk

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"runtime"
	"sync"

	"github.com/holdfast/holdfast/images/extents"
)

// Version of the encoder; it rises when the same disk gives other bytes.
const Version = 1

const (
	// Deflate levels: levelTight for grains whose estimated compressibility
	// (0 to 1) is over promising, levelFast for the rest, which is most of a
	// baked disk. Measured: docs/decisions/0043-own-vmdk-encoder.md.
	levelFast, levelTight = 6, 8
	promising             = 0.1
	// batch is how many grains a worker takes at a time: 512 KiB.
	batch = 8
	// maxWorkers bounds memory, about 4 MiB for each, on large hosts.
	maxWorkers = 16
)

// Options of Encode.
type Options struct {
	// Capacity is the length of the disk in bytes, whole sectors, at least the
	// source's: what is beyond the source is zeros.
	Capacity int64
	// Name is the file's name as the descriptor gives it.
	Name string
	// Workers deflate side by side; 0 is one for each processor, at most 16.
	// Their number does not change the bytes.
	Workers int
	// Progress, if not nil, hears data bytes of the source done and in all.
	Progress func(done, total int64)
}

// Result is what was written.
type Result struct {
	// Size is the file's length in bytes.
	Size int64
	// Populated is the length in bytes of the grains that hold data.
	Populated int64
	// CID is the content id in the descriptor, from the disk's content.
	CID uint32
}

// Encode writes a disk as a streamOptimized VMDK. The disk is src, size bytes,
// of which only runs are read (in order, disjoint). dst must read as zeros
// wherever nothing has been written, as a new file does; the header goes in
// last, so what an interrupted call leaves is not taken for a disk. Memory is
// bounded whatever the size. It has no goroutine left when it returns.
func Encode(ctx context.Context, dst io.WriterAt, src io.ReaderAt, size int64, runs []extents.Run, o Options) (Result, error) {
	if err := o.check(size, runs); err != nil {
		return Result{}, err
	}
	if _, err := descriptor(o.Name, o.Capacity, 0); err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	e := &encoder{
		ctx: ctx, dst: dst, src: src, runs: runs, l: newLayout(o.Capacity), progress: o.Progress,
		total: extents.Total(runs), content: sha256.New(),
	}
	e.tables.dst, e.tables.at = dst, e.l.tablesAt
	e.at = e.l.grainsAt
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	workers := o.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	queue := e.start(min(workers, maxWorkers), &running)
	if err := e.drain(queue); err != nil {
		return Result{}, err
	}
	return e.finish(o.Name)
}

func (o Options) check(size int64, runs []extents.Run) error {
	switch {
	case size <= 0 || size%SectorSize != 0:
		return fmt.Errorf("the raw disk has %d bytes, which is not a whole number of sectors of %d: it is cut off, or no disk", size, SectorSize)
	case o.Capacity < size || o.Capacity%SectorSize != 0:
		return fmt.Errorf("a capacity of %d bytes does not fit a raw disk of %d: it must be whole sectors and no less", o.Capacity, size)
	case o.Capacity > MaxCapacity:
		return fmt.Errorf("a capacity of %d bytes is more than the 62 TiB that vSphere allows", o.Capacity)
	}
	at := int64(0)
	for _, r := range runs {
		if r.Offset < at || r.Length <= 0 || r.Length > size-r.Offset {
			return fmt.Errorf("data run %d+%d is out of order or outside the disk of %d bytes", r.Offset, r.Length, size)
		}
		at = r.Offset + r.Length
	}
	return nil
}

// encoder's fields after l belong to the goroutine that called Encode.
type encoder struct {
	ctx  context.Context
	dst  io.WriterAt
	src  io.ReaderAt
	runs []extents.Run
	l    layout

	progress    func(done, total int64)
	done, total int64
	tables      tableWriter
	at          int64
	populated   int64
	content     hash.Hash
	free        sync.Pool
}

// job is a stretch of consecutive grains on its way from the reader of runs
// through a worker to the one writer.
type job struct {
	first, n int64
	// runs that touch it.
	runs []extents.Run
	// ready is closed when the rest is filled in.
	ready  chan struct{}
	err    error
	out    []byte
	grains []grain
	read   int64
}

// grain is one that holds data; its record is out[from:to].
type grain struct {
	index    int64
	from, to int
	sum      uint32
}

// start starts the reader of runs and the workers; the queue holds the jobs in
// the order of the disk.
func (e *encoder) start(workers int, running *sync.WaitGroup) <-chan *job {
	queue, work := make(chan *job, 2*workers), make(chan *job)
	running.Go(func() {
		defer close(queue)
		defer close(work)
		e.split(func(j *job) bool {
			select {
			case queue <- j:
			case <-e.ctx.Done():
				return false
			}
			select {
			case work <- j:
				return true
			case <-e.ctx.Done():
				return false
			}
		})
	})
	for range workers {
		running.Go(func() {
			w := worker{e: e, in: make([]byte, batch*GrainSize)}
			for j := range work {
				j.err = w.do(j)
				close(j.ready)
			}
		})
	}
	return queue
}

// split cuts the runs into jobs of whole grains, each grain in one job only.
func (e *encoder) split(give func(*job) bool) {
	next := int64(0) // grains before it are dealt with
	for i := 0; i < len(e.runs); {
		first := max(next, e.runs[i].Offset/GrainSize)
		end := ceil(e.runs[i].Offset+e.runs[i].Length, GrainSize)
		if first >= end { // the last job has it whole
			i++
			continue
		}
		j := &job{first: first, n: min(batch, end-first), ready: make(chan struct{})}
		stop := (first + j.n) * GrainSize
		k := i
		for k < len(e.runs) && e.runs[k].Offset < stop {
			k++
		}
		j.runs = e.runs[i:k]
		next = first + j.n
		if !give(j) {
			return
		}
	}
}

// drain writes what the workers make, in order.
func (e *encoder) drain(queue <-chan *job) error {
	for j := range queue {
		select {
		case <-j.ready:
		case <-e.ctx.Done():
			return context.Cause(e.ctx)
		}
		if j.err != nil {
			return j.err
		}
		if err := e.write(j); err != nil {
			return err
		}
	}
	return context.Cause(e.ctx)
}

func (e *encoder) write(j *job) error {
	if len(j.out) > 0 {
		if _, err := e.dst.WriteAt(j.out, e.at); err != nil {
			return fmt.Errorf("write the VMDK: %w", err)
		}
	}
	for _, g := range j.grains {
		sector := (e.at + int64(g.from)) / SectorSize
		if sector > math.MaxUint32 {
			return errors.New("the VMDK is longer than the 2 TiB that its 32-bit addresses reach: take the raw disk instead")
		}
		if err := e.tables.put(g.index, uint32(sector)); err != nil {
			return err
		}
		var b [12]byte
		binary.LittleEndian.PutUint64(b[:], uint64(g.index))
		binary.LittleEndian.PutUint32(b[8:], g.sum)
		e.content.Write(b[:])
		e.populated += e.l.grainLen(g.index)
	}
	e.at += int64(len(j.out))
	e.done += j.read
	e.free.Put(&j.out)
	if e.progress != nil {
		e.progress(e.done, e.total)
	}
	return nil
}

// finish writes end, tables, directory, descriptor and, last, the header.
func (e *encoder) finish(name string) (Result, error) {
	if err := e.tables.flush(); err != nil {
		return Result{}, err
	}
	cid := e.cid()
	text, err := descriptor(name, e.l.capacity, cid)
	if err != nil {
		return Result{}, err
	}
	directory := make([]byte, e.l.tables*4)
	for i := range e.l.tables {
		binary.LittleEndian.PutUint32(directory[i*4:], uint32((e.l.tablesAt+i*tableSize)/SectorSize))
	}
	for _, part := range []struct {
		at int64
		b  []byte
	}{
		{e.at, make([]byte, SectorSize)},
		{directoryAt * SectorSize, directory},
		{descriptorAt * SectorSize, text},
		{0, e.l.header().encode()},
	} {
		if _, err := e.dst.WriteAt(part.b, part.at); err != nil {
			return Result{}, fmt.Errorf("write the VMDK: %w", err)
		}
	}
	return Result{Size: e.at + SectorSize, Populated: e.populated, CID: cid}, nil
}

// cid is taken from the hash over capacity and content; the two highest values
// mean "no parent" and "no content".
func (e *encoder) cid() uint32 {
	e.content.Write(binary.LittleEndian.AppendUint64(nil, uint64(e.l.capacity)))
	cid := binary.BigEndian.Uint32(e.content.Sum(nil))
	if cid >= 0xfffffffe {
		cid &= 0x7fffffff
	}
	return cid
}

// tableWriter fills in grain tables, which lie one after another, in the order
// of the disk; tables of zeros are left as the zeros they are.
type tableWriter struct {
	dst io.WriterAt
	at  int64
	buf []byte
	// from is where buf lies in the tables, in bytes.
	from  int64
	dirty bool
}

func (t *tableWriter) put(grain int64, sector uint32) error {
	const window = 1 << 20
	at := grain * 4
	if t.buf == nil || at >= t.from+window {
		if err := t.flush(); err != nil {
			return err
		}
		t.buf, t.from = make([]byte, window), at/window*window
	}
	binary.LittleEndian.PutUint32(t.buf[at-t.from:], sector)
	t.dirty = true
	return nil
}

func (t *tableWriter) flush() error {
	if !t.dirty {
		return nil
	}
	t.dirty = false
	b := t.buf
	for len(b) > 0 && binary.LittleEndian.Uint32(b[len(b)-4:]) == 0 {
		b = b[:len(b)-4]
	}
	if _, err := t.dst.WriteAt(b, t.at+t.from); err != nil {
		return fmt.Errorf("write the VMDK: %w", err)
	}
	return nil
}
