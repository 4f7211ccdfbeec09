// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestWindow(t *testing.T) {
	now := time.Unix(1, 0)
	w := newWindow(now)
	take := func(n int) (rounds []int) {
		t.Helper()
		for range n {
			r, err := w.acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			rounds = append(rounds, r)
		}
		return rounds
	}
	give := func(rounds []int, v verdict) {
		for _, r := range rounds {
			w.release(r, v, now.Add(time.Minute))
		}
	}
	for range 10 {
		give(take(int(w.limit)), passed)
	}
	if w.limit != maxWorkers || !w.lastMoved().Equal(now.Add(time.Minute)) {
		t.Errorf("after ten good rounds the limit is %v", w.limit)
	}
	// A round that times out as a whole halves it once.
	give(take(64), timedOut)
	if w.limit != 32 {
		t.Errorf("after one bad round the limit is %v, want 32", w.limit)
	}
	give(take(32), passed)
	if w.limit < 32.5 || w.limit > 34 {
		t.Errorf("a good round after that makes it %v, want about 33", w.limit)
	}
	for range 20 {
		give(take(1), throttled)
	}
	if w.limit != 1 {
		t.Errorf("after many bad rounds the limit is %v, want 1", w.limit)
	}
	give(take(1), again)
	if w.limit != 1 || w.used != 0 {
		t.Errorf("limit %v, %d used", w.limit, w.used)
	}
	// Who waits for a slot goes when the run ends.
	take(1)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	done := make(chan error)
	go func() {
		_, err := w.acquire(ctx)
		done <- err
	}()
	cancel(gone)
	if err := <-done; !errors.Is(err, gone) {
		t.Errorf("error %v, want %v", err, gone)
	}
}
