// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"time"

	"github.com/holdfast/holdfast/compose/stack"
)

// The defaults of a Compose health check.
const (
	defaultInterval = 30 * time.Second
	defaultTimeout  = 30 * time.Second
	defaultRetries  = 3
)

// Until its first success a service is looked at more often than Interval
// says, so that what waits for it does not wait for a whole interval. These
// looks can only make it healthy: failures are counted at Interval's pace.
const (
	spread     = 250 * time.Millisecond // the first look comes within
	eagerNet   = 250 * time.Millisecond
	eagerExec  = time.Second
	eagerLimit = 5 * time.Second
)

// state is what is known of one probe in one run of a container. Pure: its
// methods return a changed copy.
type state struct {
	Check
	p stack.Probe
	// succeeded once in this run: failures in the start period count then,
	// as they do for a health check.
	succeeded bool
	// counted is when a failure was counted last; zero before.
	counted time.Time
	// eager is the wait before the next look until the first success.
	eager time.Duration
}

// outcome is how one check ended.
type outcome struct {
	began time.Time
	took  time.Duration
	// failed says why in a printable line; "" is a success.
	failed string
	// unknown is true where the engine could not say: nothing is counted.
	unknown bool
	// hangs is the exec of this check that has not ended.
	hangs string
	// at is when an uptime probe that failed may succeed.
	at time.Time
}

func newState(p stack.Probe) state {
	if p.Interval <= 0 {
		p.Interval = defaultInterval
	}
	if p.Retries <= 0 {
		p.Retries = defaultRetries
	}
	s := state{p: p, eager: eagerNet, Check: Check{Probe: describe(p), Health: Starting}}
	if p.Kind == "exec" {
		s.eager = eagerExec
	}
	return s
}

// describe names a probe in a few words.
func describe(p stack.Probe) string {
	switch p.Kind {
	case "http":
		scheme := ""
		if p.Scheme == "https" {
			scheme = "s"
		}
		return fmt.Sprintf("http%s :%d%s", scheme, p.Port, p.Path)
	case "tcp":
		return fmt.Sprintf("tcp :%d", p.Port)
	case "exec":
		if len(p.Command) > 0 {
			return "exec " + printable(p.Command[0])
		}
	case "uptime":
		return "uptime " + p.For.String()
	}
	return p.Kind
}

// first is how long to wait before the first look.
func (s state) first(jitter float64) time.Duration {
	if s.p.Kind == "uptime" {
		return 0
	}
	return time.Duration(jitter * float64(min(spread, s.p.Interval)))
}

// after takes the outcome of a check that ended now.
func (s state) after(started, now time.Time, o outcome) state {
	if s.p.Kind == "uptime" {
		s.At, s.Output = now, o.failed
		if o.failed == "" {
			s.Health = Healthy
		}
		s.counted = o.at
		return s
	}
	if o.unknown {
		return s
	}
	s.At, s.Took, s.Output = now, o.took, o.failed
	if o.failed == "" {
		s.Health, s.Failures, s.succeeded, s.counted = Healthy, 0, true, time.Time{}
		return s
	}
	if !s.counts(started, o.began) {
		return s
	}
	s.Failures, s.counted = s.Failures+1, o.began
	if s.Failures >= s.p.Retries {
		s.Health = Unhealthy
	}
	return s
}

// counts reports whether a failure of a check that began then counts: not in
// the start period, and not sooner than an interval after the last that did
// (or after the start).
func (s state) counts(started, began time.Time) bool {
	if s.succeeded {
		return true
	}
	return !began.Before(s.due(started))
}

// due is when the next failure before the first success counts.
func (s state) due(started time.Time) time.Time {
	if !s.counted.IsZero() {
		return s.counted.Add(s.p.Interval)
	}
	return started.Add(max(s.p.StartPeriod, s.p.Interval))
}

// wait is how long until the next check; negative where there is none.
func (s *state) wait(started, now time.Time) time.Duration {
	if s.p.Kind == "uptime" {
		if s.Health == Healthy {
			return -1
		}
		return max(0, s.counted.Sub(now))
	}
	if s.succeeded || s.Health == Unhealthy {
		return s.p.Interval
	}
	w := min(s.eager, s.p.Interval)
	s.eager = min(2*s.eager, eagerLimit)
	// A look that counts comes when it is due, not an eager pause later.
	if until := s.due(started).Sub(now); until > 0 {
		w = min(w, until)
	}
	return w
}

// uptime judges a container by how long it has run. A clock that was set back
// makes it wait, never longer than the whole time.
func uptime(t Target, p stack.Probe, now time.Time) outcome {
	left := p.For - now.Sub(t.Started)
	if left <= 0 {
		return outcome{}
	}
	left = min(left, p.For)
	return outcome{failed: "has not run for " + p.For.String() + " yet", at: now.Add(left)}
}
