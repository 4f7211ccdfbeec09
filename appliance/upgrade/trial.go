// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
)

// errStopped ends the watch over a trial at an orderly shutdown.
var errStopped = errors.New("an orderly shutdown has begun")

// trial watches the trial that runs until it is decided, and does what follows.
func (m *Machine) trial(ctx context.Context, rec slot.Record) error {
	t := *rec.Trial
	m.show("trial", "watching the services of "+t.Release)
	m.say("upgrade: the trial of generation %d (%s) is watched for %s, at the latest until %s after the start", t.Number, t.Release, windowOf(&t), deadlineOf(&t))
	v, err := m.watch(ctx, t)
	if err != nil {
		if errors.Is(err, errStopped) {
			return nil
		}
		return err
	}
	switch {
	case v.Failed:
		m.say("upgrade: the trial has failed: %s", v.Why)
		m.show("rolling-back", v.Why)
		return m.undo(ctx, RolledBack, v.Why, m.gather(ctx, v))
	case t.Kind == slot.Drill:
		m.show("rolling-back", "the drill has passed")
		return m.undo(ctx, Passed, drillPassed, nil)
	}
	m.show("committing", "committing "+t.Release)
	return m.commit(ctx)
}

// watch asks the gate with each report.
func (m *Machine) watch(ctx context.Context, t slot.Trial) (Verdict, error) {
	box := m.c.Box
	g := Gate{Window: windowOf(&t), Deadline: deadlineOf(&t), Generation: t.Number, Patient: t.Kind == slot.Rollback}
	if r := m.request(); r != nil && r.Number == t.Number {
		g.Baseline = r.Baseline
	}
	told, late := "", false
	for {
		rep, changed := box.Report()
		at := box.Uptime()
		v := g.Look(Reading{At: at, Report: rep, Latency: box.Latency()})
		m.mu.Lock()
		m.why = v
		stopped, abandoned := m.stopped, m.abandoned == t.Number
		m.mu.Unlock()
		if stopped {
			return v, errStopped
		}
		if abandoned {
			return Verdict{Failed: true, Why: "an admin gave it up: " + orWord(v.Why, "all services were healthy"), Service: v.Service}, nil
		}
		if v.Healthy {
			m.noteHealthy(t)
		}
		if state := orWord(v.Why, "all services are healthy, watching that they stay so"); state != told || v.Late != late {
			told, late = state, v.Late
			m.edit(func(u *status.Upgrade) {
				u.State, u.Step = "trial", state
				if v.Late {
					u.State = "held"
				}
			})
		}
		if v.Passed || v.Failed {
			return v, nil
		}
		timer := time.NewTimer(max(v.Next-at, 10*time.Millisecond))
		select {
		case <-ctx.Done():
		case <-m.kick:
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return v, ctx.Err()
		}
	}
}

// noteHealthy notes when the services of a trial were healthy first.
func (m *Machine) noteHealthy(t slot.Trial) {
	if r := m.request(); r != nil && r.Number == t.Number && r.Healthy.IsZero() {
		r.Healthy = m.c.Now().UTC()
		if err := m.keepRequest(r); err != nil {
			m.say("upgrade: %v", err)
		}
	}
}

// commit makes the trial the committed generation: one write of the record.
func (m *Machine) commit(ctx context.Context) error {
	rec, err := m.committing()
	if err != nil {
		if errors.Is(err, errStopped) {
			return nil
		}
		return err
	}
	m.say("upgrade: generation %d (%s) is committed", rec.Committed.Number, rec.Committed.Release)
	m.startDue = true // those that waited for the commit
	m.setDue(true, false)
	return m.settleAll(ctx, rec)
}

func (m *Machine) committing() (slot.Record, error) {
	m.recording.Lock()
	defer m.recording.Unlock()
	rec, err := m.record()
	if err != nil {
		return rec, err
	}
	if m.isStopped() || rec.Trial == nil || rec.Trial.Again {
		return rec, errStopped
	}
	was, old, t := rec, rec.Committed, *rec.Trial
	rec.Last = max(rec.Last, rec.Next()-1)
	kept := rec.Kept
	rec.Committed, rec.Kept, rec.Trial = t.Generation, &old, nil
	if r := m.request(); r != nil && r.Number == t.Number && r.Candidate != nil {
		if r.Ask.Keep && kept != nil {
			rec.Kept = kept
		}
		rec.Epoch = max(rec.Epoch, r.Candidate.Epoch, r.Candidate.Description.Epoch)
	}
	if d, err := m.c.Box.Running(); err == nil && t.Kind == slot.Upgrade {
		rec.Epoch = max(rec.Epoch, d.Epoch)
	}
	// It was forced, and has proved itself.
	rec.Quarantined = slices.DeleteFunc(slices.Clone(rec.Quarantined), func(d string) bool { return d == t.Digest && d != "" })
	if err := m.save(was, rec); err != nil {
		return rec, err
	}
	// Once more, so that both copies say so before a user's first write: were
	// the newer one to rot, the older one would start the trial over.
	return rec, m.save(rec, rec)
}

