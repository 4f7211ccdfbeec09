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

// settleAll does what follows from a record without a trial, at each start and
// after each change. What fails is tried again and keeps nothing else from
// being done: each part follows from the record alone.
func (m *Machine) settleAll(ctx context.Context, rec slot.Record) error {
	if rec.Trial != nil {
		return errors.New("a trial is not decided")
	}
	box := m.c.Box
	name := func(what string, err error) error {
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}
	also := []string{}
	err := errors.Join(
		name("the ESP", m.settleESP(ctx, rec)),
		name("the data's label", box.SettleData(ctx, rec)),
		name("ingress", box.OpenIngress(ctx)),
		name("the services", m.startCommitted(ctx, rec)),
	)
	err = errors.Join(err, name("the history", m.settleRequest(rec)))
	if r := m.request(); r != nil && r.digest() != "" {
		also = append(also, r.digest())
	}
	err = errors.Join(err,
		name("what can be freed", box.Free(ctx, rec, also)),
		name("systemd-boot", m.settleLoader(ctx, rec)),
	)
	m.unsettle(err)
	m.setDue(err != nil, false)
	m.c.Changed()
	return err
}

// startCommitted starts the committed generation's services where this process
// has to: after a commit those that waited for it, after a trial all.
func (m *Machine) startCommitted(ctx context.Context, rec slot.Record) error {
	if !m.startDue {
		return nil
	}
	err := m.c.Box.StartStack(ctx, rec.Committed, false)
	m.startDue = err != nil
	return err
}

// settleLoader brings systemd-boot to the committed release's. A rollback leaves
// the newer one: it boots the older systems as well, and an older loader may
// have been revoked since.
func (m *Machine) settleLoader(ctx context.Context, rec slot.Record) error {
	row, ok := m.rowOf(rec.Committed.Number)
	if rec.Committed.Digest == "" || ok && row.Kind != slot.Upgrade {
		return nil
	}
	return m.c.Box.UpdateLoader(ctx, rec.Committed.Digest)
}

