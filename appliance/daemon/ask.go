// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net/http"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/supervise"
)

// supervised is the supervisor, or why there is none.
func (d *Daemon) supervised() (*supervise.Supervisor, error) {
	d.mu.Lock()
	sup := d.sup
	d.mu.Unlock()
	if sup != nil {
		return sup, nil
	}
	r, _ := d.feed.Get()
	p := &api.Problem{Status: http.StatusConflict, Text: "the stack is " + r.Stack + ", nothing of it is supervised yet", Remedy: "holdfast status says what it waits for"}
	if r.Stack == "held" {
		p.Text, p.Remedy = "the stack is held, nothing of it is started", "holdfast status says why and what to do"
	}
	return nil, p
}

// serviceNames are the stack's, in start order; none before it is known.
func (d *Daemon) serviceNames() []string {
	r, _ := d.feed.Get()
	var names []string
	for _, s := range r.Services {
		names = append(names, s.Name)
	}
	return names
}

// Plan implements api.Control.
func (d *Daemon) Plan() (status.Plan, error) {
	sup, err := d.supervised()
	if err != nil {
		return status.Plan{}, err
	}
	plan := sup.Plan()
	plan.Ops, plan.Waiting = orNone(plan.Ops), orNone(plan.Waiting)
	return plan, nil
}
