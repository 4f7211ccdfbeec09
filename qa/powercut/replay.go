// SPDX-License-Identifier: Apache-2.0

package powercut

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// Replay is a disk that can be brought to any cut of a log, in rising order.
// What is certain at a cut is written to the disk's file once for all later
// cuts; what may be lost or torn is put on top and taken away again.
type Replay struct {
	log  *Log
	disk *os.File
	size int64
	// next is the first entry that is not for certain in the file.
	next int
	undo []patch
	// Whole are ranges of the disk where it writes more than one sector whole.
	Whole []Range
	// changed counts writes by mebibyte of the disk, see Changes.
	changed []uint32
}

// Range is a part of the disk where Unit bytes are written whole or not at all.
type Range struct{ Offset, Len, Unit int64 }

// patch is what the file held before a cut's uncertain writes.
type patch struct {
	at   int64
	data []byte
}

// Cut is one cut of the power.
type Cut struct {
	// At is how many entries the disk had taken.
	At int
	// Durable is how many of them are before the last completed flush.
	Durable int
	// Whole, Torn and Lost count the other writes by what is left of them.
	Whole, Torn, Lost int
}

func (c Cut) String() string {
	return fmt.Sprintf("after entry %d (flushed up to %d; of the rest %d whole, %d torn, %d lost)", c.At, c.Durable, c.Whole, c.Torn, c.Lost)
}

// NewReplay starts with disk as it was before the first entry; the file is
// changed, so it is a copy.
func NewReplay(log *Log, disk *os.File) (*Replay, error) {
	info, err := disk.Stat()
	if err != nil {
		return nil, err
	}
	r := &Replay{log: log, disk: disk, size: info.Size()}
	r.changed = make([]uint32, r.size>>20+1)
	for i, e := range log.Entries {
		if e.Len > 0 && e.Offset > r.size-e.Len {
			return nil, fmt.Errorf("entry %d of the log lies beyond the disk: they are not of one run", i)
		}
	}
	return r, nil
}

// flushed is how many of the first at entries are before the last flush among
// them. A flush that carries data flushes what came before it.
func (l *Log) flushed(at int) int {
	for i := at - 1; i >= 0; i-- {
		if l.Entries[i].Flags&Flush != 0 {
			return i
		}
	}
	return 0
}

// Cut brings the disk to a cut after the first at entries, which must not be
// fewer than at any cut before. What becomes of the writes that no flush
// covers follows from seed.
func (r *Replay) Cut(at int, seed uint64) (Cut, error) {
	if at < 0 || at > len(r.log.Entries) {
		return Cut{}, fmt.Errorf("the log has %d entries, no %d", len(r.log.Entries), at)
	}
	if err := r.Reset(); err != nil {
		return Cut{}, err
	}
	c := Cut{At: at, Durable: r.log.flushed(at)}
	if c.Durable < r.next {
		return Cut{}, errors.New("cuts come in rising order")
	}
	for ; r.next < c.Durable; r.next++ {
		e := r.log.Entries[r.next]
		if err := r.write(e, nil, false); err != nil {
			return Cut{}, fmt.Errorf("entry %d: %w", r.next, err)
		}
	}
	rnd := rand.New(rand.NewPCG(seed, uint64(at)))
	// A disk may keep nearly all or nearly nothing of its cache: each cut has
	// its own odds.
	odds := rnd.Float64()
	for i := c.Durable; i < at; i++ {
		e := r.log.Entries[i]
		if e.Len == 0 || e.Flags&Mark != 0 {
			continue
		}
		keep := r.fate(e, rnd, odds, &c)
		if keep == nil && e.Flags&FUA == 0 {
			continue
		}
		if err := r.write(e, keep, true); err != nil {
			return Cut{}, fmt.Errorf("entry %d: %w", i, err)
		}
	}
	return c, nil
}

