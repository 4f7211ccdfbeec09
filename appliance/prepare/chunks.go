// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/holdfast/holdfast/images/chunk"
)

// donor is a file on the box whose chunks may be taken, found by their sums.
type donor struct {
	r  io.ReaderAt
	at []donorChunk // by sum, then offset
}

type donorChunk struct {
	sum chunk.Sum
	off int64
	len int32
}

func newDonor(r io.ReaderAt, x chunk.Index) *donor {
	d := &donor{r: r, at: make([]donorChunk, 0, len(x.Chunks))}
	off := int64(0)
	for _, c := range x.Chunks {
		d.at = append(d.at, donorChunk{c.Sum, off, c.Len})
		off += int64(c.Len)
	}
	slices.SortFunc(d.at, func(a, b donorChunk) int { return compare(a.sum, a.off, b.sum, b.off) })
	return d
}

func compare(a chunk.Sum, ao int64, b chunk.Sum, bo int64) int {
	if c := bytes.Compare(a[:], b[:]); c != 0 {
		return c
	}
	switch {
	case ao < bo:
		return -1
	case ao > bo:
		return 1
	}
	return 0
}

// find gives the first place from least on that has a chunk.
func (d *donor) find(c chunk.Chunk, least int64) (int64, bool) {
	i := sort.Search(len(d.at), func(i int) bool { return compare(d.at[i].sum, d.at[i].off, c.Sum, least) >= 0 })
	if i < len(d.at) && d.at[i].sum == c.Sum && d.at[i].len == c.Len {
		return d.at[i].off, true
	}
	return 0, false
}

// Where a chunk comes from, besides a donor by its number.
const (
	fromDepot = -1 - iota
	inPlace
	fromOld  // the target's content of before, not overwritten yet
	fromSelf // the target's new content, written already
)

// place is where a chunk comes from.
type place struct {
	from int
	off  int64
}

// plan says for each chunk of want where it comes from; old is the target's
// present content, nil for none. Chunks are written in order: of old only what
// lies behind the place that is written can still be had.
func plan(want chunk.Index, old *donor, donors []*donor) []place {
	self := newDonor(nil, want)
	out := make([]place, len(want.Chunks))
	at := int64(0)
	for i, c := range want.Chunks {
		out[i] = find(c, at, old, donors)
		if out[i].from == fromDepot {
			if off, ok := self.find(c, 0); ok && off < at {
				out[i] = place{fromSelf, off}
			}
		}
		at += int64(c.Len)
	}
	return out
}

func find(c chunk.Chunk, at int64, old *donor, donors []*donor) place {
	if old != nil {
		if off, ok := old.find(c, at); ok {
			if off == at {
				return place{inPlace, off}
			}
			return place{fromOld, off}
		}
	}
	for n, d := range donors {
		if off, ok := d.find(c, 0); ok {
			return place{n, off}
		}
	}
	return place{from: fromDepot}
}

// target is a file or device that is being rebuilt.
type target struct {
	file
	old *donor
}

type file interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// rebuild makes the first want.Size bytes of t the blob of that digest. Each
// chunk is held against its sum before it is written.
func (r *run) rebuild(ctx context.Context, what, digest string, want chunk.Index, t target, donors []*donor) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	places := plan(want, t.old, donors)
	runs := missing(want, places)
	fetcher := r.fetchRuns(ctx, cancel, what, digest, runs)
	defer fetcher.stop()
	w := newWriter(t)
	defer w.stop()
	buf := make([]byte, chunk.MaxLen)
	at := int64(0)
	for i, c := range want.Chunks {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		data, came, err := r.chunk(ctx, what, digest, fetcher, w, t, donors, places[i], c, at, buf)
		if err != nil {
			return err
		}
		if data != nil {
			if err := w.write(data, at); err != nil {
				return err
			}
		}
		at += int64(c.Len)
		r.meter.done(int64(c.Len), !came)
	}
	return w.finish()
}

// chunk gives a chunk's bytes, nil where they are in their place, and says
// whether they came from the depot.
func (r *run) chunk(ctx context.Context, what, digest string, f *fetcher, w *writer, t target, donors []*donor, p place, c chunk.Chunk, at int64, buf []byte) (_ []byte, came bool, err error) {
	data := buf[:c.Len]
	right := func() bool { return chunk.SumOf(data) == c.Sum }
	switch p.from {
	case fromDepot:
		if data, err = f.take(ctx, at, int(c.Len)); err != nil {
			return nil, false, err
		}
		if right() {
			return data, p.from == fromDepot, nil
		}
		data = buf[:c.Len]
	case inPlace:
		// Its sum was taken in this very run.
		return nil, false, nil
	case fromSelf:
		if err := w.flush(); err != nil {
			return nil, false, err
		}
		_, err = t.ReadAt(data, p.off)
	case fromOld:
		_, err = t.ReadAt(data, p.off)
	default:
		_, err = donors[p.from].r.ReadAt(data, p.off)
	}
	if p.from != fromDepot && err == nil && right() {
		return data, p.from == fromDepot, nil
	}
	// A donor that is not what its index says, or a chunk that was damaged on
	// its way: once more, from the place that must have it.
	if err := r.fill(ctx, what, digest, at, data); err != nil {
		return nil, false, err
	}
	if !right() {
		return nil, false, &RefusedError{what, fmt.Sprintf("is not what is signed: %s has other bytes at %d of %s", r.depot, at, digest)}
	}
	return data, true, nil
}
