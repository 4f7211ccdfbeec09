// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/compose/depot"
)

const (
	// orderly is how long an orderly reboot may take before it is forced.
	orderly = 4 * time.Minute
	// again is after how long what follows a commit is tried again.
	again = time.Minute
	// firstRetry and longestRetry bound the time between two tries to fetch;
	// mostRetries of them are made, about a day.
	firstRetry   = 30 * time.Second
	longestRetry = 30 * time.Minute
	mostRetries  = 50
)

// waits is what a step says that has to wait; zero until something is asked.
type waits struct{ until time.Time }

func (waits) Error() string { return "it waits" }

// Run gates a trial that runs, goes on with what was asked for, and does what
// is due by itself, until ctx ends. Recover must have returned.
func (m *Machine) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		next := m.turn(ctx)
		wait := max(next.Sub(m.c.Now()), 0)
		if wait == 0 {
			continue
		}
		t := time.NewTimer(wait)
		changed := m.changes()
		select {
		case <-ctx.Done():
		case <-m.kick:
		case <-changed:
		case <-t.C:
		}
		t.Stop()
	}
	return ctx.Err()
}

// changes is closed with the next report, where the next report matters.
func (m *Machine) changes() <-chan struct{} {
	if m.restored == 0 {
		return nil
	}
	_, c := m.c.Box.Report()
	return c
}

// turn does what can be done now, and says when to look again.
func (m *Machine) turn(ctx context.Context) time.Time {
	now := m.c.Now()
	if m.rebooting != "" {
		// Also while the shutdown goes on: that is what may hang.
		m.pressReboot(ctx)
		return now.Add(again)
	}
	if m.isStopped() {
		return now.Add(time.Hour)
	}
	rec, err := m.record()
	if err != nil {
		m.unsettle(err)
		m.c.Changed()
		return now.Add(again)
	}
	m.mu.Lock()
	settle, mend := m.settleDue, m.mendDue
	m.mu.Unlock()
	if t := rec.Trial; t != nil && !mend {
		if m.trialRuns(rec) {
			if err := m.trial(ctx, rec); err != nil && ctx.Err() == nil {
				m.unsettle(err)
				m.say("upgrade: %v", err)
				m.c.Changed()
				return m.c.Now().Add(again)
			}
			return m.c.Now()
		}
		// Something between the steps went wrong: decide as at a start.
		mend = true
	}
	if mend {
		m.setDue(false, false)
		s, err := m.mend(ctx)
		if err == nil && s.Hold == nil && !s.Rebooting {
			// Nobody else starts it here; what runs already goes on.
			err = m.c.Box.StartStack(ctx, s.Generation, s.Trial)
		}
		if err != nil {
			m.unsettle(err)
			m.setDue(settle, true)
		}
		if rec, err := m.record(); m.isDue() || err != nil || rec.Trial != nil && !m.trialRuns(rec) && m.rebooting == "" {
			return now.Add(again)
		}
		return now
	}
	if settle {
		if err := m.settleAll(ctx, rec); err != nil && ctx.Err() == nil {
			m.say("upgrade: what follows a commit: %v", err)
			return m.c.Now().Add(again)
		}
	}
	m.measureBack()
	if r := m.request(); r != nil && !m.rests(r) {
		if wait := m.retryAt; wait.After(m.c.Now()) {
			return wait
		}
		next, err := m.forward(ctx, rec, r)
		if err != nil {
			return m.stumbled(ctx, r, err)
		}
		m.retries, m.retryAt = 0, time.Time{}
		return next
	} else if r != nil {
		m.show("ready", "all is on the box; holdfast upgrade switches to it")
		return now.Add(24 * time.Hour)
	}
	m.idle()
	return m.auto(ctx, rec)
}

// trialRuns says whether this boot runs a trial that is not decided. One that
// was booted and did not get its data is not of this boot by the record, and
// runs all the same.
func (m *Machine) trialRuns(rec slot.Record) bool {
	t := rec.Trial
	if t == nil || t.Failed != "" {
		return false
	}
	root, err := m.c.Box.Root()
	return t.Boot == m.c.Box.BootID() || t.Reboot && err == nil && root.Hash == t.RootHash && root.Letter == t.Slot
}

func (m *Machine) isDue() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mendDue
}

func (m *Machine) isStopped() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stopped
}

// rests says whether a request waits for an admin.
func (m *Machine) rests(r *request) bool { return r.Ask.DownloadOnly && r.Ready }

func (m *Machine) idle() {
	m.mu.Lock()
	is := m.live.State == "idle"
	m.mu.Unlock()
	if !is {
		m.edit(func(u *status.Upgrade) { *u = status.Upgrade{State: "idle"} })
	}
}

