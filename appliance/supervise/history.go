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
	// ShedChange is when a service was shed or brought back last.
	ShedChange time.Time `json:"shed_change,omitzero"`
	// Past by service name, and by "network NAME", "volume NAME", "name of
	// NAME" and "limits of NAME" for operations that failed.
	Past map[string]Past `json:"past"`

	// heal is the throttle's state. A new daemon starts with a full one.
	heal bucket
}

// How a service's container ended, and what follows.
const (
	endNone   = ""        // it may start at once
	endRetry  = "retry"   // it failed; it starts again at NotBefore
	endGaveUp = "gave-up" // its policy allows no further start
	endDone   = "done"    // it ended by itself, well
	endByHand = "by-hand" // somebody stopped it and the policy respects that
)

// Causes of a restart, as status counts them.
const (
	causeExit       = "exit"
	causeOOM        = "oom"
	causeUnhealthy  = "unhealthy"
	causeChanged    = "changed"
	causeDependency = "dependency"
	causeDrift      = "drift"
	causeRequest    = "request"
	causePressure   = "pressure"
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
	// Failures in a row, since FailingSince; Attempts are the restarts that
	// count for max_attempts.
	Failures     int       `json:"failures,omitempty"`
	FailingSince time.Time `json:"failing_since,omitzero"`
	Attempts     int       `json:"attempts,omitempty"`
	NotBefore    time.Time `json:"not_before,omitzero"`
	// Restarts in total and by cause; Cause is that of the next start.
	Restarts   int            `json:"restarts,omitempty"`
	RestartsBy map[string]int `json:"restarts_by,omitempty"`
	Cause      string         `json:"cause,omitempty"`
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
	// Removing is the container that we were about to remove, Ending the one
	// whose end is our doing and no failure.
	Removing string `json:"removing,omitempty"`
	Ending   string `json:"ending,omitempty"`
	// PostStart is the container whose post_start hooks have yet to run.
	PostStart string `json:"post_start,omitempty"`
	// Deps maps what it depends on to the Started it had when the service was
	// started last: times alone would mislead after the clock was set back.
	Deps map[string]time.Time `json:"deps,omitempty"`
	// Limits of Container as it was made; what differs was changed by hand.
	Limits *engine.Limits `json:"limits,omitempty"`
	// Broken is a container that cannot start any more because something it
	// was made with, such as a network, was removed.
	Broken string `json:"broken,omitempty"`
	// Odd is what is not as the stack says right now.
	Odd string `json:"odd,omitempty"`
	// Drift is what somebody did behind our back last, and was mended.
	Drift *Drift `json:"drift,omitempty"`
	// Stopped is when an admin asked for a stop, zero where he did not; Asked
	// when he asked for a restart that has not happened yet.
	Stopped time.Time `json:"stopped,omitzero"`
	Asked   time.Time `json:"asked,omitzero"`
	// Shed is set while the service is stopped under pressure.
	Shed *Shed `json:"shed,omitempty"`
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

// count adds one restart.
func (p Past) count(cause string) Past {
	by := maps.Clone(p.RestartsBy)
	if by == nil {
		by = map[string]int{}
	}
	by[cause]++
	p.Restarts, p.RestartsBy, p.Cause = p.Restarts+1, by, ""
	return p
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
// health, recoveries, drift, pressure. It is pure; jitter returns a number in
// [0,1).
func Advance(d *Desired, o Observed, h History, now time.Time, jitter func() float64) (History, []Note) {
	h = h.clone()
	fresh := o.Fresh || h.Boot != o.Boot
	if h.Boot != o.Boot {
		h = h.reboot()
	}
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
	h, shed := h.shed(d, o, now)
	return h, append(notes, shed...)
}

// reboot forgets what ended with the last boot.
func (h History) reboot() History {
	for name, p := range h.Past {
		p.Shed, p.PostStart, p.Ending = nil, "", ""
		h.Past[name] = p
	}
	return h
}

func (p Past) advance(s *Service, generation int, c *engine.Container, o Observed, fresh bool, now time.Time, jitter func() float64) (Past, string) {
	if fresh {
		p.Cause = "" // what starts now starts with the box or the engine
		if !p.completed(s, generation) {
			p.Ended, p.NotBefore = endNone, time.Time{}
		}
	}
	if c == nil {
		return p.gone(fresh, now)
	}
	note := ""
	known := p.Container == c.ID
	if !known {
		note = "adopted, " + c.State
		p.Container, p.Limits = c.ID, nil
		// What became of another container says nothing about this one.
		p.Ended, p.NotBefore = endNone, time.Time{}
	}
	if !p.Asked.IsZero() && c.Started.After(p.Asked) {
		p.Asked = time.Time{} // the restart that was asked for has happened
	}
	p, changed := p.drifted(s, c, now)
	note = join(note, changed)
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

// Failed takes note of an operation that the engine refused.
func (h History) Failed(op Op, err error, now time.Time, jitter func() float64) History {
	h = h.clone()
	p := h.Past[op.key()]
	p.Why = fmt.Sprintf("%s failed: %v", op.Kind, err)
	p = p.fail(nil, now, jitter)
	if op.Kind == Start || op.Kind == RestartOp || op.Kind == PostStart {
		// The end of what was half started is no failure of its own.
		p.Ending, p.PostStart = op.Container, ""
	}
	h.Past[op.key()] = p
	return h
}

// Done takes note of an operation that succeeded. id is the container it
// made, for Create.
func (h History) Done(op Op, id string) History {
	h = h.clone()
	p := h.Past[op.key()]
	switch op.Kind {
	case CreateNetwork, CreateVolume, Rename, Update:
		delete(h.Past, op.key())
		return h
	case Create:
		p.Container, p.Finished, p.Inherit, p.Removing, p.Limits = id, time.Time{}, nil, "", nil
		p.Ended, p.NotBefore = endNone, time.Time{}
	case Remove:
		if p.Container == op.Container {
			p.Container = ""
		}
	case Stop:
		if p.Container == op.Container {
			p.Ending = op.Container
		}
	case Start, RestartOp:
		p.Ended, p.Asked, p.PostStart, p.Ending = endNone, time.Time{}, "", ""
		if op.Cause != "" {
			p = p.count(op.Cause)
		}
	case PostStart:
		p.PostStart = ""
	}
	if op.Kind == Stop && op.Cause != "" {
		p.Cause = op.Cause
	}
	h.Past[op.key()] = p
	return h
}
