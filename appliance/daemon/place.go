// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/holdfast/holdfast/appliance/firstboot"
	"github.com/holdfast/holdfast/appliance/settings"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/compose/stack"
)

// Place tells where the box is and how it was configured. The daemon asks at
// its start, when told of a change, and before it gives a report.
type Place interface {
	Look() settings.View
	// Watch calls changed when the answer may be another, until ctx ends.
	Watch(ctx context.Context, changed func()) error
}

// Here is the machine this runs on.
type Here struct{ Root string }

// Look implements Place.
func (h Here) Look() settings.View { return settings.Look(h.Root) }

// Watch implements Place.
func (Here) Watch(ctx context.Context, changed func()) error { return settings.Watch(ctx, changed) }

// watchPlace keeps the report's view of the place true until ctx ends.
func (d *Daemon) watchPlace(ctx context.Context) {
	if d.c.Place == nil {
		return
	}
	if err := d.c.Place.Watch(ctx, d.lookAround); err != nil && ctx.Err() == nil {
		// Asking for a report still looks.
		d.say.line("changes of the network are not noticed: %v", err)
	}
}

// lookAround looks at the place and publishes what is new.
func (d *Daemon) lookAround() {
	if d.c.Place == nil {
		return
	}
	// One after the other, or an older look could replace a newer one.
	d.looking.Lock()
	defer d.looking.Unlock()
	v := d.c.Place.Look()
	var home *status.DataDisk
	if h, err := firstboot.ReadData(d.c.Root); err == nil {
		home = &h // where it can't be read the stack is held, and says so
	}
	d.update(func(r *status.Report) bool {
		if reflect.DeepEqual(v, d.view) && reflect.DeepEqual(home, r.Data) {
			return false
		}
		d.view, r.Data = v, home
		r.Hostname, r.Platform, r.Config, r.SSH = v.Hostname, v.Platform, v.Config, v.SSH
		r.Addresses, r.URLs = orNone(v.Addresses), urls(v.Addresses, d.ports)
		r.Conditions = d.conditions()
		d.lookAtRoot(r)
		return true
	})
}

// update changes the report, where edit says that it did, and tells the
// console what of it a person should see. edit runs under the feed's lock,
// which also guards view, ports and stackCond.
func (d *Daemon) update(edit func(*status.Report) bool) {
	// Each change is told before the next is made.
	d.telling.Lock()
	defer d.telling.Unlock()
	d.feed.UpdateIf(edit)
	r, _ := d.feed.Get()
	d.say.conditions(r.Conditions)
	d.say.place(r)
}

// setStackConditions is for use inside edit: what was found out of the stack,
// beside what is known of the place.
func (d *Daemon) setStackConditions(r *status.Report, c []status.Condition) {
	d.stackCond = c
	r.Conditions = d.conditions()
}

func (d *Daemon) conditions() []status.Condition {
	all := append(slices.Clone(d.stackCond), d.view.Conditions...)
	for _, c := range d.others {
		all = append(all, c...)
	}
	return orNone(status.SortConditions(all))
}

// published says at which of the two ports that browsers know a stack answers
// from outside.
type published struct{ http, https bool }

func portsOf(s *stack.Stack) published {
	var p published
	for _, name := range s.Services {
		for _, port := range s.Project.Services[name].Ports {
			switch {
			case !outside(port):
			case port.Published == "80":
				p.http = true
			case port.Published == "443":
				p.https = true
			}
		}
	}
	return p
}

func outside(p types.ServicePortConfig) bool {
	if p.Protocol != "" && p.Protocol != "tcp" {
		return false
	}
	a, err := netip.ParseAddr(p.HostIP)
	return err != nil || !a.IsLoopback()
}

// urls are where browsers reach the stack.
func urls(list []status.Address, p published) []string {
	out := []string{}
	scheme := "http"
	switch {
	case p.https:
		scheme = "https"
	case !p.http:
		return out
	}
	for _, a := range list {
		host := a.Address
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		out = append(out, scheme+"://"+host+"/")
	}
	return out
}
