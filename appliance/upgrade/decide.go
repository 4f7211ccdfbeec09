// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"strings"

	"github.com/holdfast/holdfast/appliance/slot"
)

// View is all that is decided by at a start.
type View struct {
	Record slot.Record
	Root   slot.Root
	BootID string
	// Entries of the ESP.
	Entries []Entry
	// Mounted is the volume of data that is mounted.
	Mounted string
}

// Act is what a start has to do.
type Act string

// What a start has to do.
const (
	// ActRun: the committed generation runs and nothing is armed. What comes
	// after a commit is done again.
	ActRun Act = "run"
	// ActGate: a trial runs and is to be judged.
	ActGate Act = "gate"
	// ActReboot: a trial was armed in this boot and is to be booted.
	ActReboot Act = "reboot"
	// ActSwitch: a trial without boot is to be switched to, for the first time
	// or over again.
	ActSwitch Act = "switch"
	// ActBack: a trial has failed and runs still; away from it.
	ActBack Act = "back"
	// ActOver: the committed generation runs, the trial is over.
	ActOver Act = "over"
	// ActAgain: a rollback was cut off and is booted once more.
	ActAgain Act = "again"
	// ActBless: the committed generation's kernel image still counts its
	// boots, so the firmware has taken the one before: bless, and reboot.
	ActBless Act = "bless"
	// ActHold: nothing may be started.
	ActHold Act = "hold"
)

// Decision is an act with its reason.
type Decision struct {
	Act Act
	// Result for ActOver: RolledBack, Cancelled or Passed.
	Result string
	// Why is one sentence, for ActOver and ActHold.
	Why string
	// Blame is true where the release is quarantined for it.
	Blame bool
	// Retry is true where what was asked for is begun again by itself.
	Retry bool
}

// lost is all that can be said of a boot that left no word.
const lost = "the box did not come up: power was lost, it hung or crashed"

// drillPassed is in Trial.Failed of a drill that went well: it ends a trial as
// a failure does, without a word of blame.
const drillPassed = "the drill has passed"

// mostRollbacks bounds how often a rollback by hand that was cut off is begun
// again: nobody who asked for it wants what ran before, but a generation that
// crashes the machine each time must not do so for ever.
const mostRollbacks = 3

// entry finds a kernel image of EFI/Linux by its number. FAT's rename is two
// writes: a cut in it may leave both names of the same bytes. The one without
// a counter counts then, as it does for the firmware, or the one with a try
// left.
func entry(list []Entry, number int) (found Entry, there bool) {
	for _, e := range list {
		if e.Kept || e.Number != number {
			continue
		}
		if !there || !e.Counted() || found.Spent() && !e.Spent() {
			if !there || found.Counted() {
				found = e
			}
		}
		there = true
	}
	return found, there
}

// uki is the number in the name of a generation's kernel image.
func uki(g slot.Generation) int {
	if g.UKI != 0 {
		return g.UKI
	}
	return g.Number
}

// Decide says what a start has to do. It is pure, and total: every record with
// every boot has an answer.
func Decide(v View) Decision {
	rec, t := v.Record, v.Record.Trial
	_, trial, err := slot.Choose(rec, v.Root)
	switch {
	case err != nil:
		return foreign(v, err)
	case trial:
		// Whether or not it got its data: without it cannot be healthy, and
		// the gate says so.
		return Decision{Act: ActGate}
	case t == nil:
		return Decision{Act: ActRun}
	case t.Failed != "":
		// Without a boot the trial's services may run still, on its data, or
		// nothing is mounted: the way back was cut off in its midst.
		if !t.Reboot && v.Mounted != rec.Committed.Data {
			return Decision{Act: ActBack}
		}
		if t.Kind == slot.Drill && t.Failed == drillPassed {
			return Decision{Act: ActOver, Result: Passed}
		}
		return over(t, t.Failed)
	case t.Reboot:
		return notBooted(v, t)
	}
	return notSwitched(v, t)
}

// over is the end of a trial that went wrong, or was taken back.
func over(t *slot.Trial, why string) Decision {
	if rest, ok := strings.CutPrefix(why, cancelled); ok {
		return Decision{Act: ActOver, Result: Cancelled, Why: rest}
	}
	return Decision{Act: ActOver, Result: RolledBack, Why: why, Blame: t.Kind == slot.Upgrade}
}

// notBooted decides about a trial that needs a boot, while the committed
// generation runs.
func notBooted(v View, t *slot.Trial) Decision {
	e, there := entry(v.Entries, t.Number)
	switch {
	case t.ArmedBoot == v.BootID:
		// The daemon was started anew on the way to the reboot.
		return Decision{Act: ActReboot}
	case there && e.Spent(), !there && t.Starts > 0:
		if t.Kind == slot.Rollback && t.Starts > 0 && t.Starts < mostRollbacks {
			return Decision{Act: ActAgain}
		}
		return over(t, lost)
	case !there:
		// Armed in the record, and nothing was there to boot.
		return Decision{Act: ActOver, Result: Cancelled, Retry: true,
			Why: "power was lost before the new system could be booted; nothing was changed"}
	}
	return Decision{Act: ActOver, Result: Cancelled,
		Why: "the firmware booted the committed system although a trial was ready; nothing was changed"}
}

// notSwitched decides about a trial without boot that has not failed.
func notSwitched(v View, t *slot.Trial) Decision {
	switch {
	case t.Boot == v.BootID && v.Mounted == t.Data:
		return Decision{Act: ActGate}
	case t.Boot == v.BootID, t.Boot == "" && t.ArmedBoot == v.BootID, t.Again:
		return Decision{Act: ActSwitch}
	case t.Starts == 0:
		return Decision{Act: ActOver, Result: Cancelled, Retry: true,
			Why: "power was lost before the new stack was started; nothing was changed"}
	case t.Kind == slot.Rollback && t.Starts < mostRollbacks:
		return Decision{Act: ActSwitch}
	}
	return over(t, "the box went down during the trial: power was lost, it hung or crashed")
}

// foreign decides about a root that may not run.
func foreign(v View, err error) Decision {
	rec, t := v.Record, v.Record.Trial
	c, there := entry(v.Entries, uki(rec.Committed))
	switch {
	case there && c.Counted():
		// The cut came between the commit and the blessing. What was committed
		// stays so: its data may have been written to since.
		return Decision{Act: ActBless}
	case !there:
		return Decision{Act: ActHold, Why: fmt.Sprintf("%v; the ESP has no kernel image of the committed generation %d", err, rec.Committed.Number)}
	case t != nil && t.Reboot && t.RootHash == v.Root.Hash && t.Slot == v.Root.Letter:
		// A trial that has failed and runs. Where it was booted again in spite
		// of that, its image has to go first, or this never ends.
		if _, there := entry(v.Entries, t.Number); there || t.Boot == v.BootID {
			return Decision{Act: ActBack}
		}
	}
	return Decision{Act: ActHold, Why: err.Error()}
}
