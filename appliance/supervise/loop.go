// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"errors"
	"runtime"
	"slices"
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
	// Processors of the machine, by which healing is throttled; 0 asks Go.
	Processors int
	// Probes make our own checks; nil leaves services with probes starting
	// for ever. Call Wake when a result changes.
	Probes Prober
	// Pressure says what the box lacks; nil where nobody watches. Call Wake
	// when it changes.
	Pressure func() Pressure
	// Event gets every line of the journal; it must not block.
	Event func(status.Event)
	// Stuck is told of a container that the engine did not end in time; it
	// must not block. nil where nobody can help.
	Stuck func(container string)
	// Carry keeps what belongs to the data beside it, see Carried; nil where
	// data never changes under a stack.
	Carry func(Carried) error
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
	oom      map[string]bool
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
	turns    meter
	told     *Carried // what Carry has kept last
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
	if c.Processors <= 0 {
		c.Processors = runtime.NumCPU()
	}
	s := &Supervisor{
		c: c, commands: make(chan bool), requests: make(chan *request), wakes: make(chan struct{}, 1), results: make(chan result), over: make(chan struct{}),
		view: newView(), busy: map[string]Kind{}, under: map[string]Op{}, byHand: map[string]bool{}, oom: map[string]bool{}, ours: map[string]int{},
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