// fate says which sectors of a write are on the disk: nil for none. A discard
// is done or is not.
func (r *Replay) fate(e Entry, rnd *rand.Rand, odds float64, c *Cut) []bool {
	keep := make([]bool, e.Len/r.log.Sector)
	all := func() []bool {
		c.Whole++
		for i := range keep {
			keep[i] = true
		}
		return keep
	}
	if e.Flags&FUA != 0 {
		return all()
	}
	torn := rnd.IntN(2) == 0 && e.Flags&Discard == 0 && len(keep) > 1
	if !torn {
		if rnd.Float64() < odds {
			return all()
		}
		c.Lost++
		return nil
	}
	unit := r.unit(e.Offset)
	n, last := 0, int64(-1)
	for i := range keep {
		if at := (e.Offset + int64(i)*r.log.Sector) / unit; at != last {
			last, keep[i] = at, rnd.Float64() < odds
		} else {
			keep[i] = keep[i-1]
		}
		if keep[i] {
			n++
		}
	}
	switch n {
	case 0:
		c.Lost++
		return nil
	case len(keep):
		c.Whole++
	default:
		c.Torn++
	}
	return keep
}

// unit is what the disk writes whole at an offset.
func (r *Replay) unit(at int64) int64 {
	for _, w := range r.Whole {
		if at >= w.Offset && at < w.Offset+w.Len {
			return w.Unit
		}
	}
	return r.log.Sector
}

// write does one entry, or the sectors of it to keep; it remembers what it
// overwrites where it is to be undone.
func (r *Replay) write(e Entry, keep []bool, undo bool) error {
	if e.Len == 0 || e.Flags&Mark != 0 {
		return nil
	}
	for mb := e.Offset >> 20; mb <= (e.Offset+e.Len-1)>>20; mb++ {
		r.changed[mb]++
	}
	if e.Flags&Discard != 0 {
		return r.discard(e, undo)
	}
	data := r.log.Data(e)
	piece := make([]byte, min(e.Len, 1<<20))
	for done := int64(0); done < e.Len; {
		b := piece[:min(int64(len(piece)), e.Len-done)]
		if _, err := io.ReadFull(data, b); err != nil {
			return err
		}
		if undo {
			if err := r.remember(e.Offset+done, len(b)); err != nil {
				return err
			}
		}
		if err := r.put(b, e.Offset+done, keep, done/r.log.Sector); err != nil {
			return err
		}
		done += int64(len(b))
	}
	return nil
}

// put writes the runs of b whose sectors are to be kept.
func (r *Replay) put(b []byte, at int64, keep []bool, first int64) error {
	if keep == nil {
		_, err := r.disk.WriteAt(b, at)
		return err
	}
	n := int64(len(b)) / r.log.Sector
	for i := int64(0); i < n; {
		if !keep[first+i] {
			i++
			continue
		}
		j := i
		for j < n && keep[first+j] {
			j++
		}
		if _, err := r.disk.WriteAt(b[i*r.log.Sector:j*r.log.Sector], at+i*r.log.Sector); err != nil {
			return err
		}
		i = j
	}
	return nil
}

// maxUndone bounds a discard that is undone by remembering bytes; a larger one
// is taken as not yet done, which a disk may choose.
const maxUndone = 64 << 20

func (r *Replay) discard(e Entry, undo bool) error {
	if undo {
		if e.Len > maxUndone {
			return nil
		}
		if err := r.remember(e.Offset, int(e.Len)); err != nil {
			return err
		}
	}
	return unix.Fallocate(int(r.disk.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, e.Offset, e.Len)
}

func (r *Replay) remember(at int64, n int) error {
	old := make([]byte, n)
	if _, err := r.disk.ReadAt(old, at); err != nil {
		return err
	}
	r.undo = append(r.undo, patch{at, old})
	return nil
}

// Reset takes the uncertain writes of the last cut away.
func (r *Replay) Reset() error {
	for len(r.undo) > 0 {
		p := r.undo[len(r.undo)-1]
		if _, err := r.disk.WriteAt(p.data, p.at); err != nil {
			return err
		}
		for mb := p.at >> 20; mb <= (p.at+int64(len(p.data))-1)>>20; mb++ {
			r.changed[mb]++
		}
		r.undo = r.undo[:len(r.undo)-1]
	}
	return nil
}

// Changes is a number that changes with every write to the range, so that an
// expensive check can be spared where nothing was written.
func (r *Replay) Changes(at, length int64) uint64 {
	var n uint64
	for mb := at >> 20; length > 0 && mb <= (at+length-1)>>20 && mb < int64(len(r.changed)); mb++ {
		n += uint64(r.changed[mb])
	}
	return n
}
