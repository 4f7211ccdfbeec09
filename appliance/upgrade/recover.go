// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
)

// cancelled begins Trial.Failed of a trial that is taken back before it was
// started, through no fault of the release.
const cancelled = "cancelled: "

// Recover looks at what is and mends it, at each start of the daemon, before
// anything of the stack is started. It is the first call. An error means that
// nothing may be started.
func (m *Machine) Recover(ctx context.Context) (Start, error) {
	h := m.loadHistory()
	m.mu.Lock()
	m.history = h
	m.mu.Unlock()
	m.loadKnown()
	m.setRequest(m.loadRequest())
	for range 3 {
		if s, err := m.mend(ctx); !errors.Is(err, ErrChanged) {
			return s, err
		}
	}
	return m.mend(ctx)
}

// mend observes, decides and acts.
func (m *Machine) mend(ctx context.Context) (Start, error) {
	rec, err := m.record()
	if err != nil {
		return Start{}, err
	}
	v := View{Record: rec, BootID: m.c.Box.BootID()}
	if v.Root, err = m.c.Box.Root(); err != nil {
		return Start{}, err
	}
	if v.Mounted, err = m.c.Box.MountedData(ctx); err != nil {
		return Start{}, err
	}
	espErr := error(nil)
	_, _, foreign := slot.Choose(rec, v.Root)
	if rec.Trial != nil || foreign != nil {
		v.Entries, espErr = m.c.Box.Entries(ctx)
	}
	if espErr != nil && rec.Trial != nil && rec.Trial.Reboot && foreign == nil && v.Root.Hash == rec.Committed.RootHash && v.Root.Letter == rec.Committed.Slot {
		// The committed generation runs, and what became of the trial can't be
		// seen now: it goes on serving, and the question stays open.
		m.unsettle(fmt.Errorf("the ESP: %w", espErr))
		m.setDue(false, true)
		return Start{Generation: rec.Committed}, nil
	}
	d := Decide(v)
	if d.Act != ActRun {
		m.say("upgrade: %s %s", d.Act, d.Why)
	}
	s, err := m.act(ctx, d, v)
	m.c.Changed()
	return s, err
}

func (m *Machine) setDue(settle, mend bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settleDue, m.mendDue = settle, mend
}

func (m *Machine) unsettle(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unsettled = ""
	if err != nil {
		m.unsettled = err.Error()
	}
}

func (m *Machine) act(ctx context.Context, d Decision, v View) (Start, error) {
	rec, box := v.Record, m.c.Box
	t := rec.Trial
	switch d.Act {
	case ActRun:
		if err := m.settleRequest(rec); err != nil {
			m.say("upgrade: %v", err) // settleAll does it again
		}
		// What the next boot needs, and what users wait for; the rest is Run's.
		err := errors.Join(m.settleESP(ctx, rec), box.OpenIngress(ctx))
		m.unsettle(err)
		m.setDue(true, false)
		return Start{Generation: rec.Committed}, nil
	case ActGate:
		if r := m.request(); r != nil && r.addBoot(v.BootID) {
			if err := m.keepRequest(r); err != nil {
				m.say("upgrade: %v", err)
			}
		}
		m.show("trial", "starting the services of "+t.Release)
		// Closed at boot, or when it was switched; once more costs nothing.
		return Start{Generation: t.Generation, Trial: true}, box.CloseIngress(ctx)
	case ActReboot:
		if err := m.toTrial(ctx, rec); err != nil {
			return m.takeBack(ctx, rec, err)
		}
		return Start{Rebooting: true}, nil
	case ActSwitch:
		err := box.CloseIngress(ctx)
		if err == nil {
			err = box.StopStack(ctx)
		}
		if err == nil {
			err = m.switchData(ctx, t.Boot != v.BootID)
		}
		if err != nil {
			return m.takeBack(ctx, rec, err)
		}
		return Start{Generation: t.Generation, Trial: true}, nil
	case ActBack:
		return m.goBack(ctx, d, v)
	case ActOver:
		return m.serve(ctx, rec, m.over(ctx, rec, d))
	case ActAgain:
		// The record first: a daemon that is started anew in this boot goes on.
		next, was := *t, rec
		next.ArmedBoot = v.BootID
		rec.Trial = &next
		if err := m.save(was, rec); err != nil {
			return Start{}, err
		}
		if err := m.toTrial(ctx, rec); err != nil {
			return m.takeBack(ctx, rec, err)
		}
		return Start{Rebooting: true}, nil
	case ActBless:
		if err := box.Bless(ctx, uki(rec.Committed)); err != nil {
			return Start{}, err
		}
		m.begunReboot(ctx, "the committed system is booted")
		return Start{Rebooting: true}, nil
	}
	return Start{Hold: &status.Condition{Code: CondForeign, Severity: "critical", Text: d.Why,
		Remedy: "reboot, and choose the committed system if the firmware lets you; else install the release anew from its disk image with the data on a data disk"}}, nil
}

// toTrial boots a trial that is armed.
func (m *Machine) toTrial(ctx context.Context, rec slot.Record) error {
	for _, s := range from(Plan(m.course(rec.Trial.Kind, true, rec)), DoPlace) {
		if s.Do == DoGate {
			break
		}
		if err := m.do(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// takeBack gives up a trial that could not be started, and serves on with what
// is committed.
func (m *Machine) takeBack(ctx context.Context, rec slot.Record, cause error) (Start, error) {
	if ctx.Err() != nil {
		return Start{}, ctx.Err()
	}
	if err := m.undo(ctx, Cancelled, cause.Error(), nil); err != nil {
		return Start{}, err
	}
	return Start{Generation: rec.Committed}, nil
}

// goBack leaves a trial that has failed and runs.
func (m *Machine) goBack(ctx context.Context, d Decision, v View) (Start, error) {
	rec, box := v.Record, m.c.Box
	t := rec.Trial
	if t.Reboot {
		if e, there := entry(v.Entries, t.Number); there && (!e.Spent() || t.Boot != v.BootID) {
			// Its image would boot again.
			if err := box.RemoveEntry(ctx, e); err != nil {
				return Start{}, err
			}
		}
		m.begunReboot(ctx, "the trial is over: "+t.Failed)
		return Start{Rebooting: true}, nil
	}
	if err := m.leave(ctx, rec); err != nil {
		return Start{}, err
	}
	end := over(t, t.Failed)
	if t.Kind == slot.Drill && t.Failed == drillPassed {
		end = Decision{Act: ActOver, Result: Passed}
	}
	return m.serve(ctx, rec, m.over(ctx, rec, end))
}

// serve lets the committed generation serve, also where what is left of a trial
// could not be cleared away: that is tried again.
func (m *Machine) serve(ctx context.Context, rec slot.Record, err error) (Start, error) {
	if ctx.Err() != nil || errors.Is(err, ErrChanged) {
		return Start{}, errors.Join(err, ctx.Err())
	}
	if err = errors.Join(err, m.c.Box.OpenIngress(ctx)); err != nil {
		m.say("upgrade: %v", err)
		m.unsettle(err)
		m.setDue(false, true)
	}
	return Start{Generation: rec.Committed}, nil
}