func (m *Machine) settleESP(ctx context.Context, rec slot.Record) error {
	box := m.c.Box
	entries, err := box.Entries(ctx)
	if err != nil {
		return err
	}
	steps, err := PlanESP(rec, entries)
	if err != nil {
		return err
	}
	for _, s := range steps {
		switch s.Verb {
		case bless:
			err = box.Bless(ctx, s.Number)
		case keep:
			err = box.Keep(ctx, s.Number)
		default:
			err = box.RemoveEntry(ctx, s.Entry)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// settleRequest brings the request to what the record says became of it, while
// no trial is armed.
func (m *Machine) settleRequest(rec slot.Record) error {
	r := m.request()
	if r == nil || r.Number == 0 {
		return nil
	}
	row, there := m.rowOf(r.Number)
	var err error
	switch {
	case r.Number == rec.Committed.Number:
		if !there {
			row = rowOf(r)
			row.Result, row.Runs, row.End = Committed, r.Number, m.c.Now().UTC()
			row.Boots = withBoot(row.Boots, m.c.Box.BootID())
			if !r.Quiesced.IsZero() {
				row.Down = max(row.End.Sub(r.Quiesced).Milliseconds(), 0)
			}
		}
		err = m.finish(row)
	case there && (row.Result != Cancelled || r.Tries >= mostTries):
		err = m.finish(row)
	default:
		// Cut off before it could begin: begun again.
		r.Number, r.Armed, r.Quiesced = 0, time.Time{}, time.Time{}
		r.Tries++
		err = m.keepRequest(r)
	}
	return err
}

// finish writes a row and forgets the request. The row goes first: a cut
// between finds it, and only the request is removed again.
func (m *Machine) finish(row status.UpgradeResult) error {
	if err := m.addRow(row); err != nil {
		return fmt.Errorf("the history: %w", err)
	}
	if err := m.dropRequest(); err != nil {
		return fmt.Errorf("what was asked for: %w", err)
	}
	m.mu.Lock()
	close(m.ended)
	m.ended = make(chan struct{})
	m.mu.Unlock()
	m.c.Changed()
	return nil
}

// over ends a trial that is not committed, while the committed generation runs
// or is about to. The order survives a cut anywhere in it: first the row, which
// says for good how it ended; then that it ended, so that an image that is gone
// is not taken for one that was never there; then the image; then the record.
func (m *Machine) over(ctx context.Context, rec slot.Record, d Decision) error {
	t := *rec.Trial
	r := m.request()
	row, there := m.rowOf(t.Number)
	if !there {
		row = m.overRow(ctx, rec, d, r)
		err := m.addRow(row)
		if err != nil {
			// It may be the trial itself that has filled the disk.
			without := rec
			without.Trial = nil
			if ferr := m.c.Box.Free(ctx, without, nil); ferr == nil {
				err = m.addRow(row)
			}
		}
		if err != nil {
			return fmt.Errorf("the history: %w", err)
		}
	}
	if r != nil && !d.Retry && r.Number == t.Number && r.Tries < mostTries {
		r.Tries = mostTries
		if err := m.keepRequest(r); err != nil {
			return err
		}
	}
	if t.Failed == "" {
		t.Failed = orWord(d.Why, lost)
		if d.Result == Cancelled {
			t.Failed = cancelled + t.Failed
		}
		was := rec
		rec.Trial = &t
		if err := m.save(was, rec); err != nil {
			return err
		}
	}
	if t.Reboot {
		entries, err := m.c.Box.Entries(ctx)
		if err != nil {
			return fmt.Errorf("the ESP: %w", err)
		}
		for _, e := range entries {
			if e.Kept || e.Number != t.Number {
				continue
			}
			if err := m.c.Box.RemoveEntry(ctx, e); err != nil {
				return fmt.Errorf("the trial's kernel image: %w", err)
			}
		}
	}
	was := rec
	rec.Last = max(rec.Last, rec.Next()-1)
	rec.Trial = nil
	if row.Result == RolledBack && t.Kind == slot.Upgrade {
		rec.Quarantine(t.Digest)
	}
	if err := m.save(was, rec); err != nil {
		return err
	}
	m.say("upgrade: %s", explain(row).Sentence)
	m.restored = t.Number
	m.setDue(true, false)
	if err := m.settleRequest(rec); err != nil {
		m.say("upgrade: %v", err) // settleAll does it again
	}
	return nil
}

// overRow is the row of a trial that was not committed.
func (m *Machine) overRow(ctx context.Context, rec slot.Record, d Decision, r *request) status.UpgradeResult {
	t := rec.Trial
	row := status.UpgradeResult{Generation: t.Number, Kind: t.Kind, From: rec.Committed.Release, To: t.Release, Digest: t.Digest, Start: t.Armed, Armed: t.Armed, Reboot: t.Reboot}
	if r != nil && r.Number == t.Number {
		row = rowOf(r)
	}
	row.Runs, row.Result, row.Why, row.End = rec.Committed.Number, d.Result, d.Why, m.c.Now().UTC()
	row.Reboot = t.Reboot
	if d.Result == Passed {
		row.Why = ""
	}
	for _, id := range []string{t.ArmedBoot, t.Boot, m.c.Box.BootID()} {
		row.Boots = withBoot(row.Boots, id)
	}
	var e evidence
	if ok, err := readJSON(m.c.Files, evidenceFile, &e); ok && err == nil && e.Number == t.Number {
		row.Evidence = e.List
	}
	if d.Result == RolledBack {
		if len(row.Evidence) == 0 {
			row.Evidence = []status.Evidence{{What: "failing condition", Lines: []string{d.Why}}}
		}
		row.Evidence = append(row.Evidence, status.Evidence{What: "boots", Lines: []string{
			"before: " + t.ArmedBoot, "trial: " + orWord(t.Boot, "none that left a word"), "after: " + m.c.Box.BootID()}})
		if t.Boot != "" && t.Boot != m.c.Box.BootID() {
			row.Evidence = append(row.Evidence, m.c.Box.BootEvidence(ctx, t.Boot)...)
		}
	}
	return row
}

func withBoot(list []string, id string) []string {
	if id == "" || slices.Contains(list, id) {
		return list
	}
	return append(slices.Clone(list), id)
}

// rowOf is what a request tells of its row.
func rowOf(r *request) status.UpgradeResult {
	row := status.UpgradeResult{Generation: r.Number, Kind: r.Kind, From: r.From, To: r.To, Digest: r.digest(), Start: r.Start, Armed: r.Armed,
		Quiesced: r.Quiesced, Fetched: r.Fetched, Reused: r.Reused, Reboot: r.Reboot, Boots: slices.Clone(r.Boots)}
	if !r.Healthy.IsZero() && !r.Quiesced.IsZero() {
		row.Took = max(r.Healthy.Sub(r.Quiesced).Milliseconds(), 0) // the clock may have been set meanwhile
	}
	return row
}

// measureBack completes the row of a trial that was given up with how long
// nothing was served, once the stack is healthy again.
func (m *Machine) measureBack() {
	if m.restored == 0 {
		return
	}
	rep, _ := m.c.Box.Report()
	if rep.Stack != "healthy" {
		return
	}
	row, ok := m.rowOf(m.restored)
	m.restored = 0
	if !ok || row.Quiesced.IsZero() || row.Down != 0 {
		return
	}
	row.Down = max(m.c.Now().Sub(row.Quiesced).Milliseconds(), 0)
	if err := m.addRow(row); err != nil {
		m.say("upgrade: the history: %v", err)
	}
	m.c.Changed()
}

// Wait returns when nothing is on its way any more, with the result of what
// was, nil for none, or when ctx ends. A reboot ends the process first.
func (m *Machine) Wait(ctx context.Context) (*status.UpgradeResult, error) {
	for {
		m.mu.Lock()
		r, last, ended := m.req, m.history.last(), m.ended
		rests := r != nil && m.rests(r)
		m.mu.Unlock()
		if r == nil || rests {
			return last, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ended:
		}
	}
}
