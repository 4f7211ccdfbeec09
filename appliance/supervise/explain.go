// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/compose/stack"
)

// describe fills the status of one service.
func (x *decision) describe(s *Service) {
	p := x.h.Past[s.Name]
	c, _ := x.o.pick(s)
	st := status.Service{Name: s.Name, Image: s.Image, Health: "none", State: "waiting",
		Restarts: p.Restarts, RestartsBy: p.RestartsBy, Failures: p.Failures, Class: string(s.Class), OneShot: s.OneShot}
	if st.Class == "" {
		st.Class = string(stack.Normal)
	}
	if c != nil {
		st.Container, st.ContainerName, st.Health, st.Probes = c.ID, c.Name, c.Health, x.probes(s, c)
		switch {
		case c.State == "running":
			st.State = "running"
		case c.State == "created":
			st.State = "created"
		case c.State == "exited" || c.State == "dead":
			st.State, st.Health = "exited", "none"
		case c.State == "paused":
			st.State = "paused"
		default: // "restarting", "removing": the engine is at it
			st.State, st.Reason = "waiting", "the engine says "+c.State
		}
	}
	x.explain(s, p, c, &st)
	st.Since = x.now
	if p.State == st.State && !p.Since.IsZero() {
		st.Since = p.Since
	}
	x.plan.Services = append(x.plan.Services, st)
}

// explain gives a service that is not well its state and its reason.
func (x *decision) explain(s *Service, p Past, c *engine.Container, st *status.Service) {
	up := c != nil && c.Up()
	switch {
	case p.Shed != nil && !up:
		st.State, st.Reason = "shed", p.Shed.Why
	case !p.Stopped.IsZero() && !up:
		st.State, st.Reason = "stopped", "stopped on request"
	case p.away() != "":
		st.Reason = "is being " + p.away()
	case p.completed(s, x.d.Generation) && !up:
		st.State = "completed"
	case x.o.Stopping && !up:
		st.Reason = "the stack was stopped"
	case up && c.State == "paused":
		st.Reason = "paused by hand"
	case up && c.Health == "unhealthy":
		st.Reason = p.Why + x.until(p)
		if why := x.waitsFor(s); why != "" {
			st.Reason = p.Why + "; its restart " + why
		}
	case up && c.Health == "starting":
		st.Reason = "its health check has not passed yet"
	case up:
		if c.Health == "none" && !x.settled(p, c) {
			st.Reason = "it failed before and has not run long enough to count as well"
			break
		}
		if c.Name == s.next() {
			st.Reason = "it takes over from an older container"
			break
		}
		for _, dep := range s.DependsOn {
			if away := x.h.Past[dep.Service].away(); away != "" && dep.Required {
				st.Reason = dep.Service + ", which it depends on, is " + away
			}
		}
	case p.Ended == endDone:
		st.State = "completed"
	case p.Ended == endGaveUp, p.Ended == endByHand:
		st.Reason = p.Why
	case p.Ended == endRetry && p.held(x.now):
		st.State, st.Reason = "held", fmt.Sprintf("%s; %d failures in a row since %s%s",
			p.Why, p.Failures, p.FailingSince.UTC().Format("2006-01-02 15:04 MST"), x.until(p))
		st.NextTry = x.notBefore(p)
	case p.Ended == endRetry && p.Failures >= crashLoopAt:
		st.NextTry = x.notBefore(p)
		st.State, st.Reason = "crash-loop", fmt.Sprintf("%s; %d failures in a row%s", p.Why, p.Failures, x.until(p))
	case p.Ended == endRetry:
		st.NextTry = x.notBefore(p)
		st.State, st.Reason = "backoff", p.Why+x.until(p)
	case x.blocked != "":
		st.Reason = x.blocked
	case st.Reason == "":
		st.Reason = x.waitsFor(s)
		if st.Reason == "" && x.underPressure(s) {
			st.Reason = "waits for the end of the pressure: " + x.o.Pressure.why()
		}
		if st.Reason != "" && st.State == "exited" {
			st.State = "waiting"
		}
	}
}

