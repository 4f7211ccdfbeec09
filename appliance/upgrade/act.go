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

// do does one step. Each may be done again.
func (m *Machine) do(ctx context.Context, s Step) error {
	rec, err := m.record()
	if err != nil {
		return err
	}
	box, r := m.c.Box, m.request()
	switch s.Do {
	case DoGiveUp:
		return m.giveUp(ctx, rec, r)
	case DoPrepare:
		return m.prepare(ctx, rec, r, s.Text)
	case DoWindow:
		set := box.Settings()
		if open, next := openAt(r.Windows, m.c.Now(), set.Zone); !open {
			m.show("ready", s.Text+", which opens at "+next.Format("Mon 2006-01-02 15:04 MST"))
			return waits{next}
		}
		return nil
	case DoBaseline:
		rep, _ := box.Report()
		r.Baseline = BaselineOf(rep, box.Latency())
		return m.keepRequest(r)
	case DoArm:
		return m.arm(ctx, rec, r)
	case DoPlace:
		m.show("switching", s.Text)
		if rec.Trial.Kind == slot.Upgrade {
			return box.PlaceTrial(ctx, *rec.Trial)
		}
		return box.PlaceTrialFromKept(ctx, uki(*rec.Kept), rec.Trial.Number)
	case DoClose:
		m.show("switching", s.Text)
		return box.CloseIngress(ctx)
	case DoQuiesce:
		m.show("switching", s.Text)
		if r != nil && r.Quiesced.IsZero() {
			r.Quiesced = m.c.Now().UTC()
			if err := m.keepRequest(r); err != nil {
				return err
			}
		}
		return box.StopStack(ctx)
	case DoSwitch:
		m.show("switching", s.Text)
		return m.switchData(ctx, rec.Trial.Boot != box.BootID())
	case DoStart:
		m.show("trial", s.Text)
		return box.StartStack(ctx, rec.Trial.Generation, true)
	case DoReboot:
		m.begunReboot(ctx, fmt.Sprintf("%s: the trial of %s is booted", rec.Trial.Kind, rec.Trial.Release))
		return nil
	}
	return fmt.Errorf("step %q is not of this part of the plan", s.Do)
}

// giveUp frees the kept generation. The record goes first: what it names is
// whole, at any moment.
func (m *Machine) giveUp(ctx context.Context, rec slot.Record, r *request) error {
	if rec.Kept != nil && r.Ask.Keep {
		return &Refused{CodeKeep, "the kept generation would have to be given up by now", "upgrade without --keep"}
	}
	if rec.Kept != nil {
		was := rec
		rec.Last = max(rec.Last, rec.Kept.Number)
		rec.Kept = nil
		if err := m.save(was, rec); err != nil {
			return err
		}
	}
	return errors.Join(m.settleESP(ctx, rec), m.c.Box.SettleData(ctx, rec), m.c.Box.Free(ctx, rec, []string{r.digest()}))
}

