// SPDX-License-Identifier: Apache-2.0

// Package probe checks running containers by itself: over HTTP, TCP, with a
// command inside, or by how long they have run. It takes over the words and
// the counting of a Compose health check (interval, timeout, start period,
// retries), so that a probe and a health check of the same numbers judge
// alike.
//
// Its inputs are the containers that run, with their addresses, and the
// probes of their services; its output is one Result for each container. It
// restarts nothing and knows no order: the supervisor does both. It follows no
// redirect, reads a bounded part of an answer, and never counts a failure of
// the engine as one of the service.
package probe

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/compose/stack"
)

// Engine is what exec probes need; *engine.Docker has it.
type Engine interface {
	Exec(ctx context.Context, container string, command []string) (engine.ExecResult, error)
	ExecRuns(ctx context.Context, exec string) (bool, error)
}

// The states of a container, in the engine's words for its own checks.
const (
	Starting  = "starting"
	Healthy   = "healthy"
	Unhealthy = "unhealthy"
)

// Target is one running container that is to be checked.
type Target struct {
	// Container is the id, Service the name that messages use.
	Container string
	Service   string
	// Started is when this run of the container began: another run starts
	// the judgement over.
	Started time.Time
	// IPs are the container's addresses, or those of the container whose
	// network it shares; tried in order. The loopback for the host's network.
	IPs []netip.Addr
	// Probes of the service, as the stack says them.
	Probes []stack.Probe
}

// Result is what the probes of one container say together.
type Result struct {
	// Health is Unhealthy if one probe is, else Starting if one is, else
	// Healthy.
	Health string
	// Since is when Health changed last.
	Since time.Time
	// Output is why it is not healthy: one printable line, "" when it is.
	Output string
	// Checks are the single probes, in the order of the stack.
	Checks []Check
}

// Check is what one probe says.
type Check struct {
	// Probe says what is checked, e.g. "http :8080/healthz".
	Probe  string
	Health string
	// Output is the last failure, one printable line; "" after a success.
	Output string
	// At is when the last check ended, zero before; Took how long it took.
	At   time.Time
	Took time.Duration
	// Failures in a row that count.
	Failures int
}

// Config is what a Runner needs.
type Config struct {
	// Engine runs exec probes.
	Engine Engine
	// Publish is called after a container's Health changed; it must not
	// block and may call Results.
	Publish func()
	// Jitter returns a number in [0,1); nil is a random one.
	Jitter func() float64
	// Took hears how long each successful check over the network took; it
	// must not block. nil where nobody wants to know.
	Took func(service string, took time.Duration)
}

// Limits of what runs at once. An exec makes a process and costs the engine
// some 50 ms of a processor; a connection costs next to nothing.
const (
	maxNet  = 16
	maxExec = 4
)

// Runner checks the containers it was told of last.
type Runner struct {
	c     Config
	net   chan struct{} // one for each check over the network under way
	exec  chan struct{}
	work  sync.WaitGroup
	check func(ctx context.Context, t Target, p stack.Probe, hangs string) outcome

	mu   sync.Mutex
	runs map[string]*run
	over bool
}

// run is one run of one container.
type run struct {
	t      Target
	cancel context.CancelFunc
	states []state
	health string
	since  time.Time
}

// New makes a runner without targets. Close ends it.
func New(c Config) *Runner {
	if c.Publish == nil {
		c.Publish = func() {}
	}
	if c.Jitter == nil {
		c.Jitter = rand.Float64
	}
	r := &Runner{c: c, net: make(chan struct{}, maxNet), exec: make(chan struct{}, maxExec), runs: map[string]*run{}}
	d := newDialer()
	r.check = func(ctx context.Context, t Target, p stack.Probe, hangs string) outcome {
		return d.check(ctx, c.Engine, t, p, hangs)
	}
	return r
}

