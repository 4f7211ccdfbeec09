// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/compose/version"
)

// inSettings stands for the windows of the settings in Ask.At.
const inSettings = "window"

// look asks a source what it has.
func (m *Machine) look(ctx context.Context, a Ask) (Chooser, []Target, Look, error) {
	set := m.c.Box.Settings()
	look := Look{Ref: a.Ref, AcceptExpired: a.AcceptExpired}
	if look.Ref == "" {
		look.Ref = set.Source
	}
	if look.Ref == "" {
		return Chooser{}, nil, look, &Refused{CodeNoSource, "nothing says where to look for releases", "name a source: holdfast upgrade REF, or update.source in the configuration"}
	}
	rec, err := m.record()
	if err != nil {
		return Chooser{}, nil, look, err
	}
	runs, err := m.c.Box.Running()
	if err != nil {
		return Chooser{}, nil, look, &Refused{CodeHeld, "which release runs is not known yet: " + err.Error(), "holdfast status says what holds the stack"}
	}
	ch := Chooser{Name: runs.Name, Version: runs.Version, Digest: rec.Committed.Digest, Record: rec, MachineID: m.c.Box.MachineID(),
		Channel: set.Channel, Explicit: a.Ref != "", Want: a.Version, Force: a.Force}
	m.trusting.Lock()
	list, expires, err := m.c.Box.Targets(ctx, look)
	m.trusting.Unlock()
	if a.Ref == "" && ctx.Err() == nil {
		m.answered(ch, list, expires, err)
	}
	return ch, list, look, err
}

// answered notes what the settings' own source has said.
func (m *Machine) answered(ch Chooser, list []Target, expires time.Time, err error) {
	m.learn(func(k *known) {
		var no *Refused
		k.Unreachable, k.Untrusted = "", ""
		switch {
		case errors.As(err, &no) && no.Code == CodeTrust:
			k.Untrusted = no.Why
			return
		case err != nil:
			k.Unreachable = err.Error()
			return
		}
		k.Checked, k.Expires, k.Available = m.c.Now().UTC(), expires, ""
		ch.Want, ch.Force = "", false
		if t, err := ch.Choose(list); err == nil && t != nil {
			k.Available = t.String()
		}
	})
}

// Check says what Upgrade would do, and changes nothing but the trust store.
// What is against it is in Checked.Refused; the error is for what could not be
// looked at, or a version that may not be asked for.
func (m *Machine) Check(ctx context.Context, a Ask) (Checked, error) {
	c, _, err := m.judge(ctx, a)
	return c, err
}

func (m *Machine) judge(ctx context.Context, a Ask) (Checked, *request, error) {
	windows, label, err := m.windows(a.At)
	if err != nil {
		return Checked{}, nil, err
	}
	ch, list, look, err := m.look(ctx, a)
	if err != nil {
		return Checked{}, nil, err
	}
	out := Checked{From: ch.Name + " " + ch.Version}
	t, err := ch.Choose(list)
	if err != nil {
		return out, nil, err
	}
	if t == nil {
		out.Current = true
		return out, nil, nil
	}
	cand, err := m.c.Box.Describe(ctx, look.Ref, *t)
	if err != nil {
		return out, nil, err
	}
	cand.Target, cand.Ref = *t, look.Ref
	room, err := m.c.Box.Room(ctx)
	if err != nil {
		return out, nil, err
	}
	out.Refused = Preflight(cand, ch.Record, room)
	more, err := m.c.Box.CheckConfig(ctx, cand)
	if err != nil {
		return out, nil, err
	}
	out.Refused = merge(out.Refused, more)
	reboot := !stackOnly(ch.Record, cand.Description)
	giveUp := givesUp(cand, ch.Record, room)
	out.Candidate, out.To, out.Reboot = &cand, t.String(), reboot
	out.Plan = Lines(Plan(Course{Kind: slot.Upgrade, Reboot: reboot, From: out.From, To: out.To, Slot: other(ch.Record.Committed.Slot), GiveUp: giveUp, Window: label}))
	switch {
	case a.Keep && giveUp != "":
		out.Refused = append(out.Refused, Refused{CodeKeep, fmt.Sprintf("generation %d (%s) is to be kept, and %s", ch.Record.Kept.Number, ch.Record.Kept.Release, giveUp), "upgrade without --keep"})
	case a.Keep && ch.Record.Kept != nil:
		out.Notes = append(out.Notes, fmt.Sprintf("generation %d (%s) stays the one that holdfast rollback goes back to; %s is not kept", ch.Record.Kept.Number, ch.Record.Kept.Release, out.From))
	case giveUp != "":
		out.Notes = append(out.Notes, fmt.Sprintf("generation %d (%s), which holdfast rollback goes back to now, is given up: %s", ch.Record.Kept.Number, ch.Record.Kept.Release, giveUp))
	}
	return out, &request{Kind: slot.Upgrade, Ask: a, Candidate: &cand, From: out.From, To: out.To, Windows: windows, Reboot: reboot}, nil
}

