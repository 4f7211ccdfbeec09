// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"

	"github.com/holdfast/holdfast/appliance/slot"
)

// Do is what a step does.
type Do string

// What steps do, in the order in which a plan may have them.
const (
	DoGiveUp   Do = "give-up"
	DoPrepare  Do = "prepare"
	DoWindow   Do = "window"
	DoBaseline Do = "baseline"
	DoArm      Do = "arm"
	DoPlace    Do = "place"
	DoClose    Do = "close"
	DoQuiesce  Do = "quiesce"
	DoSwitch   Do = "switch"
	DoStart    Do = "start"
	DoReboot   Do = "reboot"
	DoGate     Do = "gate"
	DoCommit   Do = "commit"
	DoBack     Do = "back"
	DoESP      Do = "esp"
	DoLabel    Do = "label"
	DoOpen     Do = "open"
	DoFree     Do = "free"
	DoLoader   Do = "loader"
	DoHistory  Do = "history"
)

// Step is one act of a plan.
type Step struct {
	Do   Do
	Text string
}

func (s Step) String() string { return s.Text }

// Course is all that a plan depends on.
type Course struct {
	Kind   string
	Reboot bool
	// From and To for people.
	From, To string
	Slot     string
	// GiveUp is why the kept generation has to go, "" where it needn't.
	GiveUp string
	// Window to wait for, "" for none.
	Window string
	// KeepData of a rollback.
	KeepData bool
}

// Plan is the way from one generation to another, in the order in which each
// cut ends in the old or the new one. It is pure; a flow that was cut off goes
// on at the step that Decide names.
func Plan(c Course) []Step {
	var p []Step
	add := func(do Do, format string, args ...any) { p = append(p, Step{do, fmt.Sprintf(format, args...)}) }
	if c.Kind == slot.Upgrade {
		if c.GiveUp != "" {
			// Out of the record before its slot is written to: a cut between
			// them leaves a slot that no one names, never one that rollback
			// would boot into half a system.
			add(DoGiveUp, "give up the kept generation: %s", c.GiveUp)
		}
		where := "the stack's files and images"
		if c.Reboot {
			where = "the system into slot " + c.Slot + ", and the stack's files and images"
		}
		add(DoPrepare, "fetch and verify %s, while %s serves", where, c.From)
	}
	if c.Window != "" {
		add(DoWindow, "wait for the maintenance window %s", c.Window)
	}
	if c.Kind == slot.Upgrade {
		add(DoBaseline, "note which services are healthy, and how fast")
	}
	// The record before anything that could start the trial: a boot or a
	// daemon that finds it half way knows whose it is. A cut right after it
	// finds no image to boot and cancels.
	add(DoArm, "arm the trial of %s", c.To)
	if c.Reboot {
		// The image before the services are stopped: that it cannot be placed
		// costs no service. A cut after it boots the trial, whose snapshot is
		// taken at that boot, of data nobody has open then.
		add(DoPlace, "place its kernel image, with one try")
		add(DoQuiesce, "stop the services of %s", c.From)
		add(DoReboot, "reboot into slot %s", c.Slot)
	} else {
		// Closed before the old services stop: nobody may reach the new ones,
		// and what was answered before is in the old data.
		add(DoClose, "close ingress")
		add(DoQuiesce, "stop the services of %s", c.From)
		data := "a fresh snapshot of the data"
		if c.Kind == slot.Rollback && !c.KeepData {
			data = "a fresh snapshot of the kept data"
		}
		add(DoSwitch, "mount %s", data)
		add(DoStart, "start the services of %s", c.To)
	}
	add(DoGate, "watch that all services get healthy, nothing gets worse, and stays so; ingress is closed")
	if c.Kind == slot.Drill {
		// Into the record before the way back is begun: a cut on the way must
		// not make a failure of a drill that has passed.
		add(DoBack, "note that the drill has passed, and go back to %s", c.From)
	} else {
		// The only commit point: all below follows from the record and is done
		// again at each start.
		add(DoCommit, "commit %s", c.To)
		// Before ingress opens: from the first write of a user on, the
		// firmware must boot what that write is in.
		add(DoESP, "let the firmware boot it from now on")
		add(DoLabel, "label its data as committed")
	}
	add(DoOpen, "open ingress")
	// The history before what can be freed: freeing takes long, and names
	// nothing that could be found out later.
	add(DoHistory, "write it into the history")
	add(DoFree, "free what is not needed any more")
	if c.Kind == slot.Upgrade {
		add(DoLoader, "bring systemd-boot to the release's, one copy after the other")
	}
	return p
}

// Lines are a plan's texts.
func Lines(p []Step) []string {
	var out []string
	for _, s := range p {
		out = append(out, s.Text)
	}
	return out
}

// after are the steps behind one.
func after(p []Step, do Do) []Step {
	for i, s := range p {
		if s.Do == do {
			return p[i+1:]
		}
	}
	return nil
}

// from are the steps from one on.
func from(p []Step, do Do) []Step {
	for i, s := range p {
		if s.Do == do {
			return p[i:]
		}
	}
	return nil
}