// show says what is being done.
func (m *Machine) show(state, step string) {
	m.edit(func(u *status.Upgrade) {
		*u = status.Upgrade{State: state, Step: step}
	})
}

// course is what the plan of a request or an armed trial depends on.
func (m *Machine) course(kind string, reboot bool, rec slot.Record) Course {
	c := Course{Kind: kind, Reboot: reboot, From: rec.Committed.Release, Slot: other(rec.Committed.Slot)}
	if r := m.request(); r != nil {
		c.From, c.To, c.KeepData = r.From, r.To, r.Back.KeepData
		for i, w := range r.Windows {
			if i > 0 {
				c.Window += ", "
			}
			c.Window += w.String()
		}
	} else if rec.Trial != nil {
		c.To = rec.Trial.Release
	}
	return c
}

// forward goes on with a request until its trial runs, the box reboots, or it
// has to wait.
func (m *Machine) forward(ctx context.Context, rec slot.Record, r *request) (time.Time, error) {
	c := m.course(r.Kind, r.Reboot, rec)
	if r.Kind == slot.Upgrade {
		// As things are now: the request may have waited for long.
		room, err := m.c.Box.Room(ctx)
		if err != nil {
			return time.Time{}, err
		}
		c.Reboot = !stackOnly(rec, r.Candidate.Description)
		if !r.Ready {
			c.GiveUp = givesUp(*r.Candidate, rec, room)
		}
	}
	steps := Plan(c)
	if r.Ready {
		steps = after(steps, DoPrepare)
	}
	for _, s := range steps {
		if s.Do == DoGate {
			break
		}
		if r := m.request(); s.Do == DoWindow && r != nil && m.rests(r) {
			return m.c.Now(), nil
		}
		m.say("upgrade: %s", s)
		err := m.do(ctx, s)
		var w waits
		switch {
		case errors.As(err, &w):
			return w.until, nil
		case err != nil && ctx.Err() != nil:
			return time.Time{}, ctx.Err()
		case err != nil:
			return time.Time{}, fmt.Errorf("%s: %w", s, err)
		}
		if r := m.request(); s.Do == DoPrepare && r != nil && m.rests(r) {
			return m.c.Now(), nil
		}
	}
	return m.c.Now(), nil
}

// stumbled decides what becomes of a request that could not go on.
func (m *Machine) stumbled(ctx context.Context, r *request, err error) time.Time {
	now := m.c.Now()
	if ctx.Err() != nil {
		return now
	}
	if cur := m.request(); cur == nil || cur.Kind != r.Kind || !cur.Start.Equal(r.Start) {
		return now // it was cancelled, or another took its place
	}
	if errors.Is(err, ErrChanged) {
		return now // decided anew, with what is there now
	}
	rec, rerr := m.record()
	if rerr == nil && rec.Trial != nil {
		if uerr := m.undo(ctx, Cancelled, err.Error(), nil); uerr != nil {
			m.unsettle(uerr)
			m.setDue(false, true)
			return now.Add(again)
		}
		return now
	}
	var far *Unreachable
	var transient *depot.Transient
	if (errors.As(err, &far) || errors.As(err, &transient)) && m.retries < mostRetries {
		wait := min(firstRetry<<min(m.retries, 10), longestRetry)
		m.retries++
		m.retryAt = now.Add(wait)
		m.say("upgrade: %v; trying again in %s", err, wait)
		m.show("fetching", fmt.Sprintf("waiting %s to try again: %v", wait, err))
		return m.retryAt
	}
	m.retries, m.retryAt = 0, time.Time{}
	m.say("upgrade: given up: %v", err)
	row := rowOf(r)
	row.Result, row.Why, row.End = Cancelled, err.Error(), now.UTC()
	if ferr := m.finish(row); ferr != nil {
		m.unsettle(ferr)
		return now.Add(again)
	}
	m.setDue(true, false)
	return now
}

// begunReboot asks for an orderly reboot; from then on nothing else is done.
func (m *Machine) begunReboot(ctx context.Context, why string) {
	m.rebooting = why
	m.show("switching", "rebooting: "+why)
	if err := m.c.Box.Reboot(ctx, why, false); err != nil {
		m.say("upgrade: the reboot: %v", err)
	}
}

// pressReboot waits for the reboot that was begun, and forces it when it
// takes too long: services that hang must not keep a failed trial running.
func (m *Machine) pressReboot(ctx context.Context) {
	t := time.NewTimer(orderly)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return
	case <-t.C:
	}
	if err := m.c.Box.Reboot(ctx, m.rebooting, true); err != nil {
		m.say("upgrade: the forced reboot: %v", err)
	}
}
