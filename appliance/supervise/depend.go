// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"slices"

	"github.com/holdfast/holdfast/appliance/engine"
)

func (s *Service) dependsOn(name string) bool {
	return slices.ContainsFunc(s.DependsOn, func(d Dependency) bool { return d.Service == name })
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
