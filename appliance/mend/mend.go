// SPDX-License-Identifier: Apache-2.0

// Package mend watches the Docker engine itself. An engine that was killed
// comes back by systemd's own restart; one that hangs does not end, so nobody
// but a watcher sees it. This one asks again and again, with a deadline, and
// restarts what does not answer through systemd: docker, or the containerd
// below it.
//
// Its inputs are the answers and the states of the two units. It never touches
// a unit that is starting or stopping, or that somebody stopped, restarts
// ever more rarely while that does not help, and never touches a container.
// Without systemd it only says what it sees.
package mend

import (
	"context"
	"sync"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// Engine is what is asked; *engine.Docker has it.
type Engine interface {
	// Ping asks the engine, Runtime the containerd below it.
	Ping(ctx context.Context) error
	Runtime(ctx context.Context) error
}

// Units is the service manager.
type Units interface {
	State(ctx context.Context, unit string) (State, error)
	// Trace asks a unit's process to write down what it is doing.
	Trace(ctx context.Context, unit string) error
	// Restart kills a unit's main process and starts it again.
	Restart(ctx context.Context, unit string) error
}

// State is what the service manager says of a unit.
type State struct {
	// Active is systemd's word: "active", "activating", "deactivating",
	// "reloading", "inactive", "failed"; "" where there is no such unit.
	Active string
	// Since is how long the unit has been in this state.
	Since time.Duration
}

// The units that may be restarted.
const (
	Docker     = "docker.service"
	Containerd = "containerd.service"
)

// Config is what a Watcher needs.
type Config struct {
	Engine Engine
	// Units restarts; nil only reports, for a host without systemd.
	Units Units
	// Publish is called after the conditions changed; it must not block.
	Publish func()
	// Event hears one line per act.
	Event func(text string)
	// Every is the time between questions, Deadline the time for an answer;
	// 0 means 10 s each.
	Every, Deadline time.Duration
}

// Watcher watches one engine.
type Watcher struct {
	c    Config
	mu   sync.Mutex
	cond []status.Condition
}

// New prepares a watcher.
func New(c Config) *Watcher {
	if c.Publish == nil {
		c.Publish = func() {}
	}
	if c.Event == nil {
		c.Event = func(string) {}
	}
	if c.Every <= 0 {
		c.Every = 10 * time.Second
	}
	if c.Deadline <= 0 {
		c.Deadline = 10 * time.Second
	}
	return &Watcher{c: c}
}

// Conditions are what needs attention now.
func (w *Watcher) Conditions() []status.Condition {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]status.Condition(nil), w.cond...)
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	tick := time.NewTicker(w.c.Every)
	defer tick.Stop()
	var m memory
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		l := w.look(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		now := time.Now()
		var d decision
		m, d = m.decide(l, now)
		if d.act != nothing {
			err := w.do(ctx, d)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			m = m.done(d, err, time.Now())
		}
		w.show(m.conditions(l, now))
	}
}

// look asks the engine, and, when something is wrong, systemd.
func (w *Watcher) look(ctx context.Context) look {
	var l look
	ask := func(question func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, w.c.Deadline)
		defer cancel()
		return question(ctx)
	}
	if l.ping = ask(w.c.Engine.Ping); l.ping == nil {
		l.runtime = ask(w.c.Engine.Runtime)
	}
	if w.c.Units == nil {
		return l
	}
	l.units = true
	state := func(unit string) State {
		ctx, cancel := context.WithTimeout(ctx, w.c.Deadline)
		defer cancel()
		s, err := w.c.Units.State(ctx, unit)
		if err != nil {
			l.units = false // systemd itself does not answer: leave all alone
		}
		return s
	}
	switch {
	case l.ping != nil:
		l.docker = state(Docker)
	case l.runtime != nil:
		l.containerd = state(Containerd)
	}
	return l
}

// restartTimeout is longer than a unit needs to come up again.
const restartTimeout = 6 * time.Minute

func (w *Watcher) do(ctx context.Context, d decision) error {
	ctx, cancel := context.WithTimeout(ctx, restartTimeout)
	defer cancel()
	if d.act == trace {
		return w.c.Units.Trace(ctx, d.unit)
	}
	w.c.Event(d.why)
	err := w.c.Units.Restart(ctx, d.unit)
	if err != nil {
		w.c.Event(d.unit + " could not be restarted: " + err.Error())
	}
	return err
}

// show publishes conditions that are not as they were.
func (w *Watcher) show(cond []status.Condition) {
	w.mu.Lock()
	same := len(cond) == len(w.cond)
	for i := 0; same && i < len(cond); i++ {
		same = cond[i] == w.cond[i]
	}
	w.cond = cond
	w.mu.Unlock()
	if !same {
		w.c.Publish()
	}
}