// prepare brings everything onto the box while the old stack serves.
func (m *Machine) prepare(ctx context.Context, rec slot.Record, r *request, text string) error {
	where := ""
	if !stackOnly(rec, r.Candidate.Description) {
		where = other(rec.Committed.Slot)
		if rec.Kept != nil && rec.Kept.Slot == where {
			return errors.New("the slot holds the kept generation; nothing was written")
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	m.cancel = cancel
	gone := m.req == nil // cancelled meanwhile
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.cancel = nil
		m.mu.Unlock()
	}()
	if gone {
		return context.Canceled
	}
	m.show("fetching", text)
	var told time.Time
	got, err := m.c.Box.Prepare(ctx, *r.Candidate, where, func(p Progress) {
		// A terminal and an exporter need no more.
		if now := m.c.Now(); now.Sub(told) < 200*time.Millisecond && p.Done < p.Total {
			return
		} else {
			told = now
		}
		m.edit(func(u *status.Upgrade) {
			u.State, u.Step = "fetching", p.Step
			u.Done, u.Total, u.Reused, u.Rate, u.Left = p.Done, p.Total, p.Reused, p.Rate, p.Left
		})
	})
	if err != nil {
		return err
	}
	m.asking.Lock()
	defer m.asking.Unlock()
	if cur := m.request(); cur == nil || cur.digest() != r.digest() {
		return context.Canceled
	} else {
		r = cur
	}
	r.Ready, r.Fetched, r.Reused = true, r.Fetched+got.Fetched, got.Reused
	return m.keepRequest(r)
}

// arm writes the trial into the record.
func (m *Machine) arm(ctx context.Context, rec slot.Record, r *request) error {
	m.asking.Lock()
	defer m.asking.Unlock()
	if cur := m.request(); cur == nil || !cur.Start.Equal(r.Start) {
		return context.Canceled
	}
	if rec.Trial != nil {
		return fmt.Errorf("a trial of generation %d is armed already", rec.Trial.Number)
	}
	now := m.c.Now().UTC()
	t := slot.Trial{Kind: r.Kind, Armed: now, ArmedBoot: m.c.Box.BootID(), Origin: rec.Committed.Data, Reboot: r.Reboot}
	n := rec.Next()
	switch r.Kind {
	case slot.Upgrade:
		if err := m.stillFits(ctx, rec, *r.Candidate); err != nil {
			return err
		}
		d := r.Candidate.Description
		t.Generation = slot.Generation{Slot: rec.Committed.Slot, RootHash: d.OS.RootHash, Release: r.To, Digest: r.Candidate.Digest, Engine: d.Engine}
		t.Reboot = !stackOnly(rec, d)
		if t.Reboot {
			t.Slot = other(rec.Committed.Slot)
		}
		t.Deadline, t.Window = d.Gate.Deadline, d.Gate.Window
	default:
		to := rec.Kept
		if to == nil && r.Kind == slot.Drill {
			to = &rec.Committed
		}
		if to == nil {
			return &Refused{CodeNothingKept, "no generation is kept any more", "holdfast history"}
		}
		t.Generation = *to
		t.Reboot = to.RootHash != rec.Committed.RootHash || to.Slot != rec.Committed.Slot
		if !r.Back.KeepData {
			t.Origin = to.Data
		}
		if d, err := m.c.Box.Installed(ctx, to.Digest); err == nil {
			t.Deadline, t.Window = d.Gate.Deadline, d.Gate.Window
		}
	}
	t.Number, t.Data, t.UKI = n, slot.DataVolume(n), 0
	if !t.Reboot {
		t.UKI = uki(rec.Committed)
	}
	if t.Deadline <= 0 {
		t.Deadline = int64(defaultDeadline / time.Second)
	}
	if t.Window <= 0 {
		t.Window = int64(defaultWindow / time.Second)
	}
	// The request first: its number says later which row is to be written. A
	// cut between leaves a number that no record knows, which is taken back.
	r.Number, r.Armed, r.Reboot, r.Quiesced = n, now, t.Reboot, time.Time{}
	if err := m.keepRequest(r); err != nil {
		return err
	}
	was := rec
	rec.Trial = &t
	return m.save(was, rec)
}

// stillFits asks again what may have changed while the request waited.
func (m *Machine) stillFits(ctx context.Context, rec slot.Record, c Candidate) error {
	more, err := m.c.Box.CheckConfig(ctx, c)
	if err != nil {
		return err
	}
	if len(more) > 0 {
		return RefusedAll(more)
	}
	if c.Epoch < rec.Epoch || c.Description.Epoch < rec.Epoch {
		return &Refused{CodeEpoch, fmt.Sprintf("%s has a lower security epoch than this box has committed since", c.Target), "ask for a newer release"}
	}
	if m.request() != nil && !m.request().Ask.Force && slices.Contains(rec.Quarantined, c.Digest) {
		return &Refused{CodeQuarantined, c.Target.String() + " is quarantined", "holdfast why"}
	}
	return nil
}

// switchData puts the trial's data in the place of the committed ones; begin
// is true for another start of it, false to go on with one that was cut off.
func (m *Machine) switchData(ctx context.Context, begin bool) error {
	rec, err := m.record()
	if err != nil {
		return err
	}
	if begin {
		t := *rec.Trial
		t.Boot, t.Again, t.Since = m.c.Box.BootID(), false, int64(m.c.Box.Uptime()/time.Second)
		t.Starts++
		was := rec
		rec.Trial = &t
		// The record before the act: whoever finds the trial's data mounted
		// finds out whose they are, and the deadline runs from here.
		if err := m.save(was, rec); err != nil {
			return err
		}
		if r := m.request(); r != nil && r.addBoot(t.Boot) {
			if err := m.keepRequest(r); err != nil {
				return err
			}
		}
	}
	return m.c.Box.SwitchData(ctx, rec)
}
