// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"context"
	"sync"
	"time"
)

const (
	// maxWorkers is how many blocks are under way at once where the line and
	// EBS carry it.
	maxWorkers = 64
	firstSlots = 8
)

// window says how many blocks may be under way. It starts small, grows by one
// for each block that got through, and halves when a round is throttled or
// times out: 64 blocks at once over a line of 10 Mbit/s would each take longer
// than a request may.
type window struct {
	mu    sync.Mutex
	free  *sync.Cond
	limit float64
	// calm is set at the first halving: from there it grows by one a round.
	calm  bool
	used  int
	round int
	moved time.Time
}

func newWindow(now time.Time) *window {
	w := &window{limit: firstSlots, moved: now}
	w.free = sync.NewCond(&w.mu)
	return w
}

// acquire waits for a slot and says which round it is of.
func (w *window) acquire(ctx context.Context) (round int, err error) {
	defer context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.free.Broadcast()
	})()
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.used >= int(w.limit) && ctx.Err() == nil {
		w.free.Wait()
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	w.used++
	return w.round, nil
}

// release gives a slot back. Slots of one round make the window smaller only
// once, however many of them fail.
func (w *window) release(round int, v verdict, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used--
	switch {
	case v == passed:
		w.moved = now
		grow := 1.0
		if w.calm {
			grow = 1 / w.limit
		}
		w.limit = min(maxWorkers, w.limit+grow)
	case (v == throttled || v == timedOut) && round == w.round:
		w.round++
		w.calm = true
		w.limit = max(1, w.limit/2)
	}
	w.free.Broadcast()
}

// lastMoved is when a block last got through.
func (w *window) lastMoved() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.moved
}
