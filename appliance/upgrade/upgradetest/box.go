// SPDX-License-Identifier: Apache-2.0

package upgradetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/upgrade"
	"github.com/holdfast/holdfast/compose/release"
)

// Box is the world as the machine of one boot sees it: calls of a boot that is
// over are refused, as a process that was killed makes none.
type Box struct {
	*World
	boot, life int
}

var _ upgrade.Box = (*Box)(nil)

var errOver = errors.New("this boot is over")

func (b *Box) enter(name string) (func(), error) {
	b.mu.Lock()
	if b.life != b.World.life || b.ended == "force" {
		b.mu.Unlock()
		return nil, errOver
	}
	if err := b.fails(name); err != nil {
		b.mu.Unlock()
		return nil, err
	}
	return b.mu.Unlock, nil
}

// Record of the world.
func (b *Box) Record() (slot.Record, error) {
	leave, err := b.enter("Record")
	if err != nil {
		return slot.Record{}, err
	}
	defer leave()
	rec, err := b.load()
	return clone(rec), err
}

// SaveRecord writes two copies.
func (b *Box) SaveRecord(was, rec slot.Record) error {
	leave, err := b.enter("SaveRecord")
	if err != nil {
		return err
	}
	defer leave()
	if b.BeforeSave != nil {
		if now, err := b.load(); err == nil {
			if now = clone(now); b.BeforeSave(&now) {
				b.store(now)
			}
		}
	}
	if now, err := b.load(); err != nil || !reflect.DeepEqual(now, was) {
		return upgrade.ErrChanged
	}
	b.store(rec)
	return nil
}

// Root that runs.
func (b *Box) Root() (slot.Root, error) { return b.root, nil }

// BootID of this boot.
func (b *Box) BootID() string { return fmt.Sprintf("boot-%d", b.boot) }

// MachineID of the box.
func (b *Box) MachineID() string { return "machine" }

// Uptime by the test's clock.
func (b *Box) Uptime() time.Duration { return time.Since(b.booted) }

// Settings of the world.
func (b *Box) Settings() upgrade.Settings { return b.Set }

// Room of the world.
func (b *Box) Room(context.Context) (upgrade.Room, error) { return b.Has, nil }

// Running is the description of the stack that runs.
func (b *Box) Running() (release.Description, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rec, err := b.load()
	if err != nil || b.stack == 0 {
		return release.Description{}, errors.New("nothing runs")
	}
	return b.describe(b.running(rec)), nil
}

// Targets of the source.
func (b *Box) Targets(_ context.Context, look upgrade.Look) ([]upgrade.Target, time.Time, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Unreachable {
		return nil, time.Time{}, &upgrade.Unreachable{Ref: look.Ref, Err: errors.New("no route")}
	}
	var out []upgrade.Target
	for _, v := range slices.Sorted(maps.Keys(b.Source)) {
		out = append(out, b.Source[v].Target)
	}
	return out, time.Now().Add(30 * 24 * time.Hour), nil
}

// Describe a target.
func (b *Box) Describe(_ context.Context, ref string, t upgrade.Target) (upgrade.Candidate, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.byDigest(t.Digest)
	if !ok {
		return upgrade.Candidate{}, fs.ErrNotExist
	}
	return upgrade.Candidate{Target: t, Ref: ref, Description: b.describe(r)}, nil
}

// Installed releases.
func (b *Box) Installed(_ context.Context, digest string) (release.Description, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.byDigest(digest)
	if !ok || !b.releases[digest] {
		return release.Description{}, fs.ErrNotExist
	}
	return b.describe(r), nil
}

// Prepare writes slot and release.
func (b *Box) Prepare(ctx context.Context, c upgrade.Candidate, where string, report func(upgrade.Progress)) (upgrade.Prepared, error) {
	leave, err := b.enter("Prepare")
	if err != nil {
		return upgrade.Prepared{}, err
	}
	if b.Unreachable {
		leave()
		return upgrade.Prepared{}, &upgrade.Unreachable{Ref: c.Ref, Err: errors.New("no route")}
	}
	slow := b.Slow
	leave()
	report(upgrade.Progress{Step: "fetching", Done: 1, Total: 2})
	if slow > 0 {
		select {
		case <-ctx.Done():
			return upgrade.Prepared{}, ctx.Err()
		case <-time.After(slow):
		}
	}
	if leave, err = b.enter(""); err != nil {
		return upgrade.Prepared{}, err
	}
	defer leave()
	rec, _ := b.load()
	if where != "" {
		if where == rec.Committed.Slot || rec.Kept != nil && rec.Kept.Slot == where {
			b.wrong("slot %s is written to while the record names it", where)
		}
		b.cut("before the slot")
		b.slots[where] = "half"
		b.cut("in the slot")
		b.slots[where] = c.Description.OS.RootHash
		b.cut("after the slot")
	}
	b.change("the release folder", func() { b.releases[c.Digest] = true })
	return upgrade.Prepared{Fetched: 100, Reused: 900}, nil
}

// CheckConfig refuses nothing.
func (b *Box) CheckConfig(context.Context, upgrade.Candidate) ([]upgrade.Refused, error) {
	return nil, nil
}

