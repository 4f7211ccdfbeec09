// SPDX-License-Identifier: Apache-2.0

// Package slot knows which root partition runs and which generation is
// committed. It reads the kernel's view of the disk (sysfs, mountinfo, the
// command line) and one small record on state. It refuses to guess: a root
// that is not dm-verity, a record it can't read and a root the record does
// not name are errors, never a default.
package slot

import (
	"errors"
	"fmt"
	"time"
)

// DataVolume is the name of the logical volume that holds the data of a
// generation.
func DataVolume(generation int) string { return fmt.Sprintf("data-%d", generation) }

// Generation is one (OS slot, stack, data) triple of a box.
type Generation struct {
	// Number only grows; the first is 1.
	Number int `json:"number"`
	// Slot is "A" or "B".
	Slot string `json:"slot"`
	// RootHash is the dm-verity root hash of that slot, 64 hex digits.
	RootHash string `json:"root_hash"`
	// Data is the logical volume with the generation's data: "data-N" with N
	// the number, or less where it goes on with an earlier one's.
	Data string `json:"data"`
	// Release is "NAME VERSION" of the generation's release; empty until the
	// supervisor has opened and verified one.
	Release string `json:"release,omitempty"`
	// Digest is the release manifest's, "sha256:<hex>"; "" is the release on
	// the factory partition.
	Digest string `json:"digest,omitempty"`
	// UKI is the generation number in the name of its kernel image on the
	// ESP: its own, or an earlier one's where only the stack changed. 0 means
	// its own.
	UKI int `json:"uki,omitempty"`
	// Engine names the engine's store it uses (release.Description.Engine).
	Engine string `json:"engine,omitempty"`
}

// Kinds of a trial.
const (
	Upgrade  = "upgrade"
	Rollback = "rollback"
	Drill    = "drill"
)

// Trial is a generation that may be started and is not committed.
type Trial struct {
	Generation
	// Kind is Upgrade, Rollback or Drill.
	Kind string `json:"kind"`
	// Origin is the volume that Data is a snapshot of; each start of the trial
	// begins with a fresh one.
	Origin string `json:"origin"`
	// Reboot is true where another root has to be booted; else only the stack
	// is switched.
	Reboot bool `json:"reboot"`
	// Armed is when it was armed.
	Armed time.Time `json:"armed"`
	// ArmedBoot is the boot id it was armed in, Boot the one it was started in
	// last; "" before.
	ArmedBoot string `json:"armed_boot"`
	Boot      string `json:"boot,omitempty"`
	// Deadline in seconds, from the boot, or where there is none from Since.
	Deadline int64 `json:"deadline"`
	// Window of the gate in seconds.
	Window int64 `json:"window"`
	// Since is the uptime, in seconds, of the switch of a trial without boot.
	Since int64 `json:"since,omitempty"`
	// Failed is why it failed, "" while it has not. Written before the way
	// back is begun.
	Failed string `json:"failed,omitempty"`
	// Again is true where an orderly shutdown interrupted it: the next boot
	// starts it over.
	Again bool `json:"again,omitempty"`
	// Starts counts how often it was started.
	Starts int `json:"starts,omitempty"`
}

// Record is the generation record of a box: the only commit point. Committed
// is the only generation that may run, besides a trial.
type Record struct {
	Format    int        `json:"format"`
	Committed Generation `json:"committed"`
	// Kept is the generation that `holdfast rollback` goes back to, nil for
	// none. Whatever neither Committed, Kept nor Trial names may be freed.
	Kept *Generation `json:"kept,omitempty"`
	// Trial is the armed one, nil for none.
	Trial *Trial `json:"trial,omitempty"`
	// Last is the highest number ever given, 0 while it is Committed's.
	Last int `json:"last,omitempty"`
	// Epoch is the highest security epoch ever committed.
	Epoch int `json:"epoch,omitempty"`
	// Quarantined are digests of releases whose trial failed; they are not
	// tried again unless asked for by name and --force.
	Quarantined []string `json:"quarantined,omitempty"`
}

// Next is the number of the next generation.
func (rec Record) Next() int {
	n := max(rec.Last, rec.Committed.Number)
	if rec.Kept != nil {
		n = max(n, rec.Kept.Number)
	}
	if rec.Trial != nil {
		n = max(n, rec.Trial.Number)
	}
	return n + 1
}

// ErrForeignRoot is returned by Choose when the running root is neither the
// committed generation's nor an armed trial's.
var ErrForeignRoot = errors.New("the running root is not the committed generation's")

// First is the record of a box that has never run before.
func First(r Root) Record {
	return Record{Format: Format, Committed: Generation{
		Number: 1, Slot: r.Letter, RootHash: r.Hash, Data: DataVolume(1),
	}}
}

// Choose says which generation this boot runs, and whether that is the trial.
// It is pure. A trial that has failed, or that needs no boot, is none: after a
// boot the committed generation runs. A root that the record does not name
// never gets the data: that would let an older or a foreign system write to it.
func Choose(rec Record, r Root) (g Generation, trial bool, err error) {
	if t := rec.Trial; t != nil && t.Reboot && t.Failed == "" && t.RootHash == r.Hash && t.Slot == r.Letter {
		return t.Generation, true, nil
	}
	g = rec.Committed
	if g.RootHash != r.Hash || g.Slot != r.Letter {
		return Generation{}, false, fmt.Errorf("%w: slot %s with root hash %s… runs, slot %s with %s… is committed; boot the committed image, or make state anew to start over",
			ErrForeignRoot, r.Letter, r.Hash[:12], g.Slot, g.RootHash[:12])
	}
	return g, false, nil
}
