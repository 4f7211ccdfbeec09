// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
)

// Decide compares what shall be with what is and says what to do now. It is
// pure, and idempotent in this sense: while an operation is Busy, or when
// nothing happened, it asks for nothing twice. h must be Advanced to o.
func Decide(d *Desired, o Observed, h History, now time.Time) Plan {
	x := &decision{d: d, o: o, h: h, now: now}
	if o.Stopping {
		x.stopAll()
	} else {
		x.shared()
		for i := range d.Services {
			x.service(&d.Services[i])
		}
		x.orphans()
	}
	for i := range d.Services {
		x.describe(&d.Services[i])
	}
	x.stack()
	return x.plan
}

type decision struct {
	d    *Desired
	o    Observed
	h    History
	now  time.Time
	plan Plan
	// blocked is what stands in the way of every container, "" if nothing.
	blocked string
}

func (x *decision) add(op Op) {
	if x.o.Busy[op.key()] == "" {
		x.plan.Ops = append(x.plan.Ops, op)
	}
}

// ready reports whether the wait after the last failure of key is over.
func (x *decision) ready(key string) bool {
	until := x.notBefore(x.h.Past[key])
	if until.After(x.now) {
		x.plan.wake(until)
		return false
	}
	return true
}

// notBefore is when the wait after the last failure ends. A clock that was
// set back must not turn seconds into years.
func (x *decision) notBefore(p Past) time.Time {
	if latest := x.now.Add(backoffMax); p.NotBefore.After(latest) {
		return latest
	}
	return p.NotBefore
}

// shared creates networks and volumes; containers wait for all of them.
func (x *decision) shared() {
	for _, n := range x.d.Networks {
		if !x.o.Networks[n.Name] {
			x.shareOne(Op{Kind: CreateNetwork, Target: n.Name, Because: "the stack has it and the engine does not"})
		}
	}
	for _, v := range x.d.Volumes {
		if !x.o.Volumes[v.Name] {
			x.shareOne(Op{Kind: CreateVolume, Target: v.Name, Because: "the stack has it and the engine does not"})
		}
	}
	for _, n := range x.d.ExternalNetworks {
		if !x.o.Networks[n] {
			x.blocked = fmt.Sprintf("the external network %s does not exist", n)
		}
	}
	for _, v := range x.d.ExternalVolumes {
		if !x.o.Volumes[v] {
			x.blocked = fmt.Sprintf("the external volume %s does not exist", v)
		}
	}
}

func (x *decision) shareOne(op Op) {
	x.blocked = "waits for " + op.key()
	if why := x.h.Past[op.key()].Why; why != "" {
		x.blocked += ": " + why
	}
	if x.ready(op.key()) {
		x.add(op)
	}
}

// service decides the next step of one service: at most one operation, plus
// the removal of containers that are in its way.
func (x *decision) service(s *Service) {
	p := x.h.Past[s.Name]
	c, extra := x.o.pick(s)
	for _, e := range extra {
		x.discard(s.Name, e, s.Grace, "a second container of the service")
	}
	if len(extra) > 0 || x.o.Busy[s.Name] != "" {
		return
	}
	if p.completed(s, x.d.Generation) && (c == nil || !c.Up()) {
		return
	}
	if c == nil {
		if x.blocked == "" && x.ready(s.Name) {
			x.add(Op{Kind: Create, Target: s.Name, Because: "it has no container"})
		}
		return
	}
	if why := x.outdated(s, c); why != "" {
		if x.ready(s.Name) {
			x.discard(s.Name, *c, s.Grace, why)
		}
		return
	}
	switch c.State {
	case "created", "exited":
		x.start(s, p, c)
	case "running":
		x.tend(s, p, c)
	case "dead":
		x.add(Op{Kind: Remove, Target: s.Name, Container: c.ID, Because: "the engine calls it dead"})
	}
}

// outdated says why a container must be replaced, or "".
func (x *decision) outdated(s *Service, c *engine.Container) string {
	if c.Labels[labelHash] != s.Hash {
		return "its configuration changed"
	}
	// A one-shot of an older generation that ended must not pass for this
	// one's.
	if s.OneShot && !c.Up() && c.State != "created" && c.Labels[labelGeneration] != fmt.Sprint(x.d.Generation) {
		return "it ran for an older generation"
	}
	return ""
}