// Set replaces the targets. A container that is not among them is forgotten
// at once and its checks end; one that is as it was goes on undisturbed; one
// with another start, address or probe starts over. Targets without probes
// are left out of the results.
func (r *Runner) Set(targets []Target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return
	}
	keep := map[string]bool{}
	for _, t := range targets {
		if len(t.Probes) == 0 {
			continue
		}
		keep[t.Container] = true
		old := r.runs[t.Container]
		if old != nil && same(old.t, t) {
			continue
		}
		if old != nil {
			old.cancel()
		}
		r.runs[t.Container] = r.begin(t)
	}
	for id, old := range r.runs {
		if !keep[id] {
			old.cancel()
			delete(r.runs, id)
		}
	}
}

func same(a, b Target) bool {
	return a.Started.Equal(b.Started) && slices.Equal(a.IPs, b.IPs) &&
		slices.EqualFunc(a.Probes, b.Probes, func(p, q stack.Probe) bool { return fmt.Sprint(p) == fmt.Sprint(q) })
}

// Results returns what is known of each target by container id. The values
// are the caller's own.
func (r *Runner) Results() map[string]Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]Result, len(r.runs))
	for id, u := range r.runs {
		res := Result{Health: u.health, Since: u.since, Checks: make([]Check, len(u.states))}
		for i, s := range u.states {
			res.Checks[i] = s.Check
			if s.Health == u.health && s.Health != Healthy && res.Output == "" && s.Output != "" {
				res.Output = s.Probe + ": " + s.Output
			}
		}
		out[id] = res
	}
	return out
}

// Close ends every check and waits for it.
func (r *Runner) Close() {
	r.mu.Lock()
	r.over = true
	for id, u := range r.runs {
		u.cancel()
		delete(r.runs, id)
	}
	r.mu.Unlock()
	r.work.Wait()
}

// begin starts a goroutine for each probe of a container.
func (r *Runner) begin(t Target) *run {
	ctx, cancel := context.WithCancel(context.Background())
	u := &run{t: t, cancel: cancel, states: make([]state, len(t.Probes)), health: Starting, since: time.Now()}
	for i, p := range t.Probes {
		u.states[i] = newState(p)
		r.work.Go(func() { r.follow(ctx, u, i) })
	}
	u.health = u.merged()
	return u
}

// merged is what the states say together.
func (u *run) merged() string {
	h := Healthy
	for _, s := range u.states {
		switch {
		case s.Health == Unhealthy:
			return Unhealthy
		case s.Health == Starting:
			h = Starting
		}
	}
	return h
}

// follow checks one probe of one run until ctx ends.
func (r *Runner) follow(ctx context.Context, u *run, i int) {
	p := u.t.Probes[i]
	s := newState(p)
	// 50 containers that start together are not checked together.
	wait := s.first(r.c.Jitter())
	hangs := ""
	for {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		o := r.once(ctx, u.t, p, hangs)
		hangs = o.hangs
		if ctx.Err() != nil {
			return
		}
		s = s.after(u.t.Started, time.Now(), o)
		r.note(u, i, s)
		if r.c.Took != nil && o.failed == "" && !o.unknown && (p.Kind == "http" || p.Kind == "tcp") {
			r.c.Took(u.t.Service, o.took)
		}
		wait = s.wait(u.t.Started, time.Now())
		if wait < 0 {
			return // nothing can change any more
		}
	}
}

// once makes one check, when there is room for it. hangs is the exec of the
// check before that did not end.
func (r *Runner) once(ctx context.Context, t Target, p stack.Probe, hangs string) outcome {
	room := r.net
	switch p.Kind {
	case "exec":
		room = r.exec
	case "uptime":
		return uptime(t, p, time.Now())
	}
	select {
	case room <- struct{}{}:
	case <-ctx.Done():
		return outcome{}
	}
	defer func() { <-room }()
	began := time.Now()
	o := r.check(ctx, t, p, hangs)
	o.began, o.took = began, time.Since(began)
	return o
}

// note takes a state over, and publishes when it makes a difference.
func (r *Runner) note(u *run, i int, s state) {
	r.mu.Lock()
	changed := false
	if r.runs[u.t.Container] == u {
		u.states[i] = s
		if h := u.merged(); h != u.health {
			u.health, u.since, changed = h, time.Now(), true
		}
	}
	r.mu.Unlock()
	if changed {
		r.c.Publish()
	}
}
