// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
)

const (
	// defaultCheck is how often the source is asked.
	defaultCheck = 6 * time.Hour
	// leastCheck keeps a configuration from asking all the time.
	leastCheck = time.Minute
)

// known is what is remembered of the source over restarts. Lost, it is asked
// anew.
type known struct {
	// Checked is when the source last answered, Asked when it was last asked.
	Checked time.Time `json:"checked,omitzero"`
	Asked   time.Time `json:"asked,omitzero"`
	// Available is the newest release that may be installed, "NAME VERSION".
	Available string `json:"available,omitempty"`
	// Expires is when its metadata do.
	Expires time.Time `json:"expires,omitzero"`
	// Unreachable and Untrusted are what went wrong the last time, "" if
	// nothing.
	Unreachable string `json:"unreachable,omitempty"`
	Untrusted   string `json:"untrusted,omitempty"`
	// Drilled is when a drill was last begun.
	Drilled time.Time `json:"drilled,omitzero"`
}

func (m *Machine) loadKnown() {
	var k known
	if _, err := readJSON(m.c.Files, stateFile, &k); err != nil {
		m.say("what was known of the source of updates is forgotten: %v", err)
		k = known{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known = k
}

// learn changes and keeps it; that it can't be kept costs another question.
func (m *Machine) learn(change func(*known)) {
	m.mu.Lock()
	change(&m.known)
	k := m.known
	m.mu.Unlock()
	if err := writeJSON(m.c.Files, stateFile, k); err != nil {
		m.say("what is known of the source of updates could not be kept: %v", err)
	}
	m.c.Changed()
}

// dueCheck is when the source is to be asked next by itself: every box has its
// own moment within the time between two questions, so that a fleet that was
// started together, or was cut off together, does not ask together. It is pure.
func dueCheck(k known, s Settings, machineID string, booted time.Time) time.Time {
	every := s.CheckEvery
	if every <= 0 {
		every = defaultCheck
	}
	every = max(every, leastCheck)
	last := k.Asked
	if last.IsZero() {
		return booted.Add(spread(machineID, "first check", min(every, 10*time.Minute)))
	}
	// The spread is within the last quarter: between 0.75 and 1 of the time.
	return last.Add(every*3/4 + spread(machineID, last.UTC().Format(time.RFC3339Nano), every/4))
}

// auto does what is due by itself, and says when it wants to be asked again.
func (m *Machine) auto(ctx context.Context, rec slot.Record) time.Time {
	set := m.c.Box.Settings()
	now := m.c.Now()
	m.mu.Lock()
	k := m.known
	m.mu.Unlock()
	next := now.Add(24 * time.Hour)
	if set.Source != "" {
		due := dueCheck(k, set, m.c.Box.MachineID(), now.Add(-m.c.Box.Uptime()))
		if !due.After(now) {
			m.autoCheck(ctx, set)
			return m.c.Now() // something may have begun
		}
		next = due
	}
	if set.DrillEvery > 0 && rec.Kept != nil {
		due := k.Drilled.Add(set.DrillEvery)
		open, opens := openAt(set.Windows, now, set.Zone)
		switch {
		case due.After(now):
		case open:
			m.learn(func(k *known) { k.Drilled = now })
			if _, err := m.Drill(ctx, ""); err != nil {
				m.say("the drill that was due is not done: %v", err)
			}
			return m.c.Now()
		default:
			due = opens
		}
		if due.Before(next) {
			next = due
		}
	}
	return next
}

// autoCheck asks the source, and begins an upgrade where that is wanted.
func (m *Machine) autoCheck(ctx context.Context, set Settings) {
	m.edit(func(u *status.Upgrade) { u.State = "checking" })
	defer m.edit(func(u *status.Upgrade) {
		if u.State == "checking" {
			u.State = "idle"
		}
	})
	// Before the question: one that never returns must not be asked at once
	// again by the next run.
	m.learn(func(k *known) { k.Asked = m.c.Now() })
	a := Ask{Auto: true}
	if len(set.Windows) > 0 {
		a.At = inSettings
	}
	var err error
	if set.Auto {
		_, err = m.Upgrade(ctx, a)
	} else {
		_, err = m.Check(ctx, a)
	}
	var no *Refused
	var out *Unreachable
	if err != nil && ctx.Err() == nil && !errors.As(err, &out) && !(errors.As(err, &no) && no.Code == CodeTrust) {
		m.say("no upgrade by itself: %v", err)
	}
}
