// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"context"
	"sync"

	"github.com/holdfast/holdfast/images/chunk"
)

const (
	// maxRun is the most that one request asks for: it is held in memory, and
	// is what a killed run loses.
	maxRun = 1 << 20
	// ahead is how many requests are under way at once, so that a far server
	// is kept busy.
	ahead = 4
	// smallGap and gapShare: two runs are one where the bytes between them are
	// no more than a request costs, or a small part of the run.
	smallGap = 2 << 10
	gapShare = 16
)

// span of missing chunks, one request.
type missingRun struct {
	at, len int64

	buf  []byte
	err  error
	done chan struct{}
}

// missing joins neighbouring missing chunks.
func missing(want chunk.Index, places []place) []*missingRun {
	var out []*missingRun
	var last *missingRun
	at := int64(0)
	for i, c := range want.Chunks {
		n := int64(c.Len)
		if places[i].from == fromDepot {
			if last != nil {
				gap := at - (last.at + last.len)
				if (gap <= smallGap || gap <= last.len/gapShare) && at+n-last.at <= maxRun {
					last.len = at + n - last.at
					at += n
					continue
				}
			}
			last = &missingRun{at: at, len: n, done: make(chan struct{})}
			out = append(out, last)
		}
		at += n
	}
	return out
}

// fetcher brings runs, some ahead of whoever takes their chunks.
type fetcher struct {
	runs   []*missingRun
	tokens chan struct{}
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	pool   *pool
}

func (r *run) fetchRuns(ctx context.Context, cancel context.CancelCauseFunc, what, digest string, runs []*missingRun) *fetcher {
	f := &fetcher{runs: runs, tokens: make(chan struct{}, ahead), cancel: cancel, pool: &r.runBuffers}
	fetch := func(m *missingRun) {
		defer close(m.done)
		m.buf = f.pool.get(maxRun)[:m.len]
		m.err = r.fill(ctx, what, digest, m.at, m.buf)
	}
	f.wg.Go(func() {
		for i, m := range runs {
			select {
			case f.tokens <- struct{}{}:
			case <-ctx.Done():
				m.err = context.Cause(ctx)
				close(m.done)
				continue
			}
			// The first shows whether the server knows ranges; one that does
			// not is read in order.
			if i == 0 || r.sequential() {
				fetch(m)
				continue
			}
			f.wg.Go(func() { fetch(m) })
		}
	})
	return f
}

// take gives n bytes from at on, of the first run that has them. It is called
// in order; the bytes are good until the next call.
func (f *fetcher) take(ctx context.Context, at int64, n int) ([]byte, error) {
	for len(f.runs) > 0 && f.runs[0].at+f.runs[0].len <= at {
		f.drop()
	}
	m := f.runs[0]
	select {
	case <-m.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if m.err != nil {
		return nil, m.err
	}
	return m.buf[at-m.at:][:n], nil
}

// drop lets go of the first run, which has been taken.
func (f *fetcher) drop() {
	m := f.runs[0]
	f.runs = f.runs[1:]
	<-m.done
	if m.buf != nil {
		f.pool.put(m.buf)
		m.buf = nil
	}
	<-f.tokens
}

// stop ends all requests.
func (f *fetcher) stop() {
	f.cancel(context.Canceled)
	f.wg.Wait()
}

// sequential is true where ranges cost as much as all that comes before them.
func (r *run) sequential() bool {
	s, ok := r.depot.(interface{ Sequential() bool })
	return ok && s.Sequential()
}

// pool keeps buffers of one size.
type pool struct {
	mu   sync.Mutex
	free [][]byte
}

func (p *pool) get(size int) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		return b[:size]
	}
	return make([]byte, size)
}

func (p *pool) put(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, b)
}
