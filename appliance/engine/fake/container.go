// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/moby/moby/api/types/mount"

	"github.com/holdfast/holdfast/appliance/engine"
)

// Create implements the supervisor's Actor. Anonymous volumes get names, as
// the real engine gives them.
func (e *Engine) Create(_ context.Context, s engine.Spec) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.gone(); err != nil {
		return "", err
	}
	if id := e.named(s.Name); id != "" {
		return "", fmt.Errorf("create container %s: the name is already in use by container %s", s.Name, id)
	}
	e.seq++
	c := &cont{spec: s, Container: engine.Container{
		ID: fmt.Sprintf("c%011d", e.seq), Name: s.Name, Labels: s.Config.Labels, Image: s.Config.Image,
		State: "created", Health: "none", Volumes: map[string]string{},
		Limits: engine.Limits{Memory: s.Host.Memory, NanoCPUs: s.Host.NanoCPUs, Restart: string(s.Host.RestartPolicy.Name)},
	}}
	_, c.init = s.Config.Labels[InitLabel]
	for _, b := range s.Host.Binds {
		if source, target, _ := strings.Cut(b, ":"); !strings.HasPrefix(source, "/") {
			target, _, _ = strings.Cut(target, ":")
			c.Volumes[target] = source
		}
	}
	for _, m := range s.Host.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		name := m.Source
		if name == "" {
			name = fmt.Sprintf("anon-%d-%s", e.seq, m.Target)
			e.volumes[name] = engine.Volume{Name: name}
		}
		c.Volumes[m.Target] = name
	}
	e.containers[c.ID] = c
	e.record("create", c)
	e.emit(c, "create", "")
	return c.ID, nil
}

func (e *Engine) record(what string, c *cont) {
	if c.init {
		what = "init " + what
	}
	e.calls[what]++
	e.log = append(e.log, what+" "+c.Labels[engine.ServiceLabel])
}

func (e *Engine) find(id string) (*cont, error) {
	if err := e.gone(); err != nil {
		return nil, err
	}
	c := e.containers[id]
	if c == nil {
		c = e.containers[e.named(id)]
	}
	if c == nil {
		return nil, fmt.Errorf("container %s: %w", id, engine.ErrNotFound)
	}
	return c, nil
}

// Start implements the supervisor's Actor.
func (e *Engine) Start(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(id)
	if err != nil {
		return err
	}
	e.record("start", c)
	return e.start(c)
}

func (e *Engine) start(c *cont) error {
	if c.Up() {
		return nil
	}
	b := e.behave[c.Labels[engine.ServiceLabel]]
	if c.init {
		b = Behaviour{ExitAfter: max(b.InitTakes, time.Millisecond), ExitCode: b.InitCode}
	}
	if c.orphan {
		return fmt.Errorf("start: %w: network 0123abcd not found", engine.ErrNotFound)
	}
	if b.StartFails == nil {
		b.StartFails = e.taken(c)
	}
	if b.StartFails != nil {
		c.Error, c.ExitCode = b.StartFails.Error(), 128
		return b.StartFails
	}
	c.run++
	run := c.run
	c.State, c.Started, c.ExitCode, c.Error, c.Health = "running", time.Now(), 0, "", "none"
	e.emit(c, "start", "")
	if hc := c.spec.Config.Healthcheck; hc != nil && len(hc.Test) > 0 && hc.Test[0] != "NONE" {
		c.Health = "starting"
		if b.HealthyAfter >= 0 {
			e.after(c, run, b.HealthyAfter, func() { e.health(c, "healthy") })
		}
		if b.UnhealthyAfter > 0 {
			e.after(c, run, b.UnhealthyAfter, func() { e.health(c, "unhealthy") })
		}
	}
	if b.ExitAfter > 0 {
		e.after(c, run, b.ExitAfter, func() { e.end(c, b.ExitCode) })
	}
	return nil
}

// after runs f unless the container has ended or started anew meanwhile.
func (e *Engine) after(c *cont, run int, d time.Duration, f func()) {
	time.AfterFunc(d, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if c.run == run && c.Up() {
			f()
		}
	})
}

func (e *Engine) health(c *cont, h string) {
	c.Health = h
	if h == "unhealthy" {
		c.HealthLog = "the check said no"
	}
	e.emit(c, "health_status: "+h, "")
}

func (e *Engine) end(c *cont, code int) {
	c.run++
	c.State, c.ExitCode, c.Finished = "exited", code, time.Now()
	e.emit(c, "die", "")
}

// Stop implements the supervisor's Actor.
func (e *Engine) Stop(ctx context.Context, id string, grace time.Duration) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(id)
	if err != nil {
		return err
	}
	e.record("stop", c)
	return e.stop(ctx, c, grace)
}

func (e *Engine) stop(ctx context.Context, c *cont, grace time.Duration) error {
	if !c.Up() {
		return nil
	}
	e.emit(c, "kill", "15")
	takes, code := e.behave[c.Labels[engine.ServiceLabel]].StopTakes, 0
	if takes > grace {
		takes, code = grace, 137
	}
	if takes > 0 {
		e.mu.Unlock()
		t := time.NewTimer(takes)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		e.mu.Lock()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if c.Up() {
		e.end(c, code)
	}
	e.emit(c, "stop", "")
	return nil
}

// Restart implements the supervisor's Actor.
func (e *Engine) Restart(ctx context.Context, id string, grace time.Duration) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(id)
	if err != nil {
		return err
	}
	e.record("restart", c)
	if err := e.stop(ctx, c, grace); err != nil {
		return err
	}
	return e.start(c)
}

// Remove implements the supervisor's Actor.
func (e *Engine) Remove(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(id)
	if err != nil {
		return err
	}
	if c.Up() {
		return fmt.Errorf("remove: container %s is running", id)
	}
	e.record("remove", c)
	delete(e.containers, c.ID)
	e.emit(c, "destroy", "")
	return nil
}

// Events implements the supervisor's Watcher.
func (e *Engine) Events(ctx context.Context, project string) (<-chan engine.Event, <-chan error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	w := &watcher{project: project, events: make(chan engine.Event), err: make(chan error, 1), ctx: ctx, queue: make(chan engine.Event, 1<<12)}
	if err := e.gone(); err != nil {
		w.err <- err
		return w.events, w.err
	}
	e.watchers[w] = true
	go func() {
		for {
			select {
			case ev := <-w.queue:
				select {
				case w.events <- ev:
				case <-ctx.Done():
				}
			case <-ctx.Done():
				e.mu.Lock()
				delete(e.watchers, w)
				e.mu.Unlock()
				return
			}
		}
	}()
	return w.events, w.err
}

func (e *Engine) emit(c *cont, action, signal string) {
	if e.deaf {
		return
	}
	if c.init {
		// The engine tells of these too, by an id that nobody listed.
		action = "init: " + action
	}
	ev := engine.Event{Action: action, Container: c.ID, Service: c.Labels[engine.ServiceLabel], Signal: signal, Time: time.Now()}
	for w := range e.watchers {
		if w.project == c.Labels[engine.ProjectLabel] {
			w.queue <- ev
		}
	}
}