// probes are the results of our own checks, for status.
func (x *decision) probes(s *Service, c *engine.Container) []status.Probe {
	if len(s.Probes) == 0 || !c.Up() {
		return nil
	}
	r := x.o.Probes[c.ID]
	out := make([]status.Probe, 0, len(s.Probes))
	for i, p := range s.Probes {
		st := status.Probe{Kind: p.Kind, Health: "starting", Since: r.Since}
		if i < len(r.Checks) {
			st.Health, st.Output = r.Checks[i].Health, r.Checks[i].Output
		}
		out = append(out, st)
	}
	return out
}

func (x *decision) until(p Past) string {
	if p.Ended != endRetry || !p.NotBefore.After(x.now) {
		return ""
	}
	return "; next try in " + x.notBefore(p).Sub(x.now).Round(time.Second).String()
}

// settled reports whether a container without a health check counts as well.
func (x *decision) settled(p Past, c *engine.Container) bool {
	if p.Failures == 0 {
		return true
	}
	return x.ranFor(c, settle)
}

// stack sums up, and turns what needs attention into conditions.
func (x *decision) stack() {
	well, bad, up, asked := 0, 0, 0, 0
	for i, st := range x.plan.Services {
		p := x.h.Past[st.Name]
		s := &x.d.Services[i]
		isUp := st.State == "running" || st.State == "paused"
		if isUp {
			up++
		}
		switch {
		case st.State == "completed", st.State == "running" && st.Reason == "":
			well++
		case !p.Stopped.IsZero() && !isUp:
			asked++
		case p.Ended == endGaveUp || p.Failures >= crashLoopAt:
			bad++
		}
		x.condition(s, p, st)
	}
	switch {
	// An admin who stopped all of it needs no alarm.
	case x.o.Stopping && up == 0, asked > 0 && up == 0 && well+asked == len(x.plan.Services):
		x.plan.Stack = "stopped"
	case x.o.Stopping:
		x.plan.Stack = "stopping"
	case well == len(x.plan.Services):
		x.plan.Stack = "healthy"
	case bad > 0 || (x.h.WasHealthy != "" && x.h.WasHealthy == x.o.Boot):
		x.plan.Stack = "degraded"
	default:
		x.plan.Stack = "starting"
	}
	if x.plan.Stack == "stopped" && !x.o.Stopping {
		// One line for all, not one for each.
		x.plan.Conditions = slices.DeleteFunc(x.plan.Conditions, func(c status.Condition) bool { return c.Code == "service-stopped" })
		x.plan.Conditions = append(x.plan.Conditions, status.Condition{Code: "service-stopped", Severity: "info",
			Text: "all services were stopped on request", Remedy: "holdfast start"})
	}
	x.throttleCondition()
	for _, f := range x.o.Foreign {
		x.plan.Conditions = append(x.plan.Conditions, status.Condition{Code: "foreign-container", Severity: "info",
			Text:   fmt.Sprintf("container %s, which is not of this stack, holds %s of %s; it is left alone", f.Container, f.Holds, f.Service),
			Remedy: "docker rename or docker stop " + f.Container + ", if it need not be there"})
	}
	if x.blocked != "" && strings.Contains(x.blocked, "external") {
		x.plan.Conditions = append(x.plan.Conditions, status.Condition{Code: "external-missing", Severity: "critical",
			Text: x.blocked, Remedy: "create it with docker network create or docker volume create"})
	}
}

