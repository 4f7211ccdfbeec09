// SPDX-License-Identifier: Apache-2.0

package mend

import (
	"fmt"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

const (
	// hangsAt failed questions in a row make a hang: with the usual times
	// half a minute to a minute. A machine that is short of everything may
	// well leave one unanswered.
	hangsAt = 3
	// settled is how long a unit must have been active to be called hung:
	// an engine with many containers answers late after its start.
	settled = 30 * time.Second
	// firstPause and longestPause bound the time between two restarts.
	firstPause   = time.Minute
	longestPause = 16 * time.Minute
	// forgetAfter answers all that long, the restarts are forgotten.
	forgetAfter = 10 * time.Minute
	// tellFor is how long a restart that helped is told of.
	tellFor = time.Hour
)

// look is one round of questions.
type look struct {
	// ping and runtime are nil for an answer.
	ping, runtime error
	// units is true where the states are known.
	units              bool
	docker, containerd State
}

// memory is what is known over several looks. Pure: its methods return a
// changed copy.
type memory struct {
	// pings and runtimes count unanswered questions in a row; since is when
	// the first was.
	pings, runtimes int
	since           time.Time
	// restarts since the engine last answered for forgetAfter; notBefore is
	// when the next may be.
	restarts  int
	notBefore time.Time
	lastUnit  string
	lastAt    time.Time
	lastErr   string
	well      time.Time
}

type act int

const (
	nothing act = iota
	trace
	restart
)

type decision struct {
	act  act
	unit string
	why  string
}

// decide takes a look and says what to do.
func (m memory) decide(l look, now time.Time) (memory, decision) {
	if l.ping == nil && l.runtime == nil {
		m.pings, m.runtimes, m.since = 0, 0, time.Time{}
		if m.well.IsZero() {
			m.well = now
		}
		if now.Sub(m.well) >= forgetAfter {
			m.restarts, m.notBefore = 0, time.Time{}
		}
		return m, decision{}
	}
	m.well = time.Time{}
	if m.since.IsZero() {
		m.since = now
	}
	var n int
	unit, state := Docker, l.docker
	if l.ping != nil {
		m.pings, m.runtimes = m.pings+1, 0
		n = m.pings
	} else {
		m.pings, m.runtimes = 0, m.runtimes+1
		unit, state, n = Containerd, l.containerd, m.runtimes
		// The engine lost its containerd and a restart of that did not help.
		if m.lastUnit == Containerd && m.restarts > 0 && n > 2*hangsAt {
			unit = Docker
		}
	}
	if !l.units {
		return m, decision{}
	}
	switch {
	case state.Active == "failed":
		// systemd gave up on it; the throttle is ours.
	case state.Active == "active" && state.Since >= settled:
		if n == hangsAt-1 {
			return m, decision{act: trace, unit: unit}
		}
		if n < hangsAt {
			return m, decision{}
		}
	default:
		// Starting, stopping, stopped by somebody, or not there.
		return m, decision{}
	}
	if now.Before(m.notBefore) {
		return m, decision{}
	}
	why := fmt.Sprintf("%s has not answered for %s: restarting it", unit, now.Sub(m.since).Round(time.Second))
	if state.Active == "failed" {
		why = unit + " failed and systemd gave up: starting it"
	}
	return m, decision{act: restart, unit: unit, why: why}
}

// done takes note of an act.
func (m memory) done(d decision, err error, now time.Time) memory {
	if d.act != restart {
		return m
	}
	pause := firstPause << min(m.restarts, 4)
	m.restarts++
	m.notBefore = now.Add(min(pause, longestPause))
	m.lastUnit, m.lastAt, m.lastErr = d.unit, now, ""
	if err != nil {
		m.lastErr = err.Error()
	}
	m.pings, m.runtimes = 0, 0
	if d.unit == Containerd && err == nil {
		m.runtimes = hangsAt // so that a second round without an answer takes docker
	}
	return m
}

// conditions says what needs attention.
func (m memory) conditions(l look, now time.Time) []status.Condition {
	var out []status.Condition
	what, unit := "the Docker engine", "docker"
	if l.ping == nil && l.runtime != nil {
		what, unit = "the containerd of the Docker engine", "containerd"
	}
	switch {
	case l.ping == nil && l.runtime == nil:
	case l.units && l.docker.Active == "inactive" && l.ping != nil:
		out = append(out, status.Condition{Code: "engine-stopped", Severity: "critical",
			Text: "the Docker engine was stopped, and stays so until somebody starts it", Remedy: "systemctl start docker"})
	case m.pings >= hangsAt || m.runtimes >= hangsAt || m.restarts > 0:
		c := status.Condition{Code: "engine-hung", Severity: "critical",
			Text: what + " does not answer since " + m.since.UTC().Format(time.RFC3339), Remedy: "journalctl -u " + unit}
		switch {
		case !l.units:
			c.Text += "; there is no systemd that could restart it"
			c.Remedy = "restart the Docker engine"
		case m.restarts > 0:
			c.Text += fmt.Sprintf("; restarted %s, the next time not before %s", times(m.restarts), m.notBefore.UTC().Format(time.RFC3339))
		}
		if m.lastErr != "" {
			c.Text += "; the last restart failed: " + m.lastErr
		}
		return append(out, c)
	}
	if !m.lastAt.IsZero() && now.Sub(m.lastAt) < tellFor {
		out = append(out, status.Condition{Code: "engine-restarted", Severity: "warning",
			Text:   m.lastUnit + " did not answer and was restarted at " + m.lastAt.UTC().Format(time.RFC3339),
			Remedy: "journalctl -u docker -u containerd says what it did before; the condition goes after an hour"})
	}
	return out
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