// Free removes what the record does not name.
func (b *Box) Free(_ context.Context, rec slot.Record, also []string) error {
	leave, err := b.enter("Free")
	if err != nil {
		return err
	}
	defer leave()
	named := append([]string{rec.Committed.Digest}, also...)
	if rec.Kept != nil {
		named = append(named, rec.Kept.Digest)
	}
	if rec.Trial != nil {
		named = append(named, rec.Trial.Digest)
	}
	for _, d := range slices.Sorted(maps.Keys(b.releases)) {
		if !slices.Contains(named, d) {
			b.change("freeing a release", func() { delete(b.releases, d) })
		}
	}
	return nil
}

// Entries of the ESP.
func (b *Box) Entries(context.Context) ([]upgrade.Entry, error) {
	leave, err := b.enter("Entries")
	if err != nil {
		return nil, err
	}
	defer leave()
	return slices.Collect(maps.Values(b.esp)), nil
}

// PlaceTrial puts the prepared image there.
func (b *Box) PlaceTrial(_ context.Context, t slot.Trial) error {
	leave, err := b.enter("PlaceTrial")
	if err != nil {
		return err
	}
	defer leave()
	b.change("placing the trial's image", func() {
		b.putEntry(upgrade.Entry{Number: t.Number, Left: 1, RootHash: t.RootHash})
	})
	return nil
}

// PlaceTrialFromKept copies the kept one.
func (b *Box) PlaceTrialFromKept(_ context.Context, kept, number int) error {
	leave, err := b.enter("PlaceTrialFromKept")
	if err != nil {
		return err
	}
	defer leave()
	e, ok := b.esp[key(upgrade.Entry{Number: kept, Kept: true})]
	if !ok {
		return fmt.Errorf("no kept image %d", kept)
	}
	b.change("placing the kept image", func() {
		b.putEntry(upgrade.Entry{Number: number, Left: 1, RootHash: e.RootHash})
	})
	return nil
}

func (b *Box) rename(what string, number int, to upgrade.Entry) error {
	leave, err := b.enter(what)
	if err != nil {
		return err
	}
	defer leave()
	e, ok := b.esp[key(upgrade.Entry{Number: number})]
	if !ok {
		return fmt.Errorf("no image %d to %s", number, what)
	}
	b.change(what, func() {
		delete(b.esp, key(e))
		to.Number, to.RootHash = number, e.RootHash
		b.putEntry(to)
	})
	return nil
}

// Rearm gives the try back.
func (b *Box) Rearm(_ context.Context, number int) error {
	return b.rename("Rearm", number, upgrade.Entry{Left: 1})
}

// Bless takes the counter off.
func (b *Box) Bless(_ context.Context, number int) error {
	return b.rename("Bless", number, upgrade.Entry{Left: -1, Done: -1})
}

// Keep moves it away.
func (b *Box) Keep(_ context.Context, number int) error {
	return b.rename("Keep", number, upgrade.Entry{Kept: true, Left: -1, Done: -1})
}

// RemoveEntry removes it.
func (b *Box) RemoveEntry(_ context.Context, e upgrade.Entry) error {
	leave, err := b.enter("RemoveEntry")
	if err != nil {
		return err
	}
	defer leave()
	b.change("removing an image", func() { delete(b.esp, key(e)) })
	return nil
}

// UpdateLoader notes it.
func (b *Box) UpdateLoader(_ context.Context, digest string) error {
	leave, err := b.enter("UpdateLoader")
	if err != nil {
		return err
	}
	defer leave()
	if b.loader != digest {
		b.change("the boot loader", func() { b.loader = digest })
	}
	return nil
}

// Reboot ends the boot.
func (b *Box) Reboot(_ context.Context, _ string, force bool) error {
	leave, err := b.enter("Reboot")
	if err != nil {
		return err
	}
	defer leave()
	b.cut("before the reboot")
	b.ended = "reboot"
	if force {
		b.ended = "force"
	}
	return nil
}

// SwitchData makes and mounts what shall run.
func (b *Box) SwitchData(_ context.Context, rec slot.Record) error {
	leave, err := b.enter("SwitchData")
	if err != nil {
		return err
	}
	defer leave()
	if b.stack != 0 {
		return fmt.Errorf("generation %d runs", b.stack)
	}
	b.mounted = ""
	b.cut("after the unmount")
	t := rec.Trial
	if t == nil || t.Reboot || t.Failed != "" {
		b.mounted = rec.Committed.Data
		b.cut("after the mount")
		return nil
	}
	b.snapshot(t)
	b.mounted = t.Data
	b.cut("after the mount")
	return nil
}

func (w *World) snapshot(t *slot.Trial) {
	if w.mounted == t.Origin {
		w.wrong("a snapshot of %s is taken while it is mounted", t.Origin)
	}
	o, ok := w.volumes[t.Origin]
	if !ok {
		w.wrong("the origin %s of the trial is gone", t.Origin)
		o = &Volume{}
	}
	w.change("dropping an old snapshot", func() { delete(w.volumes, t.Data) })
	w.change("the snapshot", func() { w.volumes[t.Data] = &Volume{o.Schema, slices.Clone(o.Writes)} })
	w.change("the label of the trial", func() { w.label = t.Data + " trial" })
}