func (x *decision) condition(s *Service, p Past, st status.Service) {
	logs := "holdfast logs " + s.Name
	x.driftCondition(s, p)
	switch {
	case p.Shed != nil:
		x.plan.Conditions = append(x.plan.Conditions, status.Condition{Code: "service-shed", Severity: "warning",
			Text:   fmt.Sprintf("%s is stopped so that the others have room: %s", s.Name, p.Shed.Why),
			Remedy: "it comes back by itself after a minute without pressure; holdfast top shows who uses what"})
	case !p.Stopped.IsZero():
		x.plan.Conditions = append(x.plan.Conditions, status.Condition{Code: "service-stopped", Severity: "info",
			Text: s.Name + " was stopped on request", Remedy: "holdfast start " + s.Name})
	case st.State == "paused":
		x.plan.Conditions = append(x.plan.Conditions, status.Condition{Code: "service-paused", Severity: "warning",
			Text: s.Name + " was paused by hand", Remedy: "docker unpause " + st.ContainerName})
	case p.held(x.now) && p.WellSince.IsZero() && p.Ended != endGaveUp:
		x.plan.Conditions = append(x.plan.Conditions, status.Condition{Code: "service-held", Severity: "critical",
			Text: fmt.Sprintf("%s has failed %d times in a row since %s and is only tried every %s now, last: %s", s.Name, p.Failures,
				p.FailingSince.UTC().Format("2006-01-02 15:04 MST"), backoffMax, p.Why),
			Remedy: logs + "; mend the cause, then holdfast restart " + s.Name})
	case p.Ended == endGaveUp:
		x.plan.Conditions = append(x.plan.Conditions, status.Condition{Code: "service-failed", Severity: "critical",
			Text: fmt.Sprintf("%s is not restarted: %s", s.Name, p.Why), Remedy: logs})
	case p.Failures >= crashLoopAt:
		x.plan.Conditions = append(x.plan.Conditions, status.Condition{Code: "service-crash-loop", Severity: "critical",
			Text: fmt.Sprintf("%s failed %d times in a row, last: %s", s.Name, p.Failures, p.Why), Remedy: logs})
	case st.Health == "unhealthy":
		x.plan.Conditions = append(x.plan.Conditions, status.Condition{Code: "service-unhealthy", Severity: "warning",
			Text: s.Name + " is " + p.Why, Remedy: logs})
	case p.Ended == endByHand:
		x.plan.Conditions = append(x.plan.Conditions, status.Condition{Code: "service-stopped-by-hand", Severity: "warning",
			Text: s.Name + " was stopped by hand and its restart policy respects that", Remedy: "docker start " + s.Spec.Name})
	}
}

// driftCondition tells for a while what was mended.
func (x *decision) driftCondition(s *Service, p Past) {
	stuck := x.h.Past["name of "+s.Name].Why
	if stuck == "" {
		stuck = x.h.Past["limits of "+s.Name].Why
	}
	switch {
	case stuck != "":
		x.plan.Conditions = append(x.plan.Conditions, status.Condition{Code: "service-drift", Severity: "warning",
			Text: fmt.Sprintf("%s is not as the stack says and could not be mended yet: %s", s.Name, stuck), Remedy: "holdfast plan"})
	case p.Drift != nil && x.now.Sub(p.Drift.At) < driftShown:
		x.plan.wake(p.Drift.At.Add(driftShown))
		x.plan.Conditions = append(x.plan.Conditions, status.Condition{Code: "service-drift", Severity: "info",
			Text:   fmt.Sprintf("%s: %s at %s; that is mended", s.Name, p.Drift.Text, p.Drift.At.UTC().Format("15:04:05 MST")),
			Remedy: "nothing to do; change the stack instead"})
	}
}

// Record keeps what status shows: states with the time they were entered.
func (h History) Record(p Plan) History {
	h = h.clone()
	h.heal = p.heal
	for _, s := range p.Services {
		past := h.Past[s.Name]
		past.State, past.Since = s.State, s.Since
		h.Past[s.Name] = past
	}
	if p.Stack == "healthy" {
		h.WasHealthy = h.Boot
	}
	return h
}
