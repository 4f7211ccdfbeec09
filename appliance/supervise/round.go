// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
)

type result struct {
	op   Op
	id   string
	err  error
	took time.Duration
	said []string
}

// round is one observe, decide, act; it returns how long nothing can change
// by itself.
func (s *Supervisor) round(ctx context.Context) (time.Duration, error) {
	defer s.turns.turn(time.Now())
	more, err := s.refresh(ctx)
	if err != nil {
		return 0, err
	}
	now := time.Now()
	o := s.observed()
	if s.fresh {
		clear(s.byHand)
		clear(s.oom)
		clear(s.ours)
	}
	s.fresh, s.lost = false, nil
	h, notes := Advance(s.c.Desired, o, s.h, now, s.c.Jitter)
	plan := Decide(s.c.Desired, o, h, now)
	before := s.h
	s.h = intend(s.c.Desired, o, h.Record(plan), plan)
	kept := true
	if mustSave(before, s.h, plan, s.c.Desired) {
		kept = s.save()
	}
	for _, op := range plan.Ops {
		if !kept && op.Kind == Remove && len(s.h.Past[op.Target].Inherit) > 0 {
			// Nothing but the memory would know these volumes. Services that
			// are well go on; this one waits for the disk.
			plan.wake(now.Add(engineRetry))
			continue
		}
		s.dispatch(ctx, op)
	}
	// All that only tells comes after the acts.
	if s.unsaved.IsZero() && !reflect.DeepEqual(before.Past, s.h.Past) {
		s.unsaved = now
	}
	for _, n := range notes {
		s.write(Entry{Act: "seen", Service: n.Service, Container: short(n.Container), Because: n.Text})
	}
	s.changes(h, plan)
	s.carry(o)
	s.answer(plan)
	s.keepPlan(plan, now)
	s.publish(plan)
	return s.next(plan, more), nil
}

// next is how long nothing can change by itself. The memory that lags behind
// is saved on the way.
func (s *Supervisor) next(plan Plan, more bool) time.Duration {
	if more || s.view.whole {
		return 0
	}
	now := time.Now()
	next := max(0, resync-now.Sub(s.view.wholeAt))
	if !plan.Next.IsZero() {
		next = min(next, max(0, plan.Next.Sub(now)))
	}
	for _, at := range s.view.guessed {
		next = min(next, max(0, at.Sub(now)))
	}
	if s.view.holders {
		next = min(next, max(0, holdersPause-now.Sub(s.view.holdersAt)))
	}
	if !s.unsaved.IsZero() {
		left := saveWithin - now.Sub(s.unsaved)
		if left <= 0 || left > saveWithin {
			s.save()
		} else {
			next = min(next, left)
		}
	}
	return next
}

// intend remembers what a crash in the middle of the acts must not lose: the
// anonymous volumes of a container about to go, and hooks about to be due.
func intend(d *Desired, o Observed, h History, p Plan) History {
	cloned := false
	for _, op := range p.Ops {
		svc := d.service(op.Target)
		if svc == nil {
			continue
		}
		past := h.Past[op.Target]
		switch {
		case op.Kind == Remove:
			past.Removing = op.Container
			for _, c := range o.Services[op.Target] {
				if v := anonymous(d, &c); c.ID == op.Container && v != nil {
					past.Inherit = v
				}
			}
		case op.Kind == Start || op.Kind == RestartOp:
			past.Deps = nil
			for _, dep := range svc.DependsOn {
				if ds := d.service(dep.Service); dep.Restart && ds != nil {
					if c, _ := o.pick(ds); c != nil {
						past.Deps = with1(past.Deps, dep.Service, c.Started)
					}
				}
			}
			if len(svc.Hooks.PostStart) > 0 {
				past.PostStart = op.Container
			}
		default:
			continue
		}
		if !cloned {
			h, cloned = h.clone(), true
		}
		h.Past[op.Target] = past
	}
	return h
}

func with1[K comparable, V any](m map[K]V, k K, v V) map[K]V {
	if m == nil {
		m = map[K]V{}
	}
	m[k] = v
	return m
}

// mustSave reports whether the memory must be on disk before the acts of a
// plan. A crash that forgets anything else repeats a harmless act or starts a
// count anew; a wait for the disk before each restart would cost more.
func mustSave(before, after History, p Plan, d *Desired) bool {
	for _, op := range p.Ops {
		switch op.Kind {
		case Remove, Stop:
			return true
		case Start, RestartOp:
			if after.Past[op.Target].PostStart != "" {
				return true
			}
		}
	}
	for i := range d.Services {
		if n := d.Services[i].Name; d.Services[i].OneShot && before.Past[n].Completed != after.Past[n].Completed {
			return true
		}
	}
	return false
}