// windows reads Ask.At.
func (m *Machine) windows(at string) ([]Window, string, error) {
	set := m.c.Box.Settings()
	list := set.Windows
	switch at {
	case "":
		return nil, "", nil
	case inSettings:
		if len(list) == 0 {
			return nil, "", &Refused{CodeWindow, "no maintenance window is configured", "set update.windows, or name one: --at \"Sun 02:00-04:00\""}
		}
	default:
		w, err := ParseWindow(at)
		if err != nil {
			return nil, "", &Refused{CodeWindow, err.Error(), "holdfast help upgrade"}
		}
		list = []Window{w}
	}
	zone := set.Zone
	if zone == nil {
		zone = time.UTC
	}
	label := ""
	for i, w := range list {
		if i > 0 {
			label += ", "
		}
		label += w.String()
	}
	return list, label + " " + zone.String(), nil
}

// Upgrade begins one after the checks have passed: what was asked for is on
// disk when it returns. The error is *Refused or RefusedAll as a rule. A
// newest release that runs already is no error: Checked.Current.
func (m *Machine) Upgrade(ctx context.Context, a Ask) (Checked, error) {
	m.asking.Lock()
	defer m.asking.Unlock()
	if err := m.busy(slot.Upgrade); err != nil {
		return Checked{}, err
	}
	c, r, err := m.judge(ctx, a)
	if err != nil || c.Current {
		return c, err
	}
	if len(c.Refused) > 0 {
		return c, RefusedAll(c.Refused)
	}
	if old := m.request(); old != nil && old.digest() == r.digest() && old.Ready {
		// It was downloaded before, and is to be switched to now.
		old.Ask, old.Windows = r.Ask, r.Windows
		return c, m.begin(old)
	}
	return c, m.begin(r)
}

// begin writes a request down and lets Run do it.
func (m *Machine) begin(r *request) error {
	if r.Start.IsZero() {
		r.Start = m.c.Now().UTC()
	}
	r.addBoot(m.c.Box.BootID())
	if err := m.keepRequest(r); err != nil {
		return err
	}
	m.c.Changed()
	m.wake()
	return nil
}

// busy says what is in the way of something new.
func (m *Machine) busy(kind string) error {
	rec, err := m.record()
	if err != nil {
		return err
	}
	if t := rec.Trial; t != nil {
		return &Refused{CodeBusy, fmt.Sprintf("a trial of generation %d (%s) is not decided yet", t.Number, t.Release), "holdfast status shows how far it is"}
	}
	r := m.request()
	switch {
	case r == nil:
		return nil
	case r.Number != 0 && r.Number != rec.Committed.Number:
	case r.Ready || r.Kind != slot.Upgrade:
		// It waits for a window or a word: what is asked for now goes before.
		return nil
	case kind == slot.Rollback && r.Number == 0:
		return nil
	}
	return &Refused{CodeBusy, fmt.Sprintf("the %s to %s is on its way", r.Kind, r.To), "holdfast status shows how far it is; holdfast upgrade --cancel ends it while it is being fetched"}
}

// CheckRollback says what Rollback would do.
func (m *Machine) CheckRollback(ctx context.Context, b Back) (Checked, error) {
	c, _, err := m.judgeBack(ctx, slot.Rollback, b)
	return c, err
}

func (m *Machine) judgeBack(ctx context.Context, kind string, b Back) (Checked, *request, error) {
	rec, err := m.record()
	if err != nil {
		return Checked{}, nil, err
	}
	runs, err := m.c.Box.Running()
	if err != nil && kind == slot.Drill {
		return Checked{}, nil, err
	}
	out := Checked{From: rec.Committed.Release}
	if err == nil {
		out.From = runs.Name + " " + runs.Version
	}
	to := rec.Kept
	if to == nil && kind == slot.Drill {
		to = &rec.Committed // of the stack alone: all but the boot is exercised
	}
	if to == nil {
		return out, nil, &Refused{CodeNothingKept, "no generation is kept that could be gone back to", "holdfast history lists what there was; holdfast upgrade goes on from here"}
	}
	if b.To != 0 && b.To != to.Number {
		return out, nil, &Refused{CodeNothingKept, fmt.Sprintf("generation %d is not on this box any more, generation %d is kept", b.To, to.Number), fmt.Sprintf("holdfast rollback --to %d", to.Number)}
	}
	out.To, out.Reboot = to.Release, to.RootHash != rec.Committed.RootHash || to.Slot != rec.Committed.Slot
	if b.KeepData {
		if r := m.readable(ctx, *to, runs, err); r != nil {
			return out, nil, r
		}
	} else if kind == slot.Rollback {
		out.Notes = append(out.Notes, m.losses(rec))
	}
	out.Plan = Lines(Plan(Course{Kind: kind, Reboot: out.Reboot, From: out.From, To: out.To, Slot: to.Slot, KeepData: b.KeepData}))
	return out, &request{Kind: kind, Back: b, From: out.From, To: out.To, Reboot: out.Reboot}, nil
}

