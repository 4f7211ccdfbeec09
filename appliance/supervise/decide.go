// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/mount"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/compose/stack"
)

// Decide compares what shall be with what is and says what to do now. It is
// pure, and idempotent in this sense: while an operation is Busy, or when
// nothing happened, it asks for nothing twice. h must be Advanced to o.
func Decide(d *Desired, o Observed, h History, now time.Time) Plan {
	x := &decision{d: d, o: o, h: h, now: now, heal: h.heal}
	if o.Stopping {
		x.stopAll()
	} else {
		x.shared()
		for i := range d.Services {
			x.service(&d.Services[i])
		}
		x.orphans()
		x.shedWake()
	}
	for i := range d.Services {
		x.describe(&d.Services[i])
	}
	x.stack()
	x.plan.heal = x.heal
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
	// heal is the throttle, throttled who waits for it.
	heal      bucket
	throttled []string
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
		if x.blocked == "" && x.ready(s.Name) {
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

func (s *Service) dependsOn(name string) bool {
	return slices.ContainsFunc(s.DependsOn, func(d Dependency) bool { return d.Service == name })
}

// replaced reports whether the container that is to stay can do without the
// others: always, but while a start-first update waits for the new one.
func (x *decision) replaced(s *Service, c *engine.Container) bool {
	if c == nil || c.Name != s.next() {
		return true
	}
	return c.State == "running" && (c.Health == "healthy" || c.Health == "none" && x.ranFor(c, settle))
}

// ranFor reports whether a container has run for d, and looks again when it has.
func (x *decision) ranFor(c *engine.Container, d time.Duration) bool {
	at := c.Started.Add(d)
	if at.After(x.now) && !c.Started.After(x.now) { // else the clock was set back
		x.plan.wake(at)
		return false
	}
	return true
}

// replace makes way for a new container, or makes it before the old one goes.
func (x *decision) replace(s *Service, c *engine.Container, why string) {
	if c.State != "running" || !s.startFirst(c) {
		x.discard(s.Name, *c, s.Grace, why)
		return
	}
	if x.blocked == "" {
		x.add(Op{Kind: Create, Target: s.Name, Name: s.next(), Because: why + "; it is started before the old one ends"})
	}
}

// startFirst reports whether two containers of the service may run side by
// side for a moment: they must share nothing that they write or that only
// one can have.
func (s *Service) startFirst(c *engine.Container) bool {
	if s.Update != StartFirst || s.OneShot || len(s.hostPorts()) > 0 || s.Spec.Host.NetworkMode.IsHost() {
		return false
	}
	for _, m := range s.Spec.Host.Mounts {
		if !m.ReadOnly && m.Type != mount.TypeTmpfs {
			return false
		}
	}
	for _, b := range s.Spec.Host.Binds {
		opts := b[strings.LastIndexByte(b, ':')+1:]
		if !slices.Contains(strings.Split(opts, ","), "ro") {
			return false
		}
	}
	for target := range c.Volumes {
		if !slices.ContainsFunc(s.Spec.Host.Mounts, func(m mount.Mount) bool { return m.Target == target }) &&
			!slices.ContainsFunc(s.Spec.Host.Binds, func(b string) bool { return strings.Contains(b, ":"+target+":") }) {
			return false // the image's own volume, which is read-write
		}
	}
	return true
}

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
		if !x.allow(s, p) {
			return
		}
		op.Because = p.Why
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
		if x.waitsFor(s) == "" && x.ready(s.Name) && x.allow(s, p) {
			x.add(Op{Kind: RestartOp, Target: s.Name, Container: c.ID, Grace: s.Grace, Cause: causeUnhealthy, Because: p.Why})
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

// askedBefore reports whether a dependency's restart was asked for too and has
// yet to come: it goes first.
func (x *decision) askedBefore(s *Service) bool {
	return slices.ContainsFunc(s.DependsOn, func(d Dependency) bool { return !x.h.Past[d.Service].Asked.IsZero() })
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
	if !dep.Required && (p.Ended == endGaveUp || p.Failures >= crashLoopAt || p.away() != "") {
		return ""
	}
	why := ""
	switch {
	case dep.Condition == Completed:
		why = "waits for " + s.Name + " to complete"
	case c == nil || !c.Up() || c.Labels[labelHash] != s.Hash || x.hooked(s, c) || x.ending(s):
		why = "waits for " + s.Name + " to start"
		if dep.Condition == Healthy {
			why = "waits for " + s.Name + " to be healthy"
		}
	case dep.Condition == Healthy && c.Health != "healthy" && c.Health != "none":
		why = "waits for " + s.Name + " to be healthy"
	}
	switch {
	case why == "":
	case p.away() != "":
		why += ", which is " + p.away()
	case p.held(x.now):
		why += ", which is held"
	}
	return why
}

// hooked reports whether a container that runs has not started yet, in that
// its post_start hooks have not all ended.
func (x *decision) hooked(s *Service, c *engine.Container) bool {
	return len(s.Hooks.PostStart) > 0 && x.h.Past[s.Name].PostStart == c.ID
}

// ending reports whether a service's container is about to go, or may have
// gone already.
func (x *decision) ending(s *Service) bool {
	switch x.o.Busy[s.Name] {
	case Stop, RestartOp, Remove, Look:
		return true
	}
	return false
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
		if s.dependsOn(name) && slices.ContainsFunc(x.o.Services[s.Name], engineUp) {
			return true
		}
	}
	return false
}