func (s *Supervisor) dispatch(ctx context.Context, op Op) {
	delete(s.view.died, op.Container)
	s.busy[op.key()], s.under[op.key()] = op.Kind, op
	if op.Kind == Stop || op.Kind == RestartOp {
		s.ours[op.Container]++
	}
	volumes := s.h.Past[op.Target].Inherit
	s.ops.Go(func() {
		began := time.Now()
		var said []string
		op.Said = func(text string) { said = append(said, text) }
		id, err := Act(ctx, s.c.Engine, s.c.Desired, op, volumes)
		select {
		case s.results <- result{op, id, err, time.Since(began), said}:
		case <-ctx.Done():
		}
	})
}

// settle takes the result of an operation.
func (s *Supervisor) settle(r result) {
	if s.unsaved.IsZero() {
		s.unsaved = time.Now()
	}
	delete(s.busy, r.op.key())
	delete(s.under, r.op.key())
	e := Entry{Act: string(r.op.Kind), Service: r.op.Target, Container: short(r.op.Container), Because: r.op.Because, Seconds: r.took.Seconds()}
	if r.id != "" {
		e.Container = short(r.id)
	}
	v := &s.view
	v.mark(r.op.Container, r.op.Target)
	v.mark(r.id, r.op.Target)
	switch {
	case r.err == nil:
		s.h = s.h.Done(r.op, r.id)
		switch r.op.Kind {
		case CreateNetwork:
			v.networks[r.op.Target] = true
		case CreateVolume:
			v.volumes[r.op.Target] = true
		case Remove:
			v.drop(r.op.Container)
		case Start, RestartOp:
			if svc := s.c.Desired.service(r.op.Target); svc != nil && len(svc.Probes) == 0 {
				v.started(r.op.Container, time.Now())
			} // probes need its new address
		}
		v.holders = v.holders || len(v.foreign) > 0
	case errors.Is(r.err, engine.ErrUnreachable), errors.Is(r.err, context.Canceled):
		// The engine's failure, not the service's: look again.
		e.Error = r.err.Error()
		if s.c.Stuck != nil && errors.Is(r.err, engine.ErrUnreachable) && (r.op.Kind == Stop || r.op.Kind == RestartOp) {
			s.c.Stuck(r.op.Container)
		}
		v.whole = true
	case errors.Is(r.err, engine.ErrNotFound) && r.op.Container != "":
		e.Error = r.err.Error()
		v.doubts[r.op.Container] = r
	default:
		e.Error = r.err.Error()
		s.failed(r)
	}
	for _, text := range r.said {
		s.write(Entry{Act: "seen", Service: r.op.Target, Container: e.Container, Because: text})
	}
	s.write(e)
}

// failed counts an operation that the engine refused.
func (s *Supervisor) failed(r result) {
	s.h = s.h.Failed(r.op, r.err, time.Now(), s.c.Jitter)
	if r.op.Kind == Start && errors.Is(r.err, engine.ErrNotFound) {
		p := s.h.Past[r.op.Target] // Failed has copied the map
		p.Broken = r.op.Container
		s.h.Past[r.op.Target] = p
	}
	switch r.op.Kind {
	case Create:
		s.view.whole = true // the name may be one of ours that was lost sight of
	case Start, Rename:
		s.view.holders = true
	}
}

// note sorts an event, and reports whether it calls for a look. A stop nobody
// here asked for is a person's.
func (s *Supervisor) note(e engine.Event) (look bool) {
	action, _, _ := strings.Cut(e.Action, ":")
	switch action {
	case "start":
		delete(s.byHand, e.Container)
		delete(s.oom, e.Container)
	case "oom":
		s.starved(e)
		return false
	case "kill":
		switch e.Signal {
		case "1", "9", "10", "12", "28":
			return false // not how one asks for an end: reload, kill -9, winch
		}
		if s.ours[e.Container] == 0 {
			s.byHand[e.Container] = true
		}
		return false
	case "stop":
		if s.ours[e.Container] > 0 {
			s.ours[e.Container]--
		}
		return false
	case "destroy":
		delete(s.byHand, e.Container)
		delete(s.oom, e.Container)
		delete(s.ours, e.Container)
	case "die":
		if k := s.busy[e.Service]; k == Start || k == RestartOp {
			s.view.died[e.Container] = true
		}
	case "create", "pause", "unpause", "rename", "update", "health_status":
	default:
		return false
	}
	if s.view.knows(e, time.Now()) {
		return false
	}
	s.view.mark(e.Container, e.Service)
	return s.busy[e.Service] == ""
}

// tellsLate bounds how long after the start that followed an end the engine
// may still tell that the end was for lack of memory.
const tellsLate = 10 * time.Second

// starved keeps what the kernel did until the end is judged. Where that has
// been, the record still gets the reason.
func (s *Supervisor) starved(e engine.Event) {
	c, p := s.view.find(e.Container), s.h.Past[e.Service]
	if c != nil && p.Container == c.ID && p.Why == killedText && (!c.Up() || e.Time.Sub(c.Started) < tellsLate) {
		s.write(Entry{Act: "seen", Service: e.Service, Because: "its last end was for lack of memory: the engine says so only now"})
		return
	}
	s.oom[e.Container] = true
}