// readable says why the data of now can't be kept, nil where they can.
func (m *Machine) readable(ctx context.Context, to slot.Generation, runs release.Description, unknown error) *Refused {
	remedy := "holdfast rollback without --keep-data goes back with the kept data"
	if unknown != nil {
		return &Refused{CodeData, "what can read the data of now is not known: " + unknown.Error(), remedy}
	}
	d, err := m.c.Box.Installed(ctx, to.Digest)
	switch {
	case err != nil:
		return &Refused{CodeData, "the kept release can't be read: " + err.Error(), remedy}
	case !version.Valid(d.Version) || !version.Valid(runs.ReadableFrom()) || version.Compare(d.Version, runs.ReadableFrom()) < 0:
		return &Refused{CodeData, fmt.Sprintf("the data that %s %s leaves behind can be read from version %s on, and the kept release is %s", runs.Name, runs.Version, runs.ReadableFrom(), d.Version), remedy}
	}
	return nil
}

// losses says which writes a rollback takes back.
func (m *Machine) losses(rec slot.Record) string {
	if r, ok := m.rowOf(rec.Committed.Number); ok && !r.Quiesced.IsZero() {
		return fmt.Sprintf("everything written since %s, when the services of %s were stopped, is lost once it is committed", r.Quiesced.UTC().Format("2006-01-02 15:04:05 MST"), r.From)
	}
	return "everything written since generation " + fmt.Sprint(rec.Committed.Number) + " was begun is lost once it is committed"
}

func (m *Machine) rowOf(generation int) (status.UpgradeResult, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.history.find(generation)
}

// Rollback begins a trial of the kept generation. It goes before an upgrade
// that is not armed yet, which is forgotten.
func (m *Machine) Rollback(ctx context.Context, b Back) (Checked, error) {
	return m.back(ctx, slot.Rollback, b, "")
}

// Drill begins a drill; at as in Ask.
func (m *Machine) Drill(ctx context.Context, at string) (Checked, error) {
	return m.back(ctx, slot.Drill, Back{}, at)
}

func (m *Machine) back(ctx context.Context, kind string, b Back, at string) (Checked, error) {
	m.asking.Lock()
	defer m.asking.Unlock()
	if err := m.busy(kind); err != nil {
		return Checked{}, err
	}
	windows, _, err := m.windows(at)
	if err != nil {
		return Checked{}, err
	}
	c, r, err := m.judgeBack(ctx, kind, b)
	if err != nil {
		return c, err
	}
	if rep, _ := m.c.Box.Report(); kind == slot.Drill && rep.Stack != "healthy" {
		return c, &Refused{CodeUnhealthy, "a drill needs a healthy stack, and it is " + orWord(rep.Stack, "not started"), "holdfast status"}
	}
	r.Windows = windows
	m.mu.Lock()
	cancel := m.cancel
	m.mu.Unlock()
	if err := m.begin(r); err != nil {
		return c, err
	}
	if cancel != nil {
		cancel()
	}
	return c, nil
}

// Cancel ends what was asked for and has not armed a trial yet; what was
// fetched is freed. A rollback is also given up while it runs and is not
// committed: it has no deadline that would do so.
func (m *Machine) Cancel(ctx context.Context) error {
	m.asking.Lock()
	defer m.asking.Unlock()
	r := m.request()
	if r == nil || r.Number != 0 {
		rec, err := m.record()
		if err == nil && m.trialRuns(rec) && rec.Trial.Kind == slot.Rollback {
			m.mu.Lock()
			m.abandoned = rec.Trial.Number
			m.mu.Unlock()
			m.wake()
			return nil
		}
		if err == nil && rec.Trial != nil {
			return &Refused{CodeBusy, "a trial is under way: it is committed or rolled back, not cancelled", "holdfast status shows how far it is"}
		}
		return &Refused{CodeNotFound, "nothing is on its way that could be cancelled", "holdfast status"}
	}
	row := rowOf(r)
	row.Result, row.Why, row.End = Cancelled, "an admin cancelled it", m.c.Now().UTC()
	if err := m.finish(row); err != nil {
		return err
	}
	m.mu.Lock()
	m.settleDue = true
	cancel := m.cancel
	m.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	m.wake()
	return nil
}
