// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"fmt"
	"strconv"
)

func (rec Record) check() error {
	if rec.Format != Format {
		return fmt.Errorf("format: %d is not known, want %d", rec.Format, Format)
	}
	if err := rec.Committed.check("committed"); err != nil {
		return err
	}
	if rec.Kept != nil {
		if err := rec.checkKept(); err != nil {
			return err
		}
	}
	if rec.Trial != nil {
		if err := rec.checkTrial(); err != nil {
			return err
		}
	}
	if rec.Last < 0 || rec.Last > maxNumber {
		return fmt.Errorf("last: %d is no number of a generation", rec.Last)
	}
	if rec.Epoch < 0 {
		return fmt.Errorf("epoch: %d, want 0 or more", rec.Epoch)
	}
	if len(rec.Quarantined) > MaxQuarantined {
		return fmt.Errorf("quarantined: %d digests, at most %d are kept", len(rec.Quarantined), MaxQuarantined)
	}
	for i, d := range rec.Quarantined {
		if !digestShape.MatchString(d) {
			return fmt.Errorf("quarantined[%d]: %q, want sha256: and 64 hex digits", i, d)
		}
	}
	return nil
}

func (g Generation) check(at string) error {
	bad := func(field string, value any, want string) error {
		return fmt.Errorf("%s.%s: %v, want %s", at, field, value, want)
	}
	switch {
	case g.Number < 1 || g.Number > maxNumber:
		return bad("number", g.Number, "1 or more")
	case g.Slot != "A" && g.Slot != "B":
		return bad("slot", strconv.Quote(g.Slot), "A or B")
	case !hashShape.MatchString(g.RootHash):
		return bad("root_hash", strconv.Quote(g.RootHash), "64 hex digits")
	case !dataOf(g.Data, g.Number):
		return bad("data", strconv.Quote(g.Data), strconv.Quote(DataVolume(max(g.Number, 1)))+" or that of an earlier generation")
	case g.Digest != "" && !digestShape.MatchString(g.Digest):
		return bad("digest", strconv.Quote(g.Digest), "sha256: and 64 hex digits")
	case g.UKI < 0 || g.UKI > g.Number:
		return bad("uki", g.UKI, "the generation's own number or an earlier one's")
	case g.Engine != "" && !engineShape.MatchString(g.Engine):
		return bad("engine", strconv.Quote(g.Engine), "a name of letters, digits and ._+~-")
	case len(g.Release) > maxWords:
		return bad("release", strconv.Itoa(len(g.Release))+" bytes", "a name and a version")
	}
	return nil
}

func (rec Record) checkKept() error {
	k := *rec.Kept
	if err := k.check("kept"); err != nil {
		return err
	}
	switch c := rec.Committed; {
	case k.Number >= c.Number:
		return fmt.Errorf("kept.number: %d, want less than the committed %d", k.Number, c.Number)
	case k.Data == c.Data:
		return fmt.Errorf("kept.data: %q is the committed generation's", k.Data)
	case k.Slot == c.Slot && k.RootHash != c.RootHash:
		return fmt.Errorf("kept.slot: %s holds the committed root", k.Slot)
	}
	return nil
}

func (rec Record) checkTrial() error {
	t, c := *rec.Trial, rec.Committed
	if err := t.check("trial"); err != nil {
		return err
	}
	switch {
	case t.Kind != Upgrade && t.Kind != Rollback && t.Kind != Drill:
		return fmt.Errorf("trial.kind: %q, want %s, %s or %s", t.Kind, Upgrade, Rollback, Drill)
	case t.Number <= c.Number || rec.Kept != nil && t.Number <= rec.Kept.Number:
		return fmt.Errorf("trial.number: %d, want more than any before", t.Number)
	case t.Data != DataVolume(t.Number):
		return fmt.Errorf("trial.data: %q, want %q: a trial has data of its own", t.Data, DataVolume(t.Number))
	case t.Origin != c.Data && (rec.Kept == nil || t.Origin != rec.Kept.Data):
		return fmt.Errorf("trial.origin: %q is neither the committed nor the kept generation's data", t.Origin)
	case t.Reboot && t.Slot == c.Slot:
		return fmt.Errorf("trial.slot: %s is the committed generation's", t.Slot)
	case !t.Reboot && (t.Slot != c.Slot || t.RootHash != c.RootHash):
		return fmt.Errorf("trial.root_hash: a trial without a boot runs on the committed root")
	case t.Deadline < 0 || t.Deadline > maxSeconds || t.Window < 0 || t.Window > maxSeconds:
		return fmt.Errorf("trial.deadline: %d s with a window of %d s, want at most %d", t.Deadline, t.Window, maxSeconds)
	case t.Since < 0 || t.Starts < 0:
		return fmt.Errorf("trial.since: %d s and %d starts, want 0 or more", t.Since, t.Starts)
	case len(t.Failed) > maxWords || len(t.Boot) > 64 || len(t.ArmedBoot) > 64:
		return fmt.Errorf("trial.failed: %d bytes, at most %d are kept", len(t.Failed), maxWords)
	}
	return nil
}