// SettleData labels and drops.
func (b *Box) SettleData(_ context.Context, rec slot.Record) error {
	leave, err := b.enter("SettleData")
	if err != nil {
		return err
	}
	defer leave()
	if rec.Trial != nil {
		b.wrong("data is settled during a trial")
	}
	if b.label != rec.Committed.Data {
		b.change("the label", func() { b.label = rec.Committed.Data })
	}
	for _, v := range slices.Sorted(maps.Keys(b.volumes)) {
		if v != rec.Committed.Data && (rec.Kept == nil || v != rec.Kept.Data) {
			if v == b.mounted {
				b.wrong("%s is dropped while it is mounted", v)
			}
			b.change("dropping a volume", func() { delete(b.volumes, v) })
		}
	}
	return nil
}

// MountedData of this boot.
func (b *Box) MountedData(context.Context) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mounted, nil
}

// StopStack stops what runs.
func (b *Box) StopStack(context.Context) error {
	leave, err := b.enter("StopStack")
	if err != nil {
		return err
	}
	defer leave()
	b.cut("before the services stop")
	b.stack = 0
	b.publish()
	b.cut("after the services have stopped")
	return nil
}

// StartStack starts a generation's.
func (b *Box) StartStack(_ context.Context, g slot.Generation, trial bool) error {
	leave, err := b.enter("StartStack")
	if err != nil {
		return err
	}
	defer leave()
	return b.start(g, trial)
}

func (w *World) start(g slot.Generation, trial bool) error {
	w.waiting = trial
	if w.stack == g.Number {
		return nil
	}
	r, ok := w.byDigest(g.Digest)
	if !ok || !w.releases[g.Digest] {
		w.held = "its release is not on the box"
		w.publish()
		return nil
	}
	if w.mounted == "" {
		w.held = "the data are not there"
		w.publish()
		return nil
	}
	w.cut("before the services start")
	w.held, w.stack, w.since = "", g.Number, time.Now()
	// Migrations go upwards only.
	if v := w.volumes[w.mounted]; v.Schema < r.Version {
		v.Schema = r.Version
	}
	w.publish()
	if r.Behaviour != Sick {
		boot := w.boots
		time.AfterFunc(5*time.Second, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.boots == boot {
				w.publish()
			}
		})
	}
	w.cut("after the services have started")
	return nil
}

// publish makes the report.
func (w *World) publish() {
	rep := status.Report{Stack: "starting", Generation: w.stack, BootID: fmt.Sprintf("boot-%d", w.boots)}
	svc := status.Service{Name: "web", State: "running", Health: "starting"}
	switch {
	case w.held != "":
		rep.Stack, svc.State = "held", "held"
		rep.Conditions = []status.Condition{{Code: "stack-held", Severity: "critical", Text: w.held}}
	case w.stack == 0:
		rep.Stack, svc.State, svc.Health = "stopped", "stopped", "none"
	case w.healthy():
		rep.Stack, svc.Health = "healthy", "healthy"
	}
	rep.Services = []status.Service{svc}
	w.report = rep
	close(w.changed)
	w.changed = make(chan struct{})
}

// CloseIngress keeps users out.
func (b *Box) CloseIngress(context.Context) error {
	leave, err := b.enter("CloseIngress")
	if err != nil {
		return err
	}
	defer leave()
	b.open = false
	b.cut("after ingress is closed")
	return nil
}

// OpenIngress lets them in.
func (b *Box) OpenIngress(context.Context) error {
	leave, err := b.enter("OpenIngress")
	if err != nil {
		return err
	}
	defer leave()
	if !b.open {
		b.open = true
		b.cut("after ingress is open")
	}
	return nil
}

// Report of the services.
func (b *Box) Report() (status.Report, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.traffic()
	return b.report, b.changed
}

// Latency is not measured.
func (b *Box) Latency() map[string]time.Duration { return nil }

// Evidence of a service.
func (b *Box) Evidence(_ context.Context, service string) []status.Evidence {
	return []status.Evidence{{What: "service " + service, Lines: []string{"no such table"}}}
}

// BootEvidence of a boot.
func (b *Box) BootEvidence(_ context.Context, boot string) []status.Evidence {
	return []status.Evidence{{What: "boot " + boot, Lines: []string{"panic"}}}
}

// Read, Write and Remove are the machine's files.
func (b *Box) Read(name string) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data, ok := b.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(data), nil
}

// Write a file.
func (b *Box) Write(name string, data []byte) error {
	leave, err := b.enter("Write " + name)
	if err != nil {
		return err
	}
	defer leave()
	b.change("the file "+name, func() { b.files[name] = slices.Clone(data) })
	return nil
}

// Remove a file.
func (b *Box) Remove(name string) error {
	leave, err := b.enter("Remove " + name)
	if err != nil {
		return err
	}
	defer leave()
	b.change("removing the file "+name, func() { delete(b.files, name) })
	return nil
}
