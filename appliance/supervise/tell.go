// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// changes journals what became of services and the stack.
func (s *Supervisor) changes(h History, p Plan) {
	for _, st := range p.Services {
		if h.Past[st.Name].State != st.State {
			s.write(Entry{Act: "state", Service: st.Name, Container: short(st.Container), Because: st.State + reason(st.Reason)})
		}
	}
	if p.Stack == "healthy" && h.WasHealthy != h.Boot {
		s.write(Entry{Act: "stack", Because: "healthy for the first time in this boot"})
	}
}

func reason(r string) string {
	if r == "" {
		return ""
	}
	return ": " + r
}

func (s *Supervisor) save() bool {
	s.unsaved = time.Time{}
	err := s.keep(s.h)
	s.diskCondition(err)
	return err == nil
}

// flush saves what has not been saved yet.
func (s *Supervisor) flush() {
	if !s.unsaved.IsZero() {
		s.save()
	}
}

func (s *Supervisor) write(e Entry) {
	e.Time = time.Now()
	s.diskCondition(s.c.Journal.Write(e))
	s.number++
	s.c.Event(status.Event{Number: s.number, Time: e.Time, Service: e.Service, Container: e.Container,
		Act: e.Act, Because: e.Because, Error: e.Error, Seconds: e.Seconds})
}

// diskCondition reports a journal that cannot be written; a full disk must
// not stop supervision.
func (s *Supervisor) diskCondition(err error) {
	const code = "supervisor-journal"
	var keep []status.Condition
	for _, c := range s.conds {
		if c.Code != code {
			keep = append(keep, c)
		}
	}
	s.conds = keep
	if err != nil {
		s.conds = append(s.conds, status.Condition{Code: code, Severity: "warning",
			Text: "the supervisor cannot write its journal: " + err.Error(), Remedy: "make room on /var, or look at the disk with journalctl -k"})
	}
}

func (s *Supervisor) publish(p Plan) {
	p.Conditions = append(p.Conditions, s.conds...)
	s.c.Publish(p)
}

// publishLost shows the last known services while the engine is away.
func (s *Supervisor) publishLost() {
	p := Plan{Stack: "degraded"}
	if s.h.WasHealthy != s.c.Boot {
		p.Stack = "starting"
	}
	if s.stopping {
		p.Stack = "stopping"
	}
	for _, svc := range s.c.Desired.Services {
		past := s.h.Past[svc.Name]
		p.Services = append(p.Services, status.Service{Name: svc.Name, Image: svc.Image, State: "unknown", Health: "none",
			Restarts: past.Restarts, RestartsBy: past.RestartsBy, Failures: past.Failures, Class: string(svc.Class), OneShot: svc.OneShot,
			Since: past.Since, Reason: "the engine does not answer"})
	}
	p.Conditions = []status.Condition{{Code: "engine-unreachable", Severity: "critical",
		Text: s.lost.Error(), Remedy: "systemctl status docker; journalctl -u docker"}}
	s.keepPlan(p, time.Now())
	s.publish(p)
}
