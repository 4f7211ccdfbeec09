// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"maps"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
)

// History is what the supervisor remembers over its own restarts. It holds
// nothing the engine could say by itself. A value: its methods return a
// changed copy.
type History struct {
	// Format is 1.
	Format int `json:"format"`
	// Boot is the boot id of the last look; ends seen first in another boot
	// are the box's doing, not the service's.
	Boot string `json:"boot"`
	// WasHealthy is the boot in which the whole stack was healthy last.
	WasHealthy string `json:"was_healthy,omitempty"`
	// Past by service name, and by "network NAME" and "volume NAME" for
	// operations that failed.
	Past map[string]Past `json:"past"`
}

// How a service's container ended, and what follows.
const (
	endNone   = ""        // it may start at once
	endRetry  = "retry"   // it failed; it starts again at NotBefore
	endGaveUp = "gave-up" // its policy allows no further start
	endDone   = "done"    // it ended by itself, well
	endByHand = "by-hand" // somebody stopped it and the policy respects that
)

// Past is what is remembered of one service.
type Past struct {
	// Container and its end or start that were dealt with last, so that each
	// is counted once.
	Container string    `json:"container,omitempty"`
	Finished  time.Time `json:"finished,omitzero"`
	Unhealthy time.Time `json:"unhealthy,omitzero"` // Started of the unhealthy run
	// Ended is one of the end constants; Why says it in a sentence.
	Ended string `json:"ended,omitempty"`
	Why   string `json:"why,omitempty"`
	// Failures in a row, Restarts in total.
	Failures  int       `json:"failures,omitempty"`
	Restarts  int       `json:"restarts,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"`
	// WellSince is when the container was first seen well; zero while it is not.
	WellSince time.Time `json:"well_since,omitzero"`
	// Completed is the last success of a one-shot.
	Completed *Completion `json:"completed,omitempty"`
	// State and Since are what status shows.
	State string    `json:"state,omitempty"`
	Since time.Time `json:"since,omitzero"`
	// Inherit maps targets to the anonymous volumes of the container that is
	// being replaced. It is on disk before the old container is removed:
	// a crash in between would else lose the only trace of that data.
	Inherit map[string]string `json:"inherit,omitempty"`
}

// Completion says for which generation and which configuration a one-shot ran.
type Completion struct {
	Generation int       `json:"generation"`
	Hash       string    `json:"hash"`
	At         time.Time `json:"at"`
}

// completed reports whether a one-shot need not run again.
func (p Past) completed(s *Service, generation int) bool {
	return p.Completed != nil && p.Completed.Generation == generation && p.Completed.Hash == s.Hash
}

// NewHistory is the memory of a box that has none.
func NewHistory() History { return History{Format: 1, Past: map[string]Past{}} }

func (h History) clone() History {
	h.Past = maps.Clone(h.Past)
	if h.Past == nil {
		h.Past = map[string]Past{}
	}
	return h
}

// Note is one line of the journal that no operation stands for.
type Note struct {
	Service, Container, Text string
}

// Advance takes note of what happened since the last look: ends, failing
// health, recoveries. It is pure; jitter returns a number in [0,1).
func Advance(d *Desired, o Observed, h History, now time.Time, jitter func() float64) (History, []Note) {
	h = h.clone()
	fresh := o.Fresh || h.Boot != o.Boot
	h.Boot = o.Boot
	var notes []Note
	for i := range d.Services {
		s := &d.Services[i]
		p := h.Past[s.Name]
		if o.Busy[s.Name] != "" {
			continue // the operation's own result tells more
		}
		c, _ := o.pick(s)
		next, note := p.advance(s, d.Generation, c, o, fresh, now, jitter)
		if note != "" {
			n := Note{Service: s.Name, Text: note}
			if c != nil {
				n.Container = c.ID
			}
			notes = append(notes, n)
		}
		h.Past[s.Name] = next
	}
	return h, notes
}

func (p Past) advance(s *Service, generation int, c *engine.Container, o Observed, fresh bool, now time.Time, jitter func() float64) (Past, string) {
	if fresh && !p.completed(s, generation) {
		p.Ended, p.NotBefore = endNone, time.Time{}
	}
	if c == nil {
		p.WellSince = time.Time{}
		if p.Container != "" {
			p.Container = ""
			return p, "its container is gone"
		}
		return p, ""
	}
	note := ""
	known := p.Container == c.ID
	if !known {
		note = "adopted, " + c.State
		p.Container = c.ID
	}
	switch {
	case c.Up():
		p, n := p.running(s, c, now, jitter)
		return p, join(note, n)
	case (c.State == "exited" || c.State == "dead") && !(known && p.Finished.Equal(c.Finished)):
		p.Finished = c.Finished
		p, n := p.ended(s, generation, c, o, known && !fresh, now, jitter)
		return p, join(note, n)
	}
	return p, note
}

