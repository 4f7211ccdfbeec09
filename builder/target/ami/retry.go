// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// errGaveUp is why a call ended whose failures were worth another try, but not
// for ever.
var errGaveUp = errors.New("gave up")

// caller is the one retry layer: the SDK's own is off, so that one place
// decides how long a request may take and how often it is made.
type caller struct {
	p      Patience
	region string
}

// call is one request with its retries.
type call struct {
	// what it does, for errors, and the permission it needs.
	what, permission string
	// give is how long it may fail; 0 is Patience.Call.
	give time.Duration
	// missingUntil is how long "does not exist" is worth another try.
	missingUntil time.Time
	// window, when not nil, is asked for a slot for every attempt.
	window *window
	// tries bounds the attempts; 0 is no bound but give.
	tries int
	// creates is true for a request that makes something: when the run is
	// interrupted its answer is still waited for a little, because only that
	// surely tells what to remove.
	creates bool
}

// answerGrace is how long.
const answerGrace = 4 * time.Second

// do makes the attempts. ok is true when an attempt was made whose outcome is
// not known: an answer that was lost.
func (c *caller) do(ctx context.Context, k call, f func(ctx context.Context) error) (lost bool, err error) {
	if k.give == 0 {
		k.give = c.p.Call
	}
	since := time.Now()
	for n := 1; ; n++ {
		if ctx.Err() != nil {
			return lost, context.Cause(ctx)
		}
		v, err := c.attempt(ctx, k, f)
		if err == nil {
			return lost, nil
		}
		if ctx.Err() != nil {
			return lost || v.lost(), context.Cause(ctx)
		}
		lost = lost || v.lost()
		if n == 1 {
			since = time.Now()
		}
		switch v {
		case missing:
			if !time.Now().Before(k.missingUntil) {
				return lost, explain(c.region, k, err)
			}
		case throttled, timedOut, again:
		default:
			return lost, explain(c.region, k, err)
		}
		if k.window != nil && k.window.lastMoved().After(since) {
			since = k.window.lastMoved()
		}
		wait := backoff(c.p.Backoff, c.p.MaxBackoff, n)
		if v != missing && (time.Since(since)+wait > k.give || k.tries > 0 && n >= k.tries) {
			return lost, fmt.Errorf("%s in %s: %w after %d attempts in %s; the last failed: %s", k.what, c.region, errGaveUp, n, time.Since(since).Round(time.Second), brief(err))
		}
		if err := pause(ctx, wait); err != nil {
			return lost, err
		}
	}
}

func (c *caller) attempt(ctx context.Context, k call, f func(ctx context.Context) error) (verdict, error) {
	round := 0
	if k.window != nil {
		var err error
		if round, err = k.window.acquire(ctx); err != nil {
			return final, err
		}
	}
	base := ctx
	if k.creates {
		late, stop := context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		defer context.AfterFunc(ctx, func() { time.AfterFunc(answerGrace, stop) })()
		base = late
	}
	actx, cancel := context.WithTimeout(base, c.p.Attempt)
	err := f(actx)
	cancel()
	v := judge(err)
	if k.window != nil {
		k.window.release(round, v, time.Now())
	}
	return v, err
}

// backoff is a random wait between a half and the whole of base doubled n-1
// times, at most limit.
func backoff(base, limit time.Duration, n int) time.Duration {
	d := limit
	if n < 20 {
		d = min(limit, base<<(n-1))
	}
	return d/2 + rand.N(d/2+1)
}

// pause waits, and ends early with the cause of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// poll looks until done; what and within are for the error at the deadline.
func (c *caller) poll(ctx context.Context, what string, within time.Duration, look func(ctx context.Context) (done bool, state string, err error)) error {
	deadline := time.Now().Add(within)
	for n := 1; ; n++ {
		done, state, err := look(ctx)
		if err != nil || done {
			return err
		}
		wait := backoff(c.p.Poll, c.p.MaxPoll, n)
		if time.Now().Add(wait).After(deadline) {
			return fmt.Errorf("waited %s in %s for %s: it is still %q", within, c.region, what, state)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}
