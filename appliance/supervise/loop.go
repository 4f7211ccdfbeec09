// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/probe"
	"github.com/holdfast/holdfast/appliance/status"
)

const (
	// resync is the slow look that catches what no event told.
	resync = 5 * time.Minute
	// saveWithin bounds how far the memory on disk lags behind, see mustSave.
	saveWithin = 2 * time.Second
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
	// Probes make our own checks; nil leaves services with probes starting
	// for ever. Call Wake when a result changes.
	Probes Prober
	// Pressure says what the box lacks; nil where nobody watches. Call Wake
	// when it changes.
	Pressure func() Pressure
	// Event gets every line of the journal; it must not block.
	Event func(status.Event)
}

// Prober checks running containers; *probe.Runner is one.
type Prober interface {
	Set(targets []probe.Target)
	Results() map[string]probe.Result
}

// Supervisor is the loop around Observe, Decide and Act.
type Supervisor struct {
	c        Config
	h        History
	commands chan bool // true: stop the stack, false: run it
	requests chan *request
	wakes    chan struct{}
	results  chan result
	over     chan struct{}       // closed when Run has returned
	keep     func(History) error // makes the memory durable
	view     view
	busy     map[string]Kind
	under    map[string]Op // the operations that make it busy
	byHand   map[string]bool
	ours     map[string]int // stops that we asked for and have no event yet
	pending  []*request
	stopping bool
	fresh    bool
	probed   bool  // some service has probes
	lost     error // why the engine cannot be reached
	conds    []status.Condition
	unsaved  time.Time // when the memory on disk began to lag behind
	number   int64     // of the last event
	plan     atomic.Pointer[status.Plan]
	ops      sync.WaitGroup
}

type result struct {
	op   Op
	id   string
	err  error
	took time.Duration
	said []string
}

// New prepares a supervisor; Run does everything.
func New(c Config) (*Supervisor, error) {
	if c.Publish == nil {
		c.Publish = func(Plan) {}
	}
	if c.Alive == nil {
		c.Alive = func() {}
	}
	if c.Event == nil {
		c.Event = func(status.Event) {}
	}
	if c.AliveEvery <= 0 {
		c.AliveEvery = resync
	}
	s := &Supervisor{
		c: c, commands: make(chan bool), requests: make(chan *request), wakes: make(chan struct{}, 1), results: make(chan result), over: make(chan struct{}),
		view: newView(), busy: map[string]Kind{}, under: map[string]Op{}, byHand: map[string]bool{}, ours: map[string]int{},
		probed: slices.ContainsFunc(c.Desired.Services, func(s Service) bool { return len(s.Probes) > 0 }),
	}
	s.keep = c.Journal.Save
	h, err := c.Journal.History()
	s.h = h
	if err != nil {
		s.conds = append(s.conds, status.Condition{Code: "supervisor-memory-damaged", Severity: "warning",
			Text: err.Error(), Remedy: "look at the file, then delete it; the condition goes with the next start of the daemon"})
	}
	return s, nil
}

// Wake asks for another look because a probe's result or the pressure has
// changed. It never blocks and may be called from anywhere.
func (s *Supervisor) Wake() {
	select {
	case s.wakes <- struct{}{}:
	default:
	}
}

// StopStack asks the loop to stop all services in reverse order, and
// StartStack to run them again; both return once the loop has heard.
func (s *Supervisor) StopStack(ctx context.Context) error { return s.command(ctx, true) }

// StartStack is the opposite of StopStack.
func (s *Supervisor) StartStack(ctx context.Context) error { return s.command(ctx, false) }

var errOver = errors.New("the supervisor has ended")

func (s *Supervisor) command(ctx context.Context, stop bool) error {
	select {
	case s.commands <- stop:
		return nil
	case <-s.over:
		return errOver
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run supervises until ctx ends. It leaves every container as it is: a daemon
// that is restarted must not interrupt a service.
func (s *Supervisor) Run(ctx context.Context) error {
	defer close(s.over)
	defer s.flush()
	defer s.abandon()
	defer s.ops.Wait()
	alive := time.NewTicker(s.c.AliveEvery)
	defer alive.Stop()
	s.write(Entry{Act: "daemon", Because: "supervising " + s.c.Desired.Project})
	wait := time.Second
	for ctx.Err() == nil {
		// Subscribed before the first look, so that nothing falls between.
		sub, cancel := context.WithCancel(ctx)
		events, errs := s.c.Engine.Events(sub, s.c.Desired.Project)
		s.view.whole = true
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
				again = s.note(e)
			case err := <-errs:
				wake.Stop()
				return err
			case r := <-s.results:
				s.settle(r)
				again = true
			case stop := <-s.commands:
				s.stopping = stop
				again = true
			case r := <-s.requests:
				s.take(r)
				again = true
			case <-s.wakes:
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
		case r := <-s.requests:
			s.take(r)
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
	more, err := s.refresh(ctx)
	if err != nil {
		return 0, err
	}
	now := time.Now()
	o := s.observed()
	if s.fresh {
		clear(s.byHand)
		clear(s.ours)
	}
	s.fresh, s.lost = false, nil
	h, notes := Advance(s.c.Desired, o, s.h, now, s.c.Jitter)
	plan := Decide(s.c.Desired, o, h, now)
	before := s.h
	s.h = intend(s.c.Desired, o, h.Record(plan), plan)
	if mustSave(before, s.h, plan, s.c.Desired) {
		s.save()
	}
	for _, op := range plan.Ops {
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
		delete(s.ours, e.Container)
	case "create", "die", "pause", "unpause", "rename", "update", "health_status":
	default:
		return false
	}
	if s.view.knows(e, time.Now()) {
		return false
	}
	s.view.mark(e.Container, e.Service)
	return s.busy[e.Service] == ""
}

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

func (s *Supervisor) save() {
	s.unsaved = time.Time{}
	s.diskCondition(s.keep(s.h))
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
