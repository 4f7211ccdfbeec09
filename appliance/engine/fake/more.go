// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
)

// InitLabel marks init containers: the engine's list leaves them out.
const InitLabel = "com.docker.compose.hook"

// Calls counts the calls of each kind since New or ClearCalls: "list",
// "inspect" (also one for each container of a list), "start" and so on.
func (e *Engine) Calls() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.calls)
}

// ClearCalls sets the counts to zero.
func (e *Engine) ClearCalls() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.calls)
}

// All returns every container of a service, in the order they were made.
func (e *Engine) All(service string) []engine.Container {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []engine.Container
	for _, id := range slices.Sorted(maps.Keys(e.containers)) {
		if c := e.containers[id]; c.Labels[engine.ServiceLabel] == service && !c.init {
			out = append(out, c.Container)
		}
	}
	return out
}

// AddForeign puts a container of somebody else's there; RemoveForeign takes
// it away.
func (e *Engine) AddForeign(h engine.Holder) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.foreign[h.Name] = h
}

// RemoveForeign is the opposite of AddForeign.
func (e *Engine) RemoveForeign(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.foreign, name)
}

// LoseEvents makes events get lost, or not any more.
func (e *Engine) LoseEvents(lose bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deaf = lose
}

// ByHand is what a person does to a service's first container behind the
// supervisor's back: "rename", "update", "remove", "pause" or "unpause".
func (e *Engine) ByHand(service, what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(e.containers)) {
		c := e.containers[id]
		if c.Labels[engine.ServiceLabel] != service || c.init {
			continue
		}
		switch what {
		case "rename":
			c.Name = "byhand-" + c.Name
			e.emit(c, "rename", "")
		case "update":
			c.Limits.Memory += 1 << 20
			c.Limits.Restart = "always"
			e.emit(c, "update", "")
		case "remove":
			if c.Up() {
				e.emit(c, "kill", "9")
				e.end(c, 137)
			}
			delete(e.containers, id)
			e.emit(c, "destroy", "")
		case "pause":
			if c.State == "running" {
				c.State = "paused"
				e.emit(c, "pause", "")
			}
		case "unpause":
			if c.State == "paused" {
				c.State = "running"
				e.emit(c, "unpause", "")
			}
		}
		return
	}
}

// named finds the id of who has a name, "" for nobody.
func (e *Engine) named(name string) string {
	if h, ok := e.foreign[name]; ok {
		return h.ID
	}
	for _, c := range e.containers {
		if c.Name == name {
			return c.ID
		}
	}
	return ""
}

// taken says why a container cannot have its host ports, nil if it can.
func (e *Engine) taken(c *cont) error {
	for port, bindings := range c.spec.Host.PortBindings {
		for _, b := range bindings {
			want := b.HostPort + "/" + string(port.Proto())
			for _, h := range e.foreign {
				if slices.Contains(h.Ports, want) {
					return fmt.Errorf("start: Bind for 0.0.0.0:%s failed: port is already allocated", b.HostPort)
				}
			}
		}
	}
	return nil
}

// Holders implements the supervisor's Observer.
func (e *Engine) Holders(context.Context) ([]engine.Holder, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls["holders"]++
	var out []engine.Holder
	for _, name := range slices.Sorted(maps.Keys(e.foreign)) {
		out = append(out, e.foreign[name])
	}
	for _, id := range slices.Sorted(maps.Keys(e.containers)) {
		c := e.containers[id]
		out = append(out, engine.Holder{ID: id, Name: c.Name, Project: c.Labels[engine.ProjectLabel]})
	}
	return out, e.gone()
}

// Container implements the supervisor's Observer.
func (e *Engine) Container(_ context.Context, id string) (engine.Container, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls["inspect"]++
	c, err := e.find(id)
	if err != nil {
		return engine.Container{}, err
	}
	return c.Container, nil
}

// Rename implements the supervisor's Actor.
func (e *Engine) Rename(_ context.Context, id, name string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(id)
	if err != nil {
		return err
	}
	if other := e.named(name); other != "" && other != c.ID {
		return fmt.Errorf("rename: the name %s is already in use by container %s", name, other)
	}
	e.record("rename", c)
	c.Name = name
	e.emit(c, "rename", "")
	return nil
}

// Update implements the supervisor's Actor.
func (e *Engine) Update(_ context.Context, id string, l engine.Limits) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(id)
	if err != nil {
		return err
	}
	e.record("update", c)
	if !c.Limits.Reaches(l) {
		return errors.New("update: that cannot be unset")
	}
	c.Limits = l
	e.emit(c, "update", "")
	return nil
}

// Wait implements the supervisor's Actor.
func (e *Engine) Wait(ctx context.Context, id string) (int, error) {
	t := time.NewTicker(time.Millisecond)
	defer t.Stop()
	for {
		e.mu.Lock()
		c, err := e.find(id)
		if err != nil {
			e.mu.Unlock()
			return 0, err
		}
		state, code := c.State, c.ExitCode
		e.mu.Unlock()
		if state != "running" && state != "paused" {
			return code, nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// ExecCommand implements the supervisor's Actor.
func (e *Engine) ExecCommand(_ context.Context, id string, cmd engine.Command) (engine.ExecResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(id)
	if err != nil {
		return engine.ExecResult{}, err
	}
	if c.State != "running" {
		return engine.ExecResult{}, fmt.Errorf("exec: %w: it does not run", engine.ErrNotFound)
	}
	e.calls["exec"]++
	e.log = append(e.log, fmt.Sprintf("exec %s %v", c.Labels[engine.ServiceLabel], cmd.Argv))
	if e.behave[c.Labels[engine.ServiceLabel]].HookFails {
		return engine.ExecResult{ID: "x", ExitCode: 1, Output: "the hook said no\n"}, nil
	}
	return engine.ExecResult{ID: "x"}, nil
}
