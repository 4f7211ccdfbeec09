// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/upgrade"
)

// upgrading makes the machine that upgrades this box; nil elsewhere. Nothing
// is read or done yet.
func (d *Daemon) upgrading() *upgrade.Machine {
	if d.c.Upgrades == nil || !d.isBox() {
		return nil
	}
	b := newUpgradeBox(d)
	if wrap := d.c.Upgrades.Wrap; wrap != nil {
		b = wrap(b)
	}
	m := upgrade.New(upgrade.Config{
		Box: b, Files: upgrade.Folder(filepath.Join(d.c.State, "upgrade")),
		Say: func(line string) { d.say.line("%s", line) }, Changed: d.upgradeChanged,
	})
	return m
}

// upgradeChanged brings the machine's state into the report.
func (d *Daemon) upgradeChanged() {
	m := d.machine
	if m == nil {
		return
	}
	u, conds := m.Status(), m.Conditions()
	if rec, err := slot.Load(d.c.Root); err == nil && u.Quarantined == 0 {
		u.Quarantined = len(rec.Quarantined)
	}
	d.update(func(r *status.Report) bool {
		r.Upgrade = &u
		d.others["upgrade"] = conds
		r.Conditions = d.conditions()
		d.lookAtRoot(r)
		return true
	})
}

// recoverUpgrade mends what a crash or a boot has left of an upgrade, before
// anything of the stack starts, and lets the machine run beside it. start is
// why nothing may be started, nil where something may; stop waits for the
// machine.
func (d *Daemon) recoverUpgrade(ctx context.Context) (stop func(), start error) {
	stop = func() {}
	m := d.machine
	if m == nil {
		return stop, nil
	}
	quiet := d.beat(ctx)
	s, err := m.Recover(ctx)
	quiet()
	select {
	case <-d.begin: // it begins in any case
	default:
	}
	if ctx.Err() != nil {
		return stop, ctx.Err()
	}
	d.upgradeChanged()
	switch {
	case err != nil:
		// Without a trial the committed generation is as good as it was; the
		// record itself is held against the root before anything starts.
		cond := status.Condition{Code: "upgrade-broken", Severity: "warning", Text: "upgrades are not possible now: " + err.Error(),
			Remedy: "mend the cause, then systemctl restart holdfast"}
		d.bootCond = append(d.bootCond, cond)
		d.rootCond = append(d.rootCond, cond)
		d.mu.Lock()
		d.broken = err
		d.mu.Unlock()
		if rec, lerr := slot.Load(filepath.Join("/", d.c.Root)); lerr == nil && rec.Trial != nil {
			return stop, held("upgrade-broken", "mend the cause, then systemctl restart holdfast", err)
		}
		return stop, nil
	case s.Hold != nil:
		start = held(s.Hold.Code, s.Hold.Remedy, errors.New(s.Hold.Text))
	case s.Rebooting:
		start = held("rebooting", "wait for the reboot", errors.New("the box reboots to go on with what was begun"))
	}
	d.ops.Go(func() { d.relieve(ctx) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := m.Run(ctx); err != nil && ctx.Err() == nil {
			d.say.line("upgrades have stopped: %v", err)
			d.setOther("upgrade-run", []status.Condition{{Code: "upgrade-broken", Severity: "warning", Text: "upgrades have stopped: " + err.Error(),
				Remedy: "mend the cause, then systemctl restart holdfast"}})
		}
	}()
	return func() { <-done }, start
}

// interrupted tells the machine of an orderly shutdown, before services are
// stopped: a trial that is not decided starts over.
func (d *Daemon) interrupted(ctx context.Context) error {
	if d.machine == nil || !d.shuttingDown(ctx) {
		return nil
	}
	d.mu.Lock()
	d.leaving = true
	d.mu.Unlock()
	return d.machine.Interrupt(ctx)
}

// shuttingDown says whether systemd is on its way down: stop-stack is a
// person's word as well.
func (d *Daemon) shuttingDown(ctx context.Context) bool {
	// It exits with 1 for every word but "running".
	out, _ := d.commands().Run(ctx, "systemctl", "is-system-running")
	return strings.TrimSpace(string(out)) == "stopping"
}

// upgrades is the machine, or why there is none.
func (d *Daemon) upgrades() (*upgrade.Machine, error) {
	if d.machine == nil {
		return nil, &api.Problem{Status: http.StatusConflict, Text: "this is not a Holdfast box that runs its own release: it has no other releases",
			Remedy: "upgrade the stack the way it was put there"}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return nil, &api.Problem{Status: http.StatusServiceUnavailable, Text: "upgrades are not possible now: " + d.broken.Error(),
			Remedy: "mend the cause, then systemctl restart holdfast"}
	}
	return d.machine, nil
}

// problem puts what a machine refuses into the API's words.
func problem(err error) error {
	var r *upgrade.Refused
	var all upgrade.RefusedAll
	var away *upgrade.Unreachable
	switch {
	case err == nil:
		return nil
	case errors.As(err, &all):
		p := &api.Problem{Status: http.StatusUnprocessableEntity, Code: all[0].Code, Text: all[0].Why, Remedy: all[0].Remedy}
		for _, x := range all[1:] {
			p.Text += "\n" + x.Why + "; " + x.Remedy
		}
		return p
	case errors.As(err, &r):
		return &api.Problem{Status: http.StatusUnprocessableEntity, Code: r.Code, Text: r.Why, Remedy: r.Remedy}
	case errors.As(err, &away):
		return &api.Problem{Status: http.StatusServiceUnavailable, Code: "unreachable", Text: away.Error(),
			Remedy: "mend the way to it, or name another source: holdfast upgrade REF"}
	}
	return err
}
