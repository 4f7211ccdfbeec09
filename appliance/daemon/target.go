// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/supervise"
	"github.com/holdfast/holdfast/images/durable"
)

// chosen is what a stretch runs.
type chosen struct {
	// box is false on a host that is none; the generation is then 1.
	box bool
	gen slot.Generation
	// trial is nil for the committed generation.
	trial *slot.Trial
}

// chosen is the generation that the record names for this boot, once its data
// is there to run on.
func (d *Daemon) chosen() (chosen, error) {
	unknown := func(err error) error {
		return held("generation-unknown", "boot the committed image, or reinstall the box", err)
	}
	if !d.isBox() {
		return chosen{gen: slot.Generation{Number: 1}}, nil
	}
	t := chosen{box: true}
	r, err := slot.Running(d.c.Root)
	if err != nil {
		return t, unknown(err)
	}
	home, dataErr := d.dataHome()
	rec, err := slot.Load(filepath.Join("/", d.c.Root))
	if slot.Missing(err) {
		if dataErr != nil {
			return t, dataErr // a box that holds at its first boot has no record yet
		}
		err = fmt.Errorf("there is no generation record; systemctl status holdfast-data says why: %w", err)
	}
	if err != nil {
		return t, unknown(err)
	}
	if t, err = choose(rec, r, d.facts.BootID); err != nil {
		return t, unknown(err)
	}
	if dataErr != nil {
		return t, dataErr
	}
	// The daemon starts whether or not the data could be mounted, so that
	// there is someone to say so.
	return t, d.dataReady(home, t.gen)
}

// isBox says whether the record of generations speaks of this machine. Where a
// person named the stack it is not the box's own, even on a box.
func (d *Daemon) isBox() bool { return d.facts.Sealed && !d.c.AnyHost }

// choose is slot.Choose, and the trial of a stack alone, which no boot begins:
// it runs from the switch to its end in the boot it was switched in.
func choose(rec slot.Record, r slot.Root, boot string) (chosen, error) {
	gen, trial, err := slot.Choose(rec, r)
	c := chosen{box: true, gen: gen}
	if err != nil {
		return c, err
	}
	if t := rec.Trial; t != nil && (trial || !t.Reboot && t.Failed == "" && !t.Again && t.Boot == boot && boot != "") {
		c.gen, c.trial = t.Generation, t
	}
	return c, nil
}

// named writes the release and the engine of the committed generation into the
// record, once they are known: what is kept is told by it later on.
func (d *Daemon) named(t chosen, f *Found) {
	if !t.box || t.trial != nil || f.Description == nil || d.c.Upgrades == nil {
		return
	}
	name, engine := f.Description.Name+" "+f.Description.Version, f.Description.Engine
	_, err := slot.Update(d.c.Root, func(rec *slot.Record) error {
		if rec.Committed.Number == t.gen.Number {
			rec.Committed.Release = name
			if rec.Committed.Engine == "" {
				rec.Committed.Engine = engine
			}
		}
		return nil
	})
	if err != nil {
		d.say.line("the name of the release could not be noted: %v", err)
	}
}

// clear removes the containers of other generations. A trial that is started
// over on fresh data begins without any container of its own either.
func (d *Daemon) clear(ctx context.Context, t chosen, desired *supervise.Desired, j *supervise.Journal) error {
	if !t.box {
		return nil
	}
	data, err := supervise.LoadCarried(d.carriedPath())
	if err != nil {
		return held("data-missing", "see the text, then systemctl restart holdfast", err)
	}
	start := began{Generation: t.gen.Number}
	if t.trial != nil {
		start.Starts = t.trial.Starts
	}
	path := filepath.Join(d.c.State, "supervise", "began.json")
	var last began
	if b, err := os.ReadFile(path); err == nil && len(b) < 4096 {
		if json.Unmarshal(b, &last) != nil {
			last = began{} // all is removed once more than needed
		}
	}
	if err := supervise.Clear(ctx, d.c.Engine, desired, j, data, t.trial != nil && last != start); err != nil {
		if errors.Is(err, engine.ErrUnreachable) {
			return err
		}
		return held("old-containers", "docker ps -a shows them; remove them with docker rm -f, then systemctl restart holdfast", err)
	}
	if last == start {
		return nil
	}
	b, err := json.Marshal(start)
	if err == nil {
		err = durable.WriteFile(path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return held("files-not-written", "make room on the state volume, then systemctl restart holdfast", err)
	}
	return nil
}

// began says which start of which generation the containers are of.
type began struct {
	Generation int `json:"generation"`
	Starts     int `json:"starts"`
}
