// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"

	"github.com/holdfast/holdfast/appliance/slot"
)

// Verbs of an ESPStep.
const (
	bless  = "bless"
	keep   = "keep"
	remove = "remove"
)

// ESPStep is one change of the ESP.
type ESPStep struct {
	Verb string
	Entry
}

func (s ESPStep) String() string { return fmt.Sprintf("%s %d", s.Verb, s.Number) }

// PlanESP says how the ESP gets to what the record says, in the order in which
// it is safe. It is pure. An ESP without the committed generation's image is
// an error, and nothing is touched: any of the others may be what boots.
func PlanESP(rec slot.Record, entries []Entry) ([]ESPStep, error) {
	c, ok := entry(entries, uki(rec.Committed))
	if !ok {
		return nil, fmt.Errorf("the ESP has no kernel image of the committed generation %d (number %d); install the release anew before the next reboot",
			rec.Committed.Number, uki(rec.Committed))
	}
	var steps []ESPStep
	if c.Counted() {
		// First: until then the other one is what boots, and a cut after
		// anything else would leave the box without any.
		steps = append(steps, ESPStep{bless, c})
	}
	kept := 0
	if rec.Kept != nil && uki(*rec.Kept) != uki(rec.Committed) {
		kept = uki(*rec.Kept)
	}
	for _, e := range entries {
		switch {
		case !e.Kept && e.Number == c.Number && e != c:
			// The other name that a cut in a rename has left.
			steps = append(steps, ESPStep{remove, e})
		case e.Kept && e.Number != kept:
			steps = append(steps, ESPStep{remove, e})
		case e.Kept, e.Number == uki(rec.Committed), rec.Trial != nil && rec.Trial.Reboot && e.Number == uki(rec.Trial.Generation):
		case e.Number == kept:
			// By rename: a cut leaves it in one of the two places, and the
			// committed one, which is newer, boots before it.
			steps = append(steps, ESPStep{keep, e})
		default:
			steps = append(steps, ESPStep{remove, e})
		}
	}
	return steps, nil
}