// discard ends and removes a container, one step a look.
func (x *decision) discard(name string, c engine.Container, grace time.Duration, why string) {
	op := Op{Kind: Remove, Target: name, Container: c.ID, Because: why}
	if c.Up() || c.State == "restarting" {
		op.Kind, op.Grace = Stop, grace
	}
	if slices.ContainsFunc(x.plan.Ops, func(q Op) bool { return q.key() == op.key() }) {
		return
	}
	x.add(op)
}

func (x *decision) start(s *Service, p Past, c *engine.Container) {
	switch p.Ended {
	case endGaveUp, endDone, endByHand:
		return
	}
	if x.blocked != "" || x.waitsFor(s) != "" || !x.ready(s.Name) {
		return
	}
	op := Op{Kind: Start, Target: s.Name, Container: c.ID, Because: "its dependencies are ready"}
	if len(s.DependsOn) == 0 {
		op.Because = "it depends on nothing"
	}
	if p.Ended == endRetry {
		op.Counts = c.State == "exited"
		op.Because = p.Why
	}
	x.add(op)
}

// tend looks after a container that runs.
func (x *decision) tend(s *Service, p Past, c *engine.Container) {
	if c.Health == "unhealthy" && s.Restart.Mode != "no" && p.Ended != endGaveUp {
		if x.ready(s.Name) {
			x.add(Op{Kind: RestartOp, Target: s.Name, Container: c.ID, Grace: s.Grace, Counts: true, Because: p.Why})
		}
		return
	}
	for _, dep := range s.DependsOn {
		ds := x.d.service(dep.Service)
		if !dep.Restart || ds == nil {
			continue
		}
		dc, _ := x.o.pick(ds)
		if dc != nil && dc.Up() && dc.Started.After(c.Started) && x.unmet(dep) == "" {
			x.add(Op{Kind: RestartOp, Target: s.Name, Container: c.ID, Grace: s.Grace, Because: dep.Service + " was restarted"})
			return
		}
	}
	if p.Failures > 0 && !p.WellSince.IsZero() {
		x.plan.wake(p.WellSince.Add(s.resetAfter()))
	}
}

// waitsFor names the first dependency that is not ready, or "".
func (x *decision) waitsFor(s *Service) string {
	for _, dep := range s.DependsOn {
		if why := x.unmet(dep); why != "" {
			return why
		}
	}
	return ""
}

// unmet says what a dependency still lacks, or "".
func (x *decision) unmet(dep Dependency) string {
	s := x.d.service(dep.Service)
	if s == nil {
		return ""
	}
	p := x.h.Past[s.Name]
	c, _ := x.o.pick(s)
	if p.completed(s, x.d.Generation) && dep.Condition != Healthy {
		return ""
	}
	if !dep.Required && (p.Ended == endGaveUp || p.Failures >= crashLoopAt) {
		return ""
	}
	if dep.Condition == Completed {
		return "waits for " + s.Name + " to complete"
	}
	if c == nil || !c.Up() || c.Labels[labelHash] != s.Hash {
		if dep.Condition == Healthy {
			return "waits for " + s.Name + " to be healthy"
		}
		return "waits for " + s.Name + " to start"
	}
	if dep.Condition == Healthy && c.Health != "healthy" && c.Health != "none" {
		return "waits for " + s.Name + " to be healthy"
	}
	return ""
}

// orphans removes containers of services the stack no longer has: old and
// new must not run side by side.
func (x *decision) orphans() {
	// Map order must not show in a plan.
	for _, name := range slices.Sorted(maps.Keys(x.o.Services)) {
		if x.d.service(name) != nil {
			continue
		}
		for _, c := range x.o.Services[name] {
			if x.ready(name) {
				x.discard(name, c, 10*time.Second, "the stack has no such service")
			}
		}
	}
}

// stopAll stops services in reverse order, each once nothing that depends on
// it runs any more, so that a database closes after its last client.
func (x *decision) stopAll() {
	for i := len(x.d.Services) - 1; i >= 0; i-- {
		s := &x.d.Services[i]
		if x.dependentRuns(s.Name) {
			continue
		}
		for _, c := range x.o.Services[s.Name] {
			if c.Up() && x.ready(s.Name) {
				x.add(Op{Kind: Stop, Target: s.Name, Container: c.ID, Grace: s.Grace, Because: "the stack is being stopped"})
				break
			}
		}
	}
}

func (x *decision) dependentRuns(name string) bool {
	for i := range x.d.Services {
		s := &x.d.Services[i]
		if !slices.ContainsFunc(s.DependsOn, func(d Dependency) bool { return d.Service == name }) {
			continue
		}
		if slices.ContainsFunc(x.o.Services[s.Name], engine.Container.Up) {
			return true
		}
	}
	return false
}
