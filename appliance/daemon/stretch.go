// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/supervise"
)

// stretch is one stretch of supervision: of one target, from its preparation
// to its end. API, exporter, operations and upgrades outlive it.
type stretch struct {
	end  context.CancelFunc
	done chan struct{}
}

// work finds, loads and supervises what the record names, one stretch after
// the other; it returns when ctx ends.
func (d *Daemon) work(ctx context.Context) error {
	j, err := supervise.OpenJournal(filepath.Join(d.c.State, "supervise"), d.facts.BootID)
	if err != nil {
		return fmt.Errorf("the supervisor's journal: %w; make room on the state volume, or look at it with journalctl -k", err)
	}
	defer j.Close()
	d.journal = j
	d.recall(filepath.Join(d.c.State, "supervise"))
	stop, start := d.recoverUpgrade(ctx)
	defer stop()
	for {
		within, end := context.WithCancel(ctx)
		s := &stretch{end: end, done: make(chan struct{})}
		d.mu.Lock()
		d.stretch = s
		d.mu.Unlock()
		if start == nil {
			err = d.run(within, j)
		} else {
			err = d.hold(within, start)
			start = nil
		}
		parked := within.Err() != nil && ctx.Err() == nil
		end()
		d.mu.Lock()
		d.sup, d.meter, d.stretch = nil, nil, nil
		d.mu.Unlock()
		close(s.done)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !parked:
			return err
		}
		if err := d.parked(ctx); err != nil {
			return err
		}
	}
}

// parked waits until the stack is to begin again.
func (d *Daemon) parked(ctx context.Context) error {
	defer d.beat(ctx)()
	select {
	case <-d.begin:
	case <-ctx.Done():
		return ctx.Err()
	}
	d.update(func(r *status.Report) bool {
		r.Stack = "starting"
		d.rootCond = slices.Clone(d.bootCond)
		d.setStackConditions(r, d.rootCond)
		return true
	})
	return nil
}

// run is one stretch.
func (d *Daemon) run(ctx context.Context, j *supervise.Journal) error {
	stopBeat := d.beat(ctx)
	desired, err := d.prepare(ctx, j)
	stopBeat()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		j.Write(supervise.Entry{Time: time.Now(), Act: "stack", Because: "held", Error: err.Error()})
		return d.hold(ctx, err)
	}
	sup, err := d.supervisor(ctx, desired, j)
	if err != nil {
		return err
	}
	return d.supervise(ctx, sup)
}

func (d *Daemon) supervise(ctx context.Context, sup *supervise.Supervisor) error {
	done := make(chan error, 1)
	go func() { done <- sup.Run(ctx) }()
	d.mu.Lock()
	d.sup = sup
	stop := d.stopping
	d.mu.Unlock()
	if stop {
		if err := sup.StopStack(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return <-done
}

// parkStack stops all services in reverse order, each with its grace, and ends
// their supervision. The daemon then holds nothing of the data open.
func (d *Daemon) parkStack(ctx context.Context) error {
	d.mu.Lock()
	s, sup := d.stretch, d.sup
	d.mu.Unlock()
	if s == nil {
		return nil
	}
	if sup != nil {
		if err := sup.StopStack(ctx); err != nil {
			return fmt.Errorf("the stack could not be asked to stop: %w", err)
		}
		if err := d.awaitDown(ctx); err != nil {
			return err
		}
	}
	s.end()
	select {
	case <-s.done:
	case <-ctx.Done():
		return fmt.Errorf("waited for the supervisor to end: %w", ctx.Err())
	}
	d.took.forget()
	d.update(func(r *status.Report) bool {
		r.Stack = "stopped"
		return true
	})
	return nil
}

// awaitDown waits until nothing of the stack runs.
func (d *Daemon) awaitDown(ctx context.Context) error {
	for {
		r, changed := d.feed.Get()
		if r.Stack == "stopped" {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			var up []string
			for _, s := range r.Services {
				if s.State == "running" || s.State == "paused" {
					up = append(up, s.Name)
				}
			}
			return fmt.Errorf("waited for the stack to stop (still up: %v): %w", up, ctx.Err())
		}
	}
}

// unparkStack begins a new stretch, of what the record names now. One of that
// generation goes on.
func (d *Daemon) unparkStack(ctx context.Context, generation int) error {
	d.mu.Lock()
	s, sup := d.stretch, d.sup
	if !d.leaving {
		d.stopping = false // that was of the stack before
	}
	stop := d.stopping
	d.mu.Unlock()
	r, _ := d.feed.Get()
	switch {
	case s != nil && (r.Generation == generation || r.Generation == 0):
		if sup == nil || stop {
			return nil
		}
		return sup.StartStack(ctx) // a stop may have been given up
	case s != nil:
		return fmt.Errorf("generation %d is supervised, and %d is to be started; it has to be stopped first", r.Generation, generation)
	}
	select {
	case d.begin <- struct{}{}:
	default:
	}
	return nil
}

// carriedPath is what lies beside the data, see supervise.Carried.
func (d *Daemon) carriedPath() string { return filepath.Join(d.c.Data, "carried.json") }
