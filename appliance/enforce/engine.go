// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"context"
	"maps"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/supervise"
)

// Engine is the supervisor's engine with budgets enforced at the moments that
// count: a volume when it is made, a writable layer before its container
// starts, a container's group right after. What can't be enforced is told and
// keeps nothing from starting.
func (e *Enforcer) Engine(inner supervise.Engine) supervise.Engine {
	return &enforced{Engine: inner, e: e}
}

type enforced struct {
	supervise.Engine
	e *Enforcer
}

// Containers learns who is who, and looks after containers that were started
// by somebody else or while the daemon was away.
func (w *enforced) Containers(ctx context.Context, project string) ([]engine.Container, error) {
	list, err := w.Engine.Containers(ctx, project)
	if err == nil {
		w.e.seen(ctx, list)
	}
	return list, err
}

// Create learns whose the container is.
func (w *enforced) Create(ctx context.Context, s engine.Spec) (string, error) {
	id, err := w.Engine.Create(ctx, s)
	if err == nil {
		w.e.mu.Lock()
		w.e.who[id] = known{service: s.Config.Labels[engine.ServiceLabel]}
		w.e.mu.Unlock()
	}
	return id, err
}

// CreateVolume gives the volume its budget before anything writes to it.
func (w *enforced) CreateVolume(ctx context.Context, v engine.Volume) error {
	if err := w.Engine.CreateVolume(ctx, v); err != nil {
		return err
	}
	w.e.mu.Lock()
	defer w.e.mu.Unlock()
	w.e.told["volumes"] = w.e.quotas(ctx)
	w.e.tell()
	return nil
}

// Start bounds the layer, starts, and sets the group's shares.
func (w *enforced) Start(ctx context.Context, id string) error {
	w.e.beforeStart(ctx, id)
	if err := w.Engine.Start(ctx, id); err != nil {
		return err
	}
	w.e.afterStart(ctx, id)
	return nil
}

// Restart makes a new group.
func (w *enforced) Restart(ctx context.Context, id string, grace time.Duration) error {
	if err := w.Engine.Restart(ctx, id, grace); err != nil {
		return err
	}
	w.e.afterStart(ctx, id)
	return nil
}

// Update makes the runtime write all of the group anew.
func (w *enforced) Update(ctx context.Context, id string, l engine.Limits) error {
	if err := w.Engine.Update(ctx, id, l); err != nil {
		return err
	}
	w.e.afterStart(ctx, id)
	return nil
}

// known is what is remembered of a container.
type known struct {
	service string
	// started is the start for which its group was set.
	started time.Time
}

func (e *Enforcer) beforeStart(ctx context.Context, id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	k, ok := e.who[id]
	if !ok || k.service == "" {
		return
	}
	if err := e.layer(ctx, k.service, id); err != nil {
		e.told["layers"] = []status.Condition{failed("what "+k.service+" writes beside its volumes", err)}
	}
	e.tell()
}

func (e *Enforcer) afterStart(ctx context.Context, id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if k, ok := e.who[id]; ok && k.service != "" {
		e.told["groups"] = e.protect(ctx, []Container{{Service: k.service, ID: id}})
		e.tell()
	}
}

// seen compares what runs with what was looked after.
func (e *Enforcer) seen(ctx context.Context, list []engine.Container) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := make(map[string]known, len(list))
	var fresh []Container
	for _, c := range list {
		k := known{service: c.Labels[engine.ServiceLabel], started: e.who[c.ID].started}
		if c.Up() && !c.Started.Equal(k.started) && k.service != "" {
			k.started = c.Started
			fresh = append(fresh, Container{Service: k.service, ID: c.ID})
		}
		now[c.ID] = k
	}
	// One that was created since the list was made is not in it.
	for id, k := range e.who {
		if _, ok := now[id]; !ok && k.started.IsZero() && len(e.who) <= 2*len(list)+100 {
			now[id] = k
		}
	}
	if maps.Equal(now, e.who) && len(fresh) == 0 {
		return
	}
	e.who = now
	if len(fresh) > 0 {
		e.told["groups"] = e.protect(ctx, fresh)
		e.tell()
	}
}
