// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/compose/release"
)

// slack is left free of the state volume and the ESP, in bytes.
const (
	slackState = 64 << 20
	slackESP   = 1 << 20
)

// stackOnly says whether a release needs no boot: its root is the committed
// one, and so is its kernel, which is in that root's image.
func stackOnly(rec slot.Record, d release.Description) bool {
	return d.OS.RootHash == rec.Committed.RootHash
}

// other is the slot that the committed generation is not in.
func other(letter string) string {
	if letter == "A" {
		return "B"
	}
	return "A"
}

// Preflight gives everything that is against a candidate that may follow the
// release that runs (Chooser.Refuses), none where it can be begun. It is pure.
func Preflight(c Candidate, rec slot.Record, room Room) []Refused {
	d := c.Description
	var out []Refused
	no := func(code, remedy, format string, args ...any) {
		out = append(out, Refused{code, fmt.Sprintf(format, args...), remedy})
	}
	if d.Name != c.Name || d.Version != c.Version {
		no(CodeTrust, "ask the vendor", "the release says it is %s %s, and was published as %s", d.Name, d.Version, c.Target)
	}
	if d.Parts == nil || d.Verity == nil {
		no(CodeParts, "ask the vendor for the release folder of the bake, not the factory's", "%s has no system image for a box that runs", c.Target)
		return out
	}
	out = append(out, fits(c.Target, d.Requirements, room)...)

	fetch := d.Requirements.Images
	if !stackOnly(rec, d) {
		fetch += d.Parts.UKI.Size + d.Parts.Boot.Size
		if d.Verity.Bytes > room.Slot {
			no(CodeSlotRoom, "install it on a disk that was made for it, with the data on a data disk", "the system of %s needs a root partition of %s, and this disk's has %s", c.Target, bytes(d.Verity.Bytes), bytes(room.Slot))
		}
		if need := d.Parts.UKI.Size + d.Parts.Boot.Size + slackESP; need > room.ESP {
			no(CodeESPRoom, "remove files that are not Holdfast's from the ESP", "the kernel image of %s needs %s on the ESP, and %s are free", c.Target, bytes(need), bytes(room.ESP))
		}
	}
	if need := fetch + slackState; need > room.State+room.KeptState {
		no(CodeStateRoom, "make the disk larger and reboot", "%s needs up to %s on the state volume, and %s are free", c.Target, bytes(need), bytes(room.State+room.KeptState))
	}
	if room.Snapshot > room.Pool+room.KeptPool {
		no(CodePoolRoom, "make the disk of the data larger and reboot", "a trial may need %s for its own copy of changed data, and %s are free", bytes(room.Snapshot), bytes(room.Pool+room.KeptPool))
	}
	return out
}

// fits holds what a release says it needs against the machine.
func fits(t Target, need release.Requirements, room Room) []Refused {
	var out []Refused
	no := func(code, remedy, format string, args ...any) {
		out = append(out, Refused{code, fmt.Sprintf(format, args...), remedy})
	}
	if need.Memory > room.Memory {
		no(CodeMemory, "give the machine more memory", "%s guarantees its services %s of memory, and this machine has %s", t, bytes(need.Memory), bytes(room.Memory))
	}
	if need.CPUs > room.CPUs {
		no(CodeCPUs, "give the machine more processors", "%s guarantees its services %.1f processors, and this machine has %.1f", t, float64(need.CPUs)/1000, float64(room.CPUs)/1000)
	}
	if need.Data > room.Data {
		no(CodeDataRoom, "make the disk of the data larger and reboot", "the disk budgets of %s come to %s, and this box has %s for data", t, bytes(need.Data), bytes(room.Data))
	}
	return out
}

// givesUp says whether the kept generation has to go before a candidate can
// come, and why; "" for no.
func givesUp(c Candidate, rec slot.Record, room Room) string {
	switch {
	case rec.Kept == nil:
		return ""
	case !stackOnly(rec, c.Description) && rec.Kept.Slot == other(rec.Committed.Slot):
		return "its slot is needed"
	case c.Description.Requirements.Images+slackState > room.State:
		return "its room on the state volume is needed"
	case room.Snapshot > room.Pool:
		return "the room of its data is needed"
	}
	return ""
}

// bytes is a size for people.
func bytes(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", (n+1023)>>10)
}