// gather is the evidence of a failing condition.
func (m *Machine) gather(ctx context.Context, v Verdict) []status.Evidence {
	list := []status.Evidence{{What: "failing condition", Lines: []string{v.Why}}}
	if v.Service != "" {
		list = append(list, m.c.Box.Evidence(ctx, v.Service)...)
	}
	return list
}

// kept evidence, of one trial.
type evidence struct {
	Number int               `json:"number"`
	List   []status.Evidence `json:"list"`
}

// undo ends a trial that runs, or was about to: it failed, it could not be
// started, or it was a drill that passed. Where a boot is needed for the way
// back, the rest is done after it.
func (m *Machine) undo(ctx context.Context, result, why string, list []status.Evidence) error {
	rec, err := m.failing(result, why, list)
	if err != nil {
		if errors.Is(err, errStopped) {
			return nil
		}
		return err
	}
	t := rec.Trial
	root, err := m.c.Box.Root()
	if err != nil {
		return err
	}
	if t.Reboot && (root.Hash != rec.Committed.RootHash || root.Letter != rec.Committed.Slot) {
		// The trial's image is spent, so the next boot is the committed one.
		m.begunReboot(ctx, "the trial is over: "+t.Failed)
		return nil
	}
	// Before the old services were stopped they run still, on their data.
	r := m.request()
	stopped := r == nil || r.Number != t.Number || !r.Quiesced.IsZero() || t.Starts > 0
	if stopped {
		if err := m.leave(ctx, rec); err != nil {
			return err
		}
	}
	d := over(t, t.Failed)
	d.Result = result
	err = m.over(ctx, rec, d)
	if err != nil {
		// It is tried again. The committed generation serves in any case: its
		// data are mounted, and the record says that the trial has failed.
		m.setDue(false, true)
	}
	if stopped {
		// Before ingress: the first one who gets in finds them coming.
		m.startDue = true
		err = errors.Join(err, m.startCommitted(ctx, rec))
	}
	return errors.Join(err, m.c.Box.OpenIngress(ctx))
}

// failing writes into the record that the trial is over.
func (m *Machine) failing(result, why string, list []status.Evidence) (slot.Record, error) {
	m.recording.Lock()
	defer m.recording.Unlock()
	rec, err := m.record()
	if err != nil {
		return rec, err
	}
	if rec.Trial == nil || m.isStopped() && result != Cancelled {
		return rec, errStopped
	}
	if rec.Trial.Failed != "" {
		return rec, nil
	}
	t, was := *rec.Trial, rec
	rec.Trial = &t
	if len(list) > 0 {
		// Before the record: once that says it failed, the way back begins.
		if err := writeJSON(m.c.Files, evidenceFile, evidence{t.Number, bounded(list)}); err != nil {
			m.say("upgrade: the evidence could not be kept: %v", err)
		}
	}
	t.Failed = cut(why, 900)
	if result == Cancelled {
		t.Failed = cancelled + t.Failed
	}
	return rec, m.save(was, rec)
}

// leave goes from a trial without boot back to the committed data. Nothing is
// done where these are mounted already.
func (m *Machine) leave(ctx context.Context, rec slot.Record) error {
	if err := m.c.Box.StopStack(ctx); err != nil {
		return fmt.Errorf("the services of the trial: %w", err)
	}
	mounted, err := m.c.Box.MountedData(ctx)
	if err != nil {
		return err
	}
	if mounted == rec.Committed.Data {
		return nil
	}
	return m.c.Box.SwitchData(ctx, rec)
}

// Interrupt is for an orderly shutdown, before services are stopped: a trial
// that is not decided starts over at the next boot, from a fresh snapshot, and
// has not failed.
func (m *Machine) Interrupt(ctx context.Context) error {
	m.recording.Lock()
	defer m.recording.Unlock()
	m.mu.Lock()
	m.stopped = true
	m.mu.Unlock()
	m.wake()
	return Interrupt(ctx, m.c.Box)
}

// Interrupt is Machine.Interrupt for a shutdown without a daemon that answers.
func Interrupt(ctx context.Context, box interface {
	Records
	Facts
	Firmware
}) error {
	rec, err := box.Record()
	if err != nil {
		return err
	}
	t := rec.Trial
	if t == nil || t.Failed != "" || t.Boot != box.BootID() {
		return nil // also the shutdown that a trial was armed for
	}
	if t.Reboot {
		// The image before the record: a cut between them boots the trial
		// once more, which is what was meant. The other way round it would be
		// a trial that never came up.
		if err := box.Rearm(ctx, t.Number); err != nil {
			return fmt.Errorf("the trial of generation %d can't start over: %w", t.Number, err)
		}
	}
	over, was := *t, rec
	over.Again = true
	rec.Trial = &over
	return box.SaveRecord(was, rec)
}
