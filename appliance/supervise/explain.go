// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"strings"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/status"
)

// describe fills the status of one service.
func (x *decision) describe(s *Service) {
	p := x.h.Past[s.Name]
	c, _ := x.o.pick(s)
	st := status.Service{Name: s.Name, Image: s.Image, Health: "none", Restarts: p.Restarts, State: "waiting"}
	if c != nil {
		st.Container, st.Health = c.ID, c.Health
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
	case p.completed(s, x.d.Generation) && !up:
		st.State = "completed"
	case x.o.Stopping && !up:
		st.Reason = "the stack was stopped"
	case up && c.State == "paused":
		st.Reason = "paused by hand"
	case up && c.Health == "unhealthy":
		st.Reason = p.Why + x.until(p)
	case up && c.Health == "starting":
		st.Reason = "its health check has not passed yet"
	case up:
		if c.Health == "none" && !x.settled(p, c) {
			st.Reason = "it failed before and has not run long enough to count as well"
		}
	case p.Ended == endDone:
		st.State = "completed"
	case p.Ended == endGaveUp, p.Ended == endByHand:
		st.Reason = p.Why
	case p.Ended == endRetry && p.Failures >= crashLoopAt:
		st.State, st.Reason = "crash-loop", fmt.Sprintf("%s; %d failures in a row%s", p.Why, p.Failures, x.until(p))
	case p.Ended == endRetry:
		st.State, st.Reason = "backoff", p.Why+x.until(p)
	case x.blocked != "":
		st.Reason = x.blocked
	case st.Reason == "":
		st.Reason = x.waitsFor(s)
		if st.Reason != "" && st.State == "exited" {
			st.State = "waiting"
		}
	}
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
	at := c.Started.Add(settle)
	if at.After(x.now) {
		x.plan.wake(at)
		return false
	}
	return true
}

// stack sums up, and turns what needs attention into conditions.
func (x *decision) stack() {
	well, bad, up := 0, 0, 0
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
		case p.Ended == endGaveUp || p.Failures >= crashLoopAt:
			bad++
		}
		x.condition(s, p, st)
	}
	switch {
	case x.o.Stopping && up == 0:
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
	if x.blocked != "" && strings.Contains(x.blocked, "external") {
		x.plan.Conditions = append(x.plan.Conditions, status.Condition{Code: "external-missing", Severity: "critical",
			Text: x.blocked, Remedy: "create it with docker network create or docker volume create"})
	}
}

func (x *decision) condition(s *Service, p Past, st status.Service) {
	logs := "docker logs --tail 50 " + s.Spec.Name
	switch {
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

// Record keeps what status shows: states with the time they were entered.
func (h History) Record(p Plan) History {
	h = h.clone()
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
