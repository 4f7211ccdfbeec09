// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"strings"
	"time"

	"github.com/holdfast/holdfast/appliance/firstboot"
	"github.com/holdfast/holdfast/appliance/mend"
	"github.com/holdfast/holdfast/appliance/status"
)

// mend watches the engine itself until ctx ends. Only on a box is it
// restarted: elsewhere it is somebody else's.
func (d *Daemon) mend(ctx context.Context) {
	e, ok := d.c.Engine.(mend.Engine)
	if !ok {
		return
	}
	c := mend.Config{Engine: e, Event: d.mended}
	if d.facts.Sealed && !d.c.AnyHost && mend.Booted(d.c.Root) {
		c.Units = mend.Systemd{Run: d.commands()}
	}
	var w *mend.Watcher
	c.Publish = func() { d.setOther("engine", w.Conditions()) }
	w = mend.New(c)
	d.ops.Go(func() { w.Run(ctx) })
}

// commands run the box's own tools.
func (d *Daemon) commands() firstboot.Runner {
	if d.c.Commands == nil {
		return firstboot.Commands{}
	}
	return d.c.Commands
}

// mended notes an act on the engine.
func (d *Daemon) mended(text string) {
	d.ring.add(status.Event{Time: time.Now().UTC(), Act: "engine", Because: text})
	d.say.line("%s", text)
	if strings.Contains(text, "could not be restarted") {
		return
	}
	d.update(func(r *status.Report) bool {
		d.mends++
		if r.Engine == nil {
			return false
		}
		e := *r.Engine
		e.Mends = d.mends
		r.Engine = &e
		return true
	})
}

// loopWork is what the supervisor's loop has done.
func (d *Daemon) loopWork() status.Work {
	d.mu.Lock()
	sup := d.sup
	d.mu.Unlock()
	if sup == nil {
		return status.Work{}
	}
	return sup.Work()
}
