// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// The verbs of Request.
const (
	VerbRestart = "restart"
	VerbStop    = "stop"
	VerbStart   = "start"
)

// request is what an admin asked for, until it is done.
type request struct {
	verb     string
	services []string
	at       time.Time
	taken    chan error
	done     chan error
}

// Request asks for services to be restarted, stopped or started; none means
// all of them. It returns once the request is on disk, so that it outlives the
// daemon: a service that was stopped stays stopped until it is started. done
// gets one value: nil when every service is as asked for and well, else why
// not. A restart also restarts dependents that say `restart: true`.
func (s *Supervisor) Request(ctx context.Context, verb string, services []string) (done <-chan error, err error) {
	r := &request{verb: verb, services: slices.Clone(services), taken: make(chan error, 1), done: make(chan error, 1)}
	select {
	case s.requests <- r:
	case <-s.over:
		return nil, errOver
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case err := <-r.taken:
		return r.done, err
	case <-s.over:
		return nil, errOver
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// take checks a request and enters it into the memory.
func (s *Supervisor) take(r *request) {
	r.at = time.Now()
	if len(r.services) == 0 {
		for _, svc := range s.c.Desired.Services {
			r.services = append(r.services, svc.Name)
		}
	}
	h, err := s.h.ask(s.c.Desired, r)
	if err == nil && s.stopping && r.verb != VerbStop {
		err = errors.New("the whole stack is stopped: holdfast start-stack first")
	}
	if err == nil {
		if err = s.keep(h); err != nil {
			err = fmt.Errorf("the request cannot be kept on disk: %w", err)
		}
	}
	if err != nil {
		r.taken <- err
		return
	}
	s.h = h
	for _, name := range r.services {
		s.write(Entry{Act: "seen", Service: name, Because: r.verb + " was asked for"})
	}
	s.pending = append(s.pending, r)
	r.taken <- nil
}

// ask returns the memory with a request in it.
func (h History) ask(d *Desired, r *request) (History, error) {
	h = h.clone()
	for _, name := range r.services {
		svc := d.service(name)
		if svc == nil {
			return h, fmt.Errorf("the stack has no service %q", name)
		}
		p := h.Past[name]
		switch r.verb {
		case VerbStop:
			if p.Stopped.IsZero() {
				p.Stopped = r.at
			}
			p.Asked = time.Time{}
		case VerbStart, VerbRestart:
			if p.Shed != nil {
				return h, fmt.Errorf("%s is shed (%s): it comes back by itself once there is room", name, p.Shed.Why)
			}
			for _, dep := range svc.DependsOn {
				if dep.Required && !h.Past[dep.Service].Stopped.IsZero() && !slices.Contains(r.services, dep.Service) {
					return h, fmt.Errorf("%s depends on %s, which is stopped: start both", name, dep.Service)
				}
			}
			if !p.Stopped.IsZero() || p.Ended == endByHand || p.Ended == endGaveUp {
				p.Cause = causeRequest
			}
			if r.verb == VerbRestart {
				p.Asked = r.at
				p.Completed = nil // a one-shot is run again
			}
			p.Stopped = time.Time{}
			if p.Ended != endDone || r.verb == VerbRestart {
				p.Ended = endNone
			}
			p.NotBefore, p.Failures, p.Attempts, p.FailingSince = time.Time{}, 0, 0, time.Time{}
		default:
			return h, fmt.Errorf("no such request: %q", r.verb)
		}
		h.Past[name] = p
	}
	return h, nil
}

// answer tells those whose requests are done, or cannot be.
func (s *Supervisor) answer(p Plan) {
	s.pending = slices.DeleteFunc(s.pending, func(r *request) bool {
		over, err := s.answered(r, p)
		if over {
			r.done <- err
		}
		return over
	})
}

func (s *Supervisor) answered(r *request, p Plan) (over bool, err error) {
	over = true
	for _, name := range r.services {
		past := s.h.Past[name]
		i := slices.IndexFunc(p.Services, func(st status.Service) bool { return st.Name == name })
		if i < 0 {
			continue
		}
		st := p.Services[i]
		switch {
		case r.verb == VerbStop && past.Stopped.IsZero():
			return true, fmt.Errorf("%s was started again meanwhile", name)
		case r.verb == VerbStop:
			over = over && st.State != "running" && st.State != "paused" && s.busy[name] == ""
		case s.stopping:
			return true, errors.New("the whole stack was stopped meanwhile")
		case past.away() != "":
			return true, fmt.Errorf("%s is %s", name, past.away())
		case past.Ended == endRetry || past.Ended == endGaveUp:
			return true, fmt.Errorf("%s: %s", name, st.Reason)
		case !past.Asked.IsZero() || s.busy[name] != "":
			over = false
		default:
			over = over && (st.State == "completed" || st.State == "running" && st.Reason == "")
		}
	}
	return over, nil
}

// abandon answers what the end of the daemon leaves open.
func (s *Supervisor) abandon() {
	for _, r := range s.pending {
		r.done <- errors.New("the daemon ended first; the next one goes on with it")
	}
	s.pending = nil
}

// Plan returns what the supervisor does now and what waits. It may be called
// from anywhere.
func (s *Supervisor) Plan() status.Plan {
	if p := s.plan.Load(); p != nil {
		return *p
	}
	return status.Plan{Time: time.Now(), Ops: []status.PlanOp{}, Waiting: []status.PlanWait{}}
}

// keepPlan makes a plan what Plan returns. Its operations are under way by then.
func (s *Supervisor) keepPlan(p Plan, now time.Time) {
	out := status.Plan{Time: now, Ops: []status.PlanOp{}, Waiting: []status.PlanWait{}, Next: p.Next}
	for _, op := range s.under {
		out.Ops = append(out.Ops, status.PlanOp{Kind: string(op.Kind), Target: op.Target, Container: short(op.Container), Because: op.Because, Running: true})
	}
	slices.SortFunc(out.Ops, func(a, b status.PlanOp) int { return strings.Compare(a.Target+a.Kind, b.Target+b.Kind) })
	for _, st := range p.Services {
		if st.Reason != "" && st.State != "running" {
			out.Waiting = append(out.Waiting, status.PlanWait{Service: st.Name, Because: st.Reason})
		}
	}
	s.plan.Store(&out)
}
