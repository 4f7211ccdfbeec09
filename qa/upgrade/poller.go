// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Intervals of the outside client.
const (
	// PollEvery is how often it asks, whether or not it got an answer yet.
	PollEvery = 100 * time.Millisecond
	// patience is how long one question may take.
	patience = 10 * time.Second
	// writeEvery-th question writes an entry.
	writeEvery = 50
)

// Sample is one question of the outside client.
type Sample struct {
	// Asked and Answered are when it began and ended.
	Asked, Answered time.Time
	// OK is true for an answer of status 200 or 201; Release is who gave it.
	OK      bool
	Release string
	// Wrote is the entry that it wrote, "" for a read.
	Wrote string
	// Err is why it is not OK.
	Err string
}

// Poller is a client outside of the box: ten times a second it opens a
// connection and asks, and each five seconds it writes into the guest book.
type Poller struct {
	start time.Time
	stop  context.CancelFunc
	done  sync.WaitGroup

	mu      sync.Mutex
	samples []Sample
}

// Poll begins to ask; addr gives the address at each question, because a
// machine that is started again has another.
func Poll(ctx context.Context, addr func() string, path string) *Poller {
	return poll(ctx, PollEvery, addr, path)
}

func poll(ctx context.Context, every time.Duration, addr func() string, path string) *Poller {
	ctx, cancel := context.WithCancel(ctx)
	p := &Poller{start: time.Now(), stop: cancel}
	p.done.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for n := 1; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			p.done.Go(func() { p.ask(ctx, addr(), path, n) })
		}
	})
	return p
}

func (p *Poller) ask(ctx context.Context, addr, path string, n int) {
	s := Sample{Asked: time.Now()}
	ask, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	method, body := http.MethodGet, io.Reader(nil)
	if n%writeEvery == 0 {
		s.Wrote = fmt.Sprintf("%d-%d", p.start.UnixMilli(), n)
		method, path, body = http.MethodPost, "/api/entries", strings.NewReader(`{"author":"poller","message":"`+s.Wrote+`"}`)
	}
	s.OK, s.Release, s.Err = answer(ask, method, "http://"+addr+path, body)
	s.Answered = time.Now()
	if ctx.Err() != nil && !s.OK {
		return // the end of the poller is no failure of the box
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.samples = append(p.samples, s)
}

func answer(ctx context.Context, method, url string, body io.Reader) (ok bool, release, why string) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return false, "", err.Error()
	}
	req.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{DisableKeepAlives: true} // a kept connection outlives a reboot
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return false, "", err.Error()
	}
	defer resp.Body.Close()
	release = resp.Header.Get(Header)
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)); err != nil {
		return false, release, err.Error()
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
		return false, release, resp.Status
	}
	return true, release, ""
}

// Last is the last answer that came, false for none yet.
func (p *Poller) Last() (Sample, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range slices.Backward(p.samples) {
		if s.OK {
			return s, true
		}
	}
	return Sample{}, false
}

// Stop ends it and gives what it saw, in the order of the questions.
func (p *Poller) Stop() Seen {
	p.stop()
	p.done.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := Seen(slices.Clone(p.samples))
	slices.SortFunc(seen, func(a, b Sample) int { return a.Asked.Compare(b.Asked) })
	return seen
}

// Seen is what an outside client saw.
type Seen []Sample

// Between are the samples asked from a to b.
func (s Seen) Between(a, b time.Time) Seen {
	return slices.DeleteFunc(slices.Clone(s), func(x Sample) bool { return x.Asked.Before(a) || x.Asked.After(b) })
}

// OK are the samples that were answered.
func (s Seen) OK() Seen {
	return slices.DeleteFunc(slices.Clone(s), func(x Sample) bool { return !x.OK })
}

// Failed are those that were not.
func (s Seen) Failed() Seen {
	return slices.DeleteFunc(slices.Clone(s), func(x Sample) bool { return x.OK })
}

// From are the samples that a release answered, with whatever status.
func (s Seen) From(release string) Seen {
	return slices.DeleteFunc(slices.Clone(s), func(x Sample) bool { return x.Release != release })
}

// Written are the entries whose writing was answered with success.
func (s Seen) Written() (entries []string) {
	for _, x := range s {
		if x.OK && x.Wrote != "" {
			entries = append(entries, x.Wrote)
		}
	}
	return entries
}

// Outage is a time in which nothing was answered.
type Outage struct {
	// From is the last answer before, To the first one after; a zero To means
	// that none came.
	From, To time.Time
	// Before and After are the releases that gave them.
	Before, After string
}

// Long is how long it took.
func (o Outage) Long() time.Duration { return o.To.Sub(o.From) }

func (o Outage) String() string {
	return fmt.Sprintf("%.1f s without an answer, %s before and %s after", o.Long().Seconds(), o.Before, o.After)
}

// Outages are the times of at least least between one answer and the next
// during which a question failed.
func (s Seen) Outages(least time.Duration) (list []Outage) {
	ok := s.OK()
	slices.SortFunc(ok, func(a, b Sample) int { return a.Answered.Compare(b.Answered) })
	for i := 1; i < len(ok); i++ {
		o := Outage{ok[i-1].Answered, ok[i].Answered, ok[i-1].Release, ok[i].Release}
		if o.Long() >= least && len(s.Failed().Between(o.From.Add(-patience), o.To)) > 0 {
			list = append(list, o)
		}
	}
	return list
}

// Summary is for the log of a test.
func (s Seen) Summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d questions, %d answered", len(s), len(s.OK()))
	for _, o := range s.Outages(time.Second) {
		fmt.Fprintf(&b, "; %s", o)
	}
	return b.String()
}
