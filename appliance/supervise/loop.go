// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/status"
)

const (
	// resync is the slow look that catches what no event told.
	resync = 5 * time.Minute
	// engineRetry is the longest wait between two tries to reach the engine.
	engineRetry = 10 * time.Second
)

// Watcher tells that something happened.
type Watcher interface {
	Events(ctx context.Context, project string) (<-chan engine.Event, <-chan error)
}

// Engine is all the supervisor needs of an engine.
type Engine interface {
	Observer
	Actor
	Watcher
}

// Config is what a Supervisor is made of.
type Config struct {
	Engine  Engine
	Desired *Desired
	Journal *Journal
	// Boot identifies this boot of the box.
	Boot string
	// Jitter returns a number in [0,1) that spreads restarts.
	Jitter func() float64
	// Publish gets every new Plan; it must not block.
	Publish func(Plan)
	// Alive is called at least every AliveEvery while the loop makes progress.
	Alive      func()
	AliveEvery time.Duration
}

// Supervisor is the loop around Observe, Decide and Act.
type Supervisor struct {
	c        Config
	h        History
	commands chan bool // true: stop the stack, false: run it
	results  chan result
	busy     map[string]Kind
	byHand   map[string]bool
	ours     map[string]int // stops that we asked for and have no event yet
	stopping bool
	fresh    bool
	lost     error // why the engine cannot be reached
	conds    []status.Condition
	ops      sync.WaitGroup
}

type result struct {
	op   Op
	id   string
	err  error
	took time.Duration
}

// New prepares a supervisor; Run does everything.
func New(c Config) (*Supervisor, error) {
	if c.Publish == nil {
		c.Publish = func(Plan) {}
	}
	if c.Alive == nil {
		c.Alive = func() {}
	}
	if c.AliveEvery <= 0 {
		c.AliveEvery = resync
	}
	s := &Supervisor{
		c: c, commands: make(chan bool), results: make(chan result),
		busy: map[string]Kind{}, byHand: map[string]bool{}, ours: map[string]int{},
	}
	h, err := c.Journal.History()
	s.h = h
	if err != nil {
		s.conds = append(s.conds, status.Condition{Code: "supervisor-memory-damaged", Severity: "warning",
			Text: err.Error(), Remedy: "look at the file, then delete it; the condition goes with the next start of the daemon"})
	}
	return s, nil
}

// StopStack asks the loop to stop all services in reverse order, and
// StartStack to run them again; both return once the loop has heard.
func (s *Supervisor) StopStack(ctx context.Context) error { return s.command(ctx, true) }

// StartStack is the opposite of StopStack.
func (s *Supervisor) StartStack(ctx context.Context) error { return s.command(ctx, false) }

func (s *Supervisor) command(ctx context.Context, stop bool) error {
	select {
	case s.commands <- stop:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run supervises until ctx ends. It leaves every container as it is: a daemon
// that is restarted must not interrupt a service.
func (s *Supervisor) Run(ctx context.Context) error {
	defer s.ops.Wait()
	alive := time.NewTicker(s.c.AliveEvery)
	defer alive.Stop()
	s.write(Entry{Act: "daemon", Because: "supervising " + s.c.Desired.Project})
	wait := time.Second
	for ctx.Err() == nil {
		// Subscribed before the first look, so that nothing falls between.
		sub, cancel := context.WithCancel(ctx)
		events, errs := s.c.Engine.Events(sub, s.c.Desired.Project)
		err := s.watch(ctx, events, errs, alive.C)
		cancel()
		if ctx.Err() != nil {
			break
		}
		if s.lost == nil {
			wait = time.Second
			s.write(Entry{Act: "seen", Because: "the engine went away", Error: err.Error()})
		}
		s.lost, s.fresh = err, true
		s.publishLost()
		s.pause(ctx, wait, alive.C)
		wait = min(2*wait, engineRetry)
	}
	return ctx.Err()
}

// watch looks and acts until the engine goes away.
func (s *Supervisor) watch(ctx context.Context, events <-chan engine.Event, errs <-chan error, alive <-chan time.Time) error {
	for {
		next, err := s.round(ctx)
		if err != nil {
			return err
		}
		s.c.Alive()
		wake := time.NewTimer(next)
		again := false
		for !again {
			select {
			case e := <-events:
				s.note(e)
				again = true
			case err := <-errs:
				wake.Stop()
				return err
			case r := <-s.results:
				s.settle(r)
				again = true
			case stop := <-s.commands:
				s.stopping = stop
				again = true
			case <-wake.C:
				again = true
			case <-alive:
				s.c.Alive()
			case <-ctx.Done():
				wake.Stop()
				return ctx.Err()
			}
		}
		wake.Stop()
		s.drain(events)
	}
}

// drain takes what is already there, so that a burst costs one look.
func (s *Supervisor) drain(events <-chan engine.Event) {
	for {
		select {
		case e := <-events:
			s.note(e)
		case r := <-s.results:
			s.settle(r)
		default:
			return
		}
	}
}

// pause waits for the next try to reach the engine.
func (s *Supervisor) pause(ctx context.Context, d time.Duration, alive <-chan time.Time) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			s.c.Alive()
			return
		case r := <-s.results:
			s.settle(r)
		case stop := <-s.commands:
			s.stopping = stop
			s.publishLost()
		case <-alive:
			s.c.Alive()
		case <-ctx.Done():
			return
		}
	}
}

