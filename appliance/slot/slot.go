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
}

// Record is the generation record of a box. Committed is the only generation
// that may run.
type Record struct {
	Format    int        `json:"format"`
	Committed Generation `json:"committed"`
}

// ErrForeignRoot is returned by Choose when the running root is not the
// committed generation's.
var ErrForeignRoot = errors.New("the running root is not the committed generation's")

// First is the record of a box that has never run before.
func First(r Root) Record {
	return Record{Format: Format, Committed: Generation{
		Number: 1, Slot: r.Letter, RootHash: r.Hash, Data: DataVolume(1),
	}}
}

// Choose says which generation this boot runs. It is pure. A root that the
// record does not name never gets the data: that would let an older or a
// foreign system write to it.
func Choose(rec Record, r Root) (Generation, error) {
	g := rec.Committed
	if g.RootHash != r.Hash || g.Slot != r.Letter {
		return Generation{}, fmt.Errorf("%w: slot %s with root hash %s… runs, slot %s with %s… is committed; boot the committed image, or make state anew to start over",
			ErrForeignRoot, r.Letter, r.Hash[:12], g.Slot, g.RootHash[:12])
	}
	return g, nil
}
