// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"

	"github.com/holdfast/holdfast/appliance/firstboot"
	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
)

const whyNoData = "journalctl -u holdfast-data says why; mend it, then reboot"

// dataHome is where holdfast-data put the data to use.
func (d *Daemon) dataHome() (status.DataDisk, error) {
	home, err := firstboot.ReadData(d.c.Root)
	if err != nil {
		return home, held("data-missing", whyNoData, err)
	}
	if h := home.Held; h != nil {
		return home, held(h.Code, h.Remedy, errors.New(h.Text))
	}
	return home, nil
}

// dataReady says whether the committed generation's data is there to run on.
// What holdfast-data has to say about other disks joins the conditions.
func (d *Daemon) dataReady(home status.DataDisk, g slot.Generation) error {
	if err := firstboot.CheckData(d.c.Root, home, g, d.c.Data); err != nil {
		return held("data-missing", whyNoData, err)
	}
	d.rootCond = append(d.rootCond, home.Conditions...)
	return nil
}

// acceptData holds the release to the label of the data and writes it there,
// before anything of it starts.
func (d *Daemon) acceptData(ctx context.Context, f *Found) error {
	err := firstboot.Accept(ctx, firstboot.Env{Root: d.c.Root, Run: d.c.Commands}, firstboot.Release{
		Name: f.Release.Name, Version: f.Release.Version, ReadableFrom: f.ReadableFrom,
	})
	if h, ok := errors.AsType[*firstboot.Held](err); ok {
		return held(h.Code, h.Remedy, h)
	}
	if err != nil {
		return held("data-unlabelled", "see the text, mend the cause, then systemctl restart holdfast", err)
	}
	return nil
}