// round is one observe, decide, act; it returns how long nothing can change
// by itself.
func (s *Supervisor) round(ctx context.Context) (time.Duration, error) {
	o, err := Observe(ctx, s.c.Engine, s.c.Desired.Project)
	if err != nil {
		return 0, err
	}
	now := time.Now()
	o.Boot, o.Busy, o.ByHand, o.Stopping, o.Fresh = s.c.Boot, s.busy, s.byHand, s.stopping, s.fresh
	if s.fresh {
		clear(s.byHand)
		clear(s.ours)
	}
	s.fresh, s.lost = false, nil
	h, notes := Advance(s.c.Desired, o, s.h, now, s.c.Jitter)
	for _, n := range notes {
		s.write(Entry{Act: "seen", Service: n.Service, Container: short(n.Container), Because: n.Text})
	}
	plan := Decide(s.c.Desired, o, h, now)
	s.changes(h, plan, now)
	s.h = inherit(s.c.Desired, o, h.Record(plan), plan)
	// On disk before any act: a crash in between repeats an act, which is
	// harmless; the other way round it would forget one.
	s.save()
	s.publish(plan)
	for _, op := range plan.Ops {
		s.dispatch(ctx, op)
	}
	next := resync
	if !plan.Next.IsZero() {
		next = min(next, max(0, plan.Next.Sub(now)))
	}
	return next, nil
}

// inherit remembers the anonymous volumes of containers about to go.
func inherit(d *Desired, o Observed, h History, p Plan) History {
	for _, op := range p.Ops {
		if op.Kind != Remove || d.service(op.Target) == nil {
			continue
		}
		for _, c := range o.Services[op.Target] {
			if v := anonymous(d, &c); c.ID == op.Container && v != nil {
				h = h.clone()
				past := h.Past[op.Target]
				past.Inherit = v
				h.Past[op.Target] = past
			}
		}
	}
	return h
}

func (s *Supervisor) dispatch(ctx context.Context, op Op) {
	s.busy[op.key()] = op.Kind
	if op.Kind == Stop || op.Kind == RestartOp {
		s.ours[op.Container]++
	}
	volumes := s.h.Past[op.Target].Inherit
	s.ops.Go(func() {
		began := time.Now()
		id, err := Act(ctx, s.c.Engine, s.c.Desired, op, volumes)
		select {
		case s.results <- result{op, id, err, time.Since(began)}:
		case <-ctx.Done():
		}
	})
}

// settle takes the result of an operation.
func (s *Supervisor) settle(r result) {
	delete(s.busy, r.op.key())
	e := Entry{Act: string(r.op.Kind), Service: r.op.Target, Container: short(r.op.Container), Because: r.op.Because, Seconds: r.took.Seconds()}
	if r.id != "" {
		e.Container = short(r.id)
	}
	switch {
	case r.err == nil:
		s.h = s.h.Done(r.op, r.id)
	case errors.Is(r.err, engine.ErrUnreachable), errors.Is(r.err, context.Canceled):
		// The engine's failure, not the service's: look again.
		e.Error = r.err.Error()
	default:
		e.Error = r.err.Error()
		s.h = s.h.Failed(r.op, r.err, time.Now(), s.c.Jitter)
	}
	s.write(e)
}

// note sorts an event: a stop nobody here asked for is a person's.
func (s *Supervisor) note(e engine.Event) {
	switch e.Action {
	case "start":
		delete(s.byHand, e.Container)
	case "kill":
		switch e.Signal {
		case "1", "9", "10", "12", "28":
			return // not how one asks for an end: reload, kill -9, winch
		}
		if s.ours[e.Container] > 0 {
			return
		}
		s.byHand[e.Container] = true
	case "stop":
		if s.ours[e.Container] > 0 {
			s.ours[e.Container]--
		}
	case "destroy":
		delete(s.byHand, e.Container)
		delete(s.ours, e.Container)
	}
}

// changes journals what became of services and the stack.
func (s *Supervisor) changes(h History, p Plan, now time.Time) {
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

func (s *Supervisor) save() {
	s.diskCondition(s.c.Journal.Save(s.h))
}

func (s *Supervisor) write(e Entry) {
	e.Time = time.Now()
	s.diskCondition(s.c.Journal.Write(e))
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
			Restarts: past.Restarts, Since: past.Since, Reason: "the engine does not answer"})
	}
	p.Conditions = []status.Condition{{Code: "engine-unreachable", Severity: "critical",
		Text: s.lost.Error(), Remedy: "systemctl status docker; journalctl -u docker"}}
	s.publish(p)
}
