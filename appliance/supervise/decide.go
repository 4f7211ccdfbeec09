// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/compose/stack"
)

// Decide compares what shall be with what is and says what to do now. It is
// pure, and idempotent in this sense: while an operation is Busy, or when
// nothing happened, it asks for nothing twice. h must be Advanced to o.
func Decide(d *Desired, o Observed, h History, now time.Time) Plan {
	x := &decision{d: d, o: o, h: h, now: now}
	x.plan.heal = h.heal
	if o.Stopping {
		x.stopAll()
	} else {
		x.shared()
		for i := range d.Services {
			x.service(&d.Services[i])
		}
		x.heal()
		x.orphans()
		x.shedWake()
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
	// healing are restarts that the throttle may hold back, throttled is how
	// many of them it does.
	healing   []healing
	throttled int
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
	if p.away() != "" {
		x.keepAway(s, c, extra)
		return
	}
	if x.replaced(s, c) {
		for _, e := range extra {
			x.discard(s.Name, e, s.Grace, "a second container of the service")
		}
		if len(extra) > 0 {
			return
		}
	}
	if x.o.Busy[s.Name] != "" {
		return
	}
	if p.completed(s, x.d.Generation) && (c == nil || !c.Up()) {
		return
	}
	if c == nil {
		if x.blocked == "" && x.ready(s.Name) && x.roomToCreate() {
			x.add(Op{Kind: Create, Target: s.Name, Because: "it has no container"})
		}
		return
	}
	if why := x.outdated(s, c); why != "" {
		if x.ready(s.Name) {
			x.replace(s, c, why)
		}
		return
	}
	x.mend(s, p, c, len(extra) == 0)
	switch c.State {
	case "created", "exited":
		x.start(s, p, c)
	case "running":
		x.tend(s, p, c)
	case "dead":
		x.add(Op{Kind: Remove, Target: s.Name, Container: c.ID, Because: "the engine calls it dead"})
	}
}

// roomToCreate bounds how many containers are made at a time. They are made in
// start order, so that the first ones run, and get healthy, while the engine
// is busy with the others.
func (x *decision) roomToCreate() bool {
	n := 0
	for _, k := range x.o.Busy {
		if k == Create {
			n++
		}
	}
	for _, op := range x.plan.Ops {
		if op.Kind == Create {
			n++
		}
	}
	return n < max(4, 3*x.o.Processors)
}

// keepAway stops a service that shall not run now. Those that were asked to
// stop together end in reverse order.
func (x *decision) keepAway(s *Service, c *engine.Container, extra []engine.Container) {
	p := x.h.Past[s.Name]
	if x.o.Busy[s.Name] != "" || !x.ready(s.Name) {
		return
	}
	if p.Shed == nil {
		for i := range x.d.Services {
			t := &x.d.Services[i]
			if t.dependsOn(s.Name) && !x.h.Past[t.Name].Stopped.IsZero() && slices.ContainsFunc(x.o.Services[t.Name], engineUp) {
				return
			}
		}
	}
	for _, e := range extra {
		if e.Up() {
			x.add(Op{Kind: Stop, Target: s.Name, Container: e.ID, Grace: s.Grace, Because: p.away()})
			return
		}
	}
	if c != nil && c.Up() {
		x.add(Op{Kind: Stop, Target: s.Name, Container: c.ID, Grace: s.Grace, Because: p.away()})
	}
}

func engineUp(c engine.Container) bool { return c.Up() }

// outdated says why a container must be replaced, or "".
func (x *decision) outdated(s *Service, c *engine.Container) string {
	if c.Labels[labelHash] != s.Hash {
		return "its configuration changed"
	}
	p := x.h.Past[s.Name]
	if p.Broken == c.ID && !c.Up() {
		return "it cannot start any more: " + p.Why
	}
	if p.Limits != nil && *p.Limits != c.Limits && !c.Limits.Reaches(*p.Limits) {
		return driftLimits + ", and the engine cannot unset them"
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
		op.Kind, op.Grace, op.Cause = Stop, grace, causeChanged
	}
	if slices.ContainsFunc(x.plan.Ops, func(q Op) bool { return q.key() == op.key() }) {
		return
	}
	x.add(op)
}

func (x *decision) start(s *Service, p Past, c *engine.Container) {
	switch p.Ended {
	case endGaveUp, endDone, endByHand:
		if p.Asked.IsZero() {
			return
		}
	}
	if x.blocked != "" || x.waitsFor(s) != "" || x.underPressure(s) || !x.ready(s.Name) {
		return
	}
	op := Op{Kind: Start, Target: s.Name, Container: c.ID, Because: "its dependencies are ready",
		Cause: p.Cause, Init: c.State == "created", Grace: s.Grace}
	if len(s.DependsOn) == 0 {
		op.Because = "it depends on nothing"
	}
	switch {
	case !p.Asked.IsZero():
		op.Because = "a restart was asked for"
	case p.Ended == endRetry:
		op.Because = p.Why
		x.restart(op, p)
		return
	}
	x.add(op)
}

// underPressure reports whether a service must wait because the next thing to
// happen to it would be that it is shed.
func (x *decision) underPressure(s *Service) bool {
	return s.Sheddable && s.Class != stack.Critical && x.o.Pressure.Level == pressureHigh
}

// tend looks after a container that runs.
func (x *decision) tend(s *Service, p Past, c *engine.Container) {
	if !p.Asked.IsZero() && x.waitsFor(s) == "" && !x.askedBefore(s) {
		x.add(Op{Kind: RestartOp, Target: s.Name, Container: c.ID, Grace: s.Grace, Cause: causeRequest, Because: "a restart was asked for"})
		return
	}
	if p.PostStart == c.ID && len(s.Hooks.PostStart) > 0 {
		x.add(Op{Kind: PostStart, Target: s.Name, Container: c.ID, Grace: s.Grace, Because: "the daemon ended before its post_start hooks did"})
		return
	}
	if c.Health == "unhealthy" && s.Restart.Mode != "no" && p.Ended != endGaveUp {
		// Not while what it depends on is away: that may be why, and it
		// could not start again.
		if x.waitsFor(s) == "" && x.ready(s.Name) {
			x.restart(Op{Kind: RestartOp, Target: s.Name, Container: c.ID, Grace: s.Grace, Cause: causeUnhealthy, Because: p.Why}, p)
		}
		return
	}
	for _, dep := range s.DependsOn {
		ds := x.d.service(dep.Service)
		if !dep.Restart || ds == nil {
			continue
		}
		dc, _ := x.o.pick(ds)
		if dc != nil && dc.Up() && dc.Started.After(c.Started) && !dc.Started.Equal(p.Deps[dep.Service]) && x.unmet(dep) == "" && x.o.Busy[dep.Service] == "" {
			if x.ready(s.Name) {
				x.add(Op{Kind: RestartOp, Target: s.Name, Container: c.ID, Grace: s.Grace, Cause: causeDependency, Because: dep.Service + " was restarted"})
			}
			return
		}
	}
	if p.Failures > 0 && !p.WellSince.IsZero() {
		x.plan.wake(p.WellSince.Add(ResetAfter))
	}
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
