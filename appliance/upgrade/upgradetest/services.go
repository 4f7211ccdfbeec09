// SPDX-License-Identifier: Apache-2.0

package upgradetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
)

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
