// SPDX-License-Identifier: Apache-2.0

package upgradetest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/upgrade"
)

// Entries of the ESP.
func (b *Box) Entries(context.Context) ([]upgrade.Entry, error) {
	leave, err := b.enter("Entries")
	if err != nil {
		return nil, err
	}
	defer leave()
	return slices.Collect(maps.Values(b.esp)), nil
}

// PlaceTrial puts the prepared image there.
func (b *Box) PlaceTrial(_ context.Context, t slot.Trial) error {
	leave, err := b.enter("PlaceTrial")
	if err != nil {
		return err
	}
	defer leave()
	b.change("placing the trial's image", func() {
		b.putEntry(upgrade.Entry{Number: t.Number, Left: 1, RootHash: t.RootHash})
	})
	return nil
}

// PlaceTrialFromKept copies the kept one.
func (b *Box) PlaceTrialFromKept(_ context.Context, kept, number int) error {
	leave, err := b.enter("PlaceTrialFromKept")
	if err != nil {
		return err
	}
	defer leave()
	e, ok := b.esp[key(upgrade.Entry{Number: kept, Kept: true})]
	if !ok {
		return fmt.Errorf("no kept image %d", kept)
	}
	b.change("placing the kept image", func() {
		b.putEntry(upgrade.Entry{Number: number, Left: 1, RootHash: e.RootHash})
	})
	return nil
}

func (b *Box) rename(what string, number int, to upgrade.Entry) error {
	leave, err := b.enter(what)
	if err != nil {
		return err
	}
	defer leave()
	e, ok := b.esp[key(upgrade.Entry{Number: number})]
	if !ok {
		return fmt.Errorf("no image %d to %s", number, what)
	}
	b.change(what, func() {
		delete(b.esp, key(e))
		to.Number, to.RootHash = number, e.RootHash
		b.putEntry(to)
	})
	return nil
}

// Rearm gives the try back.
func (b *Box) Rearm(_ context.Context, number int) error {
	return b.rename("Rearm", number, upgrade.Entry{Left: 1})
}

// Bless takes the counter off.
func (b *Box) Bless(_ context.Context, number int) error {
	return b.rename("Bless", number, upgrade.Entry{Left: -1, Done: -1})
}

// Keep moves it away.
func (b *Box) Keep(_ context.Context, number int) error {
	return b.rename("Keep", number, upgrade.Entry{Kept: true, Left: -1, Done: -1})
}

// RemoveEntry removes it.
func (b *Box) RemoveEntry(_ context.Context, e upgrade.Entry) error {
	leave, err := b.enter("RemoveEntry")
	if err != nil {
		return err
	}
	defer leave()
	b.change("removing an image", func() { delete(b.esp, key(e)) })
	return nil
}

// UpdateLoader notes it.
func (b *Box) UpdateLoader(_ context.Context, digest string) error {
	leave, err := b.enter("UpdateLoader")
	if err != nil {
		return err
	}
	defer leave()
	if b.loader != digest {
		b.change("the boot loader", func() { b.loader = digest })
	}
	return nil
}

// Reboot ends the boot.
func (b *Box) Reboot(_ context.Context, _ string, force bool) error {
	leave, err := b.enter("Reboot")
	if err != nil {
		return err
	}
	defer leave()
	b.cut("before the reboot")
	b.ended = "reboot"
	if force {
		b.ended = "force"
	}
	return nil
}
