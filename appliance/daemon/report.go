// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/status/facts"
	"github.com/holdfast/holdfast/appliance/supervise"
	"github.com/holdfast/holdfast/images/durable"
)

// publish turns a plan into the report, and what changed into console lines.
func (d *Daemon) publish(p supervise.Plan) {
	d.say.states(p.Services)
	if p.Stack == "healthy" && d.timings.StackHealthy == 0 {
		d.timings.StackHealthy = facts.Uptime()
		d.say.line("the stack is healthy, %.1f s after the kernel started", d.timings.StackHealthy)
		d.keepTimings()
	}
	d.update(func(r *status.Report) bool {
		if r.Stack != p.Stack {
			d.c.Notify("STATUS=the stack is " + p.Stack)
		}
		r.Stack, r.Services, r.Timings = p.Stack, p.Services, d.timings
		d.addBudgets(r.Services)
		d.setEngine(r, p.Conditions)
		d.setStackConditions(r, append(slices.Clone(d.rootCond), p.Conditions...))
		d.lookAtRoot(r)
		return true
	})
}

// setEngine is for use inside edit: how the engine is, by what the supervisor
// says.
func (d *Daemon) setEngine(r *status.Report, said []status.Condition) {
	up := !slices.ContainsFunc(said, func(c status.Condition) bool { return c.Code == "engine-unreachable" })
	e := status.Engine{Up: up, Version: d.engineIs().Version, Since: time.Now().UTC(), Mends: d.mends}
	if r.Engine != nil && r.Engine.Up == up {
		e.Since = r.Engine.Since
	}
	r.Engine = &e
}

// Refresh looks at what no event tells of, before a report is given.
func (d *Daemon) Refresh() {
	d.lookAround()
	d.feed.Refresh(d.lookAtRoot)
}

// lookAtRoot asks the kernel whether it has met a corrupted block: that may
// turn up at any time, and once it has, nothing makes the root whole again
// before the next boot.
func (d *Daemon) lookAtRoot(r *status.Report) {
	if d.facts.Root.Hash == "" {
		return
	}
	ok, err := facts.Verified(d.c.Root, d.facts.Root.Hash)
	r.Root.Verified = ok && err == nil
	if r.Root.Verified || slices.ContainsFunc(r.Conditions, func(c status.Condition) bool { return c.Code == rootUnverified }) {
		return
	}
	text := "the kernel has met a corrupted block on it"
	if err != nil {
		text = err.Error()
	}
	r.Conditions = status.SortConditions(append(slices.Clone(r.Conditions), unverified(text)))
}

const rootUnverified = "root-unverified"

func unverified(why string) status.Condition {
	return status.Condition{Code: rootUnverified, Severity: "critical",
		Text:   "the root file system cannot be shown to be the sealed one: " + why,
		Remedy: "holdfast doctor --scan-root; reboot, and reinstall if it persists"}
}

// hold shows why nothing is started and waits for the end.
func (d *Daemon) hold(ctx context.Context, cause error) error {
	d.showHeld(cause, true)
	stop := d.beat(ctx)
	defer stop()
	<-ctx.Done()
	return ctx.Err()
}

// showHeld shows why nothing is started; aloud also on the console.
func (d *Daemon) showHeld(cause error, aloud bool) {
	cond := conditionOf(cause)
	if aloud {
		d.say.line("the stack is held: %s", cond.Text)
		d.say.line("what to do: %s", cond.Remedy)
	}
	d.say.said(cond)
	d.c.Notify("STATUS=the stack is held: " + cond.Text)
	d.update(func(r *status.Report) bool {
		r.Stack, r.Timings = "held", d.timings
		d.setStackConditions(r, append(slices.Clone(d.rootCond), cond))
		r.Services = slices.Clone(r.Services)
		for i := range r.Services {
			r.Services[i].State, r.Services[i].Reason = "held", cond.Text
		}
		return true
	})
}

// heldError is a reason to hold the stack, with its condition.
type heldError struct {
	code, remedy string
	err          error
}

func (h *heldError) Error() string { return h.err.Error() }
func (h *heldError) Unwrap() error { return h.err }

func held(code, remedy string, err error) error {
	return &heldError{code: code, remedy: remedy, err: err}
}

func conditionOf(err error) status.Condition {
	var h *heldError
	if errors.As(err, &h) {
		return status.Condition{Code: h.code, Severity: "critical", Text: h.err.Error(), Remedy: h.remedy}
	}
	return status.Condition{Code: "stack-held", Severity: "critical", Text: err.Error(),
		Remedy: "mend the cause, then systemctl restart holdfast"}
}

// The timings of a boot outlive the daemon, not the boot.

type savedTimings struct {
	Boot    string         `json:"boot"`
	Timings status.Timings `json:"timings"`
}

func timingsPath(run string) string { return filepath.Join(run, "timings.json") }

func loadTimings(run, boot string) (status.Timings, error) {
	b, err := os.ReadFile(timingsPath(run))
	if errors.Is(err, fs.ErrNotExist) {
		return status.Timings{}, nil
	}
	if err != nil {
		return status.Timings{}, err
	}
	var s savedTimings
	if len(b) > 4096 || json.Unmarshal(b, &s) != nil || s.Boot != boot {
		return status.Timings{}, nil // another boot's, or damaged: only numbers are lost
	}
	return s.Timings, nil
}

func saveTimings(run, boot string, t status.Timings) error {
	b, err := json.Marshal(savedTimings{boot, t})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(run, 0o755); err != nil {
		return err
	}
	return durable.WriteFile(timingsPath(run), b, 0o644)
}

func (d *Daemon) keepTimings() {
	if err := saveTimings(d.c.Run, d.facts.BootID, d.timings); err != nil {
		fmt.Fprintf(d.c.Console, "holdfast: the timings of this boot could not be kept: %v\n", err)
	}
}