func join(a, b string) string {
	if a != "" && b != "" {
		return a + "; " + b
	}
	return a + b
}

// running follows health: a failure each time a run turns unhealthy, and
// forgiveness after a long time of being well.
func (p Past) running(s *Service, c *engine.Container, now time.Time, jitter func() float64) (Past, string) {
	switch c.Health {
	case "unhealthy":
		p.WellSince = time.Time{}
		if !p.Unhealthy.Equal(c.Started) {
			p.Unhealthy = c.Started
			p.Why = "unhealthy"
			if c.HealthLog != "" {
				p.Why += ": " + c.HealthLog
			}
			p = p.fail(s, now, jitter)
			return p, p.Why
		}
	case "starting":
		p.WellSince, p.Ended = time.Time{}, endNone
	default:
		p.Ended = endNone
		if p.WellSince.IsZero() {
			p.WellSince = now
			if c.Health == "none" && c.Started.Before(now) && !c.Started.IsZero() {
				p.WellSince = c.Started
			}
		}
		if p.Failures > 0 && now.Sub(p.WellSince) >= s.resetAfter() {
			p.Failures = 0
			return p, fmt.Sprintf("well for %s, its failures are forgotten", s.resetAfter())
		}
	}
	return p, ""
}

func (s *Service) resetAfter() time.Duration {
	if s.Restart.Window > 0 {
		return s.Restart.Window
	}
	return ResetAfter
}

// ended sorts the end of a container. counted is false where the end was
// first seen after the box, the engine or the memory started afresh.
func (p Past) ended(s *Service, generation int, c *engine.Container, o Observed, counted bool, now time.Time, jitter func() float64) (Past, string) {
	well := p.WellSince
	p.WellSince = time.Time{}
	p.Why = endText(c)
	if s.OneShot && c.ExitCode == 0 && c.Labels[labelGeneration] == fmt.Sprint(generation) && c.Labels[labelHash] == s.Hash {
		p.Ended, p.Failures = endDone, 0
		p.Completed = &Completion{Generation: generation, Hash: s.Hash, At: c.Finished}
		return p, "completed"
	}
	if !counted || o.Stopping {
		p.Ended = endNone
		return p, ""
	}
	if o.ByHand[c.ID] && s.Restart.Mode == "unless-stopped" {
		p.Ended, p.Why = endByHand, "stopped by hand"
		return p, p.Why
	}
	switch {
	case s.Restart.Mode == "no" && c.ExitCode == 0, s.Restart.Mode == "on-failure" && c.ExitCode == 0 && !s.OneShot:
		p.Ended = endDone
		return p, p.Why
	case s.Restart.Mode == "no":
		p.Ended = endGaveUp
		return p, p.Why + ", and its restart policy is no"
	}
	if !well.IsZero() && c.Finished.Sub(well) >= s.resetAfter() {
		p.Failures = 0
	}
	p = p.fail(s, now, jitter)
	return p, p.Why
}

// fail counts a failure and sets when the next start may be.
func (p Past) fail(s *Service, now time.Time, jitter func() float64) Past {
	p.Failures++
	p.Ended = endRetry
	wait := Delay(p.Failures, jitter())
	if s != nil {
		wait = max(wait, s.Restart.Delay)
		if s.Restart.Max > 0 && p.Failures > s.Restart.Max {
			p.Ended = endGaveUp
			p.Why += fmt.Sprintf(", after %d restarts, which is all its policy allows", s.Restart.Max)
		}
	}
	p.NotBefore = now.Add(wait)
	return p
}

func endText(c *engine.Container) string {
	switch {
	case c.OOMKilled:
		return fmt.Sprintf("killed for lack of memory (exit code %d)", c.ExitCode)
	case c.Error != "":
		return c.Error
	}
	return fmt.Sprintf("ended with exit code %d", c.ExitCode)
}

// Failed takes note of an operation that the engine refused.
func (h History) Failed(op Op, err error, now time.Time, jitter func() float64) History {
	h = h.clone()
	p := h.Past[op.key()]
	p.Why = fmt.Sprintf("%s failed: %v", op.Kind, err)
	p = p.fail(nil, now, jitter)
	h.Past[op.key()] = p
	return h
}

// Done takes note of an operation that succeeded. id is the container it
// made, for Create.
func (h History) Done(op Op, id string) History {
	h = h.clone()
	p := h.Past[op.key()]
	switch op.Kind {
	case CreateNetwork, CreateVolume:
		delete(h.Past, op.key())
		return h
	case Create:
		p.Container, p.Finished, p.Inherit = id, time.Time{}, nil
		p.Ended, p.NotBefore = endNone, time.Time{}
	case Remove:
		p.Container = ""
	case Start, RestartOp:
		p.Ended = endNone
		if op.Counts {
			p.Restarts++
		}
	}
	h.Past[op.key()] = p
	return h
}
