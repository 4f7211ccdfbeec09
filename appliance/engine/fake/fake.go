// SPDX-License-Identifier: Apache-2.0

// Package fake is an engine in memory that behaves like the real one as far
// as the supervisor can see: ids, states, exit codes, health that takes time,
// events, images that resolve by digest, and an engine that goes away. It
// runs on the clock of its caller, so a testing/synctest bubble moves it.
package fake

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
)

// Behaviour is what a service's containers do once started.
type Behaviour struct {
	// ExitAfter ends the process; 0 means never by itself.
	ExitAfter time.Duration
	ExitCode  int
	// HealthyAfter turns health to healthy; -1 leaves it at starting. It is
	// used where the spec has a health check.
	HealthyAfter time.Duration
	// UnhealthyAfter turns health to unhealthy, counted from the start.
	UnhealthyAfter time.Duration
	// StopTakes is how long the process needs to end when asked to; longer
	// than the grace means that it is killed, with exit code 137.
	StopTakes time.Duration
	// StartFails is the error of a start.
	StartFails error
	// HookFails makes commands in the container exit with code 1, and
	// InitCode is the exit code of its init containers, which run for InitTakes.
	HookFails bool
	InitCode  int
	InitTakes time.Duration
}

// Engine is the fake. Zero value: New.
type Engine struct {
	mu         sync.Mutex
	containers map[string]*cont
	networks   map[string]engine.Network
	volumes    map[string]engine.Volume
	images     map[string]bool
	behave     map[string]Behaviour
	watchers   map[*watcher]bool
	down       bool
	deaf       bool // events are lost
	seq        int
	log        []string
	calls      map[string]int
	foreign    map[string]engine.Holder
	logs       map[string][]engine.LogLine
}

type cont struct {
	engine.Container
	spec   engine.Spec
	run    int  // guards timers of an earlier run
	orphan bool // its network is gone
	init   bool // an init container: not listed
}

type watcher struct {
	project string
	events  chan engine.Event
	err     chan error
	ctx     context.Context
	queue   chan engine.Event
}

// New makes an engine with nothing in it.
func New() *Engine {
	return &Engine{
		containers: map[string]*cont{}, networks: map[string]engine.Network{}, volumes: map[string]engine.Volume{},
		images: map[string]bool{}, behave: map[string]Behaviour{}, watchers: map[*watcher]bool{},
		logs: map[string][]engine.LogLine{}, calls: map[string]int{}, foreign: map[string]engine.Holder{},
	}
}

// Behave sets what a service's containers do from their next start on.
func (e *Engine) Behave(service string, b Behaviour) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.behave[service] = b
}

// Log returns the calls that changed something, e.g. "start web", in order.
func (e *Engine) Log() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.log)
}

// ClearLog forgets the calls so far.
func (e *Engine) ClearLog() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.log = nil
}

// Get returns a service's first container by name.
func (e *Engine) Get(service string) (engine.Container, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(e.containers)) {
		if c := e.containers[id]; c.Labels[engine.ServiceLabel] == service {
			return c.Container, true
		}
	}
	return engine.Container{}, false
}

// Spec returns what a container was created from.
func (e *Engine) Spec(id string) engine.Spec {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.containers[id].spec
}

// Kill ends a service's process from outside, as the kernel or a person
// with kill -9 would.
func (e *Engine) Kill(service string, code int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.containers {
		if c.Labels[engine.ServiceLabel] == service && c.Up() {
			e.end(c, code)
		}
	}
}

// Starved tells that the kernel has killed something of a service for lack of
// memory. A real engine does so before or after the end, or without one.
func (e *Engine) Starved(service string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.containers {
		if c.Labels[engine.ServiceLabel] == service {
			e.emit(c, "oom", "")
		}
	}
}

// StopByHand is a person's docker stop.
func (e *Engine) StopByHand(service string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.containers {
		if c.Labels[engine.ServiceLabel] == service && c.Up() {
			e.emit(c, "kill", "15")
			e.end(c, 0)
			e.emit(c, "stop", "")
		}
	}
}

// Down makes the engine go away: every process ends, calls fail, streams
// break. Up brings it back with everything stopped.
func (e *Engine) Down() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.containers {
		if c.Up() {
			c.State, c.ExitCode, c.Finished, c.run = "exited", 255, time.Now(), c.run+1
		}
	}
	e.down = true
	for w := range e.watchers {
		w.err <- fmt.Errorf("%w (events)", engine.ErrUnreachable)
		delete(e.watchers, w)
	}
}

// Up is the end of Down.
func (e *Engine) Up() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = false
}

func (e *Engine) gone() error {
	if e.down {
		return fmt.Errorf("%w (fake)", engine.ErrUnreachable)
	}
	return nil
}

// Containers implements the supervisor's Observer.
func (e *Engine) Containers(_ context.Context, project string) ([]engine.Container, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls["list"]++
	if err := e.gone(); err != nil {
		return nil, err
	}
	var out []engine.Container
	for _, c := range e.containers {
		if c.Labels[engine.ProjectLabel] == project && !c.init {
			e.calls["inspect"]++
			out = append(out, c.Container)
		}
	}
	return out, nil
}

// Networks implements the supervisor's Observer.
func (e *Engine) Networks(context.Context, string) (map[string]bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls["networks"]++
	return names(e.networks), e.gone()
}

// Volumes implements the supervisor's Observer.
func (e *Engine) Volumes(context.Context, string) (map[string]bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls["volumes"]++
	return names(e.volumes), e.gone()
}

func names[T any](m map[string]T) map[string]bool {
	out := map[string]bool{}
	for k := range m {
		out[k] = true
	}
	return out
}

// Ping answers unless the engine is down.
func (e *Engine) Ping(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.gone()
}

// HasImage reports whether ref was loaded.
func (e *Engine) HasImage(_ context.Context, ref string) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.images[ref], e.gone()
}

// RemoveNetwork is a person's docker network rm. A container that was made
// with it cannot start again, whether or not it comes back.
func (e *Engine) RemoveNetwork(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.networks, name)
	for _, c := range e.containers {
		c.orphan = true
	}
}

// AddImage makes ref resolve.
func (e *Engine) AddImage(ref string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.images[ref] = true
}

// LoadImage takes a text of NAME@DIGEST lines for a tar; it takes nothing
// from a reader that fails.
func (e *Engine) LoadImage(_ context.Context, r io.Reader, _ time.Duration) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.log = append(e.log, "load")
	for _, ref := range strings.Fields(string(b)) {
		e.images[ref] = true
	}
	return e.gone()
}

// CreateNetwork implements the supervisor's Actor.
func (e *Engine) CreateNetwork(_ context.Context, n engine.Network) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.gone(); err != nil {
		return err
	}
	e.networks[n.Name] = n
	e.log = append(e.log, "network "+n.Name)
	return e.gone()
}

// CreateVolume implements the supervisor's Actor.
func (e *Engine) CreateVolume(_ context.Context, v engine.Volume) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.gone(); err != nil {
		return err
	}
	e.volumes[v.Name] = v
	e.log = append(e.log, "volume "+v.Name)
	return e.gone()
}
