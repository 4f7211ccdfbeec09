// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/supervise"
)

const (
	// ringSize is how many events are kept in memory.
	ringSize = 4096
	// journalTail is how much of the last run's journal is read, in bytes,
	// and pastEvents how many of its newest lines are kept.
	journalTail = 512 << 10
	pastEvents  = 1024
)

// ring keeps the newest events.
type ring struct {
	mu     sync.Mutex
	events []status.Event // the oldest first
	last   int64          // number of the newest
	more   chan struct{}
}

func newRing() *ring { return &ring{more: make(chan struct{})} }

// add numbers an event and keeps it.
func (r *ring) add(e status.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	e.Number = r.last
	if len(r.events) >= 2*ringSize {
		r.events = append(make([]status.Event, 0, 2*ringSize), r.events[ringSize+1:]...)
	}
	r.events = append(r.events, e)
	close(r.more)
	r.more = make(chan struct{})
}

// after gives the events after a number, and a channel that is closed with the
// next one. A number that is not reached yet is another run's: all are given.
func (r *ring) after(number int64) ([]status.Event, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := r.events[max(0, len(r.events)-ringSize):]
	if number > r.last {
		number = 0
	}
	i, _ := slices.BinarySearchFunc(kept, number+1, func(e status.Event, n int64) int { return int(e.Number - n) })
	return slices.Clone(kept[i:]), r.more
}

// Events implements api.Control.
func (d *Daemon) Events(since int64) ([]status.Event, <-chan struct{}) { return d.ring.after(since) }

// recall fills the ring with the end of the journal: what happened before the
// daemon came, perhaps why. Lines that can't be read are left out.
func (d *Daemon) recall(dir string) {
	b, err := tail(filepath.Join(dir, "journal.jsonl"), journalTail)
	if err != nil || len(b) < journalTail/2 {
		// Just rotated, or not there at all.
		if older, err := tail(filepath.Join(dir, "journal.1.jsonl"), journalTail); err == nil {
			b = append(older, b...)
		}
	}
	var past []status.Event
	for line := range bytes.Lines(b) {
		var e supervise.Entry
		if json.Unmarshal(line, &e) != nil || e.Act == "" {
			continue
		}
		past = append(past, status.Event{Time: e.Time, Service: e.Service, Container: e.Container, Act: e.Act, Because: e.Because, Error: e.Error, Seconds: e.Seconds})
	}
	for _, e := range past[max(0, len(past)-pastEvents):] {
		d.ring.add(e)
	}
}

// tail reads whole lines from the end of a file, at most limit bytes.
func tail(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	from := max(0, st.Size()-limit)
	b, err := io.ReadAll(io.NewSectionReader(f, from, limit))
	if err != nil {
		return nil, err
	}
	if from > 0 {
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	return b, nil
}
