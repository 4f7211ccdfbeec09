// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/status"
)

const (
	// keptOperations is how many are remembered, runningOperations how many
	// may be under way.
	keptOperations    = 256
	runningOperations = 64
	// stackStarts is how long a stack may take to become healthy before the
	// operation that started it counts as failed. The supervisor goes on.
	stackStarts = 15 * time.Minute
)

// operations is the list of long work that was asked for, the oldest first.
type operations struct {
	mu   sync.Mutex
	run  string // sets ids of this run of the daemon apart from others'
	next int
	list []*operation
}

type operation struct {
	status.Operation
	done chan struct{}
}

func newOperations() *operations {
	return &operations{run: strings.ToLower(rand.Text()[:6])}
}

// begin registers an operation. end must be called once.
func (o *operations) begin(verb string, services []string) (op status.Operation, end func(error), err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	running := 0
	for _, x := range o.list {
		if x.State == "running" {
			running++
		}
	}
	if running >= runningOperations {
		return op, nil, &api.Problem{Status: http.StatusServiceUnavailable,
			Text: fmt.Sprintf("%d operations are under way already", running), Remedy: "wait until some have ended; holdfast plan shows what the supervisor does"}
	}
	o.next++
	x := &operation{done: make(chan struct{}), Operation: status.Operation{ID: fmt.Sprintf("%s-%d", o.run, o.next),
		Verb: verb, Services: orNone(slices.Clone(services)), State: "running", Started: time.Now().UTC()}}
	if len(o.list) >= keptOperations {
		i := slices.IndexFunc(o.list, func(x *operation) bool { return x.State != "running" })
		o.list = slices.Delete(o.list, i, i+1)
	}
	o.list = append(o.list, x)
	return x.Operation, func(err error) { o.end(x, err) }, nil
}

func (o *operations) end(x *operation, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	x.State, x.Ended = "done", time.Now().UTC()
	if err != nil {
		x.State, x.Error = "failed", err.Error()
	}
	close(x.done)
}

// note changes what is told of an operation.
func (o *operations) note(id string, change func(*status.Operation)) status.Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, x := range o.list {
		if x.ID == id {
			change(&x.Operation)
			return x.Operation
		}
	}
	return status.Operation{}
}

func (o *operations) find(id string) (status.Operation, <-chan struct{}, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, x := range o.list {
		if x.ID == id {
			return x.Operation, x.done, true
		}
	}
	return status.Operation{}, nil, false
}

// Operation implements api.Control.
func (d *Daemon) Operation(id string) (status.Operation, <-chan struct{}, error) {
	op, done, ok := d.operations.find(id)
	if !ok {
		return op, nil, &api.Problem{Status: http.StatusNotFound, Text: fmt.Sprintf("there is no operation %.60q", id),
			Remedy: "they are forgotten when the daemon ends; holdfast status shows what became of it"}
	}
	return op, done, nil
}

// StopStack implements api.Control.
func (d *Daemon) StopStack(ctx context.Context) (status.Operation, error) {
	return d.operate(api.Stop, nil, func(end func(error)) error {
		if err := d.interrupted(ctx); err != nil {
			d.say.line("the trial under way could not be marked as interrupted, it will count as failed: %v", err)
		}
		if err := d.control(ctx, true); err != nil {
			return err
		}
		d.finish(end, func(ctx context.Context) error { return d.awaitStack(ctx, api.Stop) })
		return nil
	})
}

// StartStack implements api.Control.
func (d *Daemon) StartStack(ctx context.Context) (status.Operation, error) {
	return d.operate(api.Start, nil, func(end func(error)) error {
		if err := d.control(ctx, false); err != nil {
			return err
		}
		d.finish(end, func(ctx context.Context) error { return d.awaitStack(ctx, api.Start) })
		return nil
	})
}

// operate registers an operation and begins it. What can't even begin is no
// operation.
func (d *Daemon) operate(verb string, services []string, begin func(end func(error)) error) (status.Operation, error) {
	op, end, err := d.operations.begin(verb, services)
	if err != nil {
		return op, err
	}
	if err := begin(end); err != nil {
		end(err)
		return op, err
	}
	return op, nil
}

// finish ends an operation when wait returns, at the latest with the daemon.
func (d *Daemon) finish(end func(error), wait func(context.Context) error) {
	d.ops.Go(func() {
		err := wait(d.life)
		if d.life.Err() != nil {
			err = errors.New("the daemon ended")
		}
		end(err)
	})
}

// awaitStack waits until a stack that was asked to stop or start has.
func (d *Daemon) awaitStack(ctx context.Context, verb string) error {
	limit := time.NewTimer(stackStarts)
	defer limit.Stop()
	for {
		r, changed := d.feed.Get()
		up := slices.ContainsFunc(r.Services, func(s status.Service) bool { return s.State == "running" || s.State == "paused" })
		d.mu.Lock()
		stopping := d.stopping
		d.mu.Unlock()
		switch {
		case verb == api.Start && stopping, verb == api.Stop && !stopping:
			return errors.New("the opposite was asked for meanwhile")
		case r.Stack == "held" && !up:
			if verb == api.Stop {
				return nil
			}
			return errors.New("the stack is held; holdfast status says why")
		case verb == api.Stop && r.Stack == "stopped", verb == api.Start && r.Stack == "healthy":
			return nil
		}
		select {
		case <-changed:
		case <-limit.C:
			return fmt.Errorf("the stack is %s after %s; holdfast status says what it waits for", r.Stack, stackStarts)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Do implements api.Control.
func (d *Daemon) Do(ctx context.Context, verb string, services []string) (status.Operation, error) {
	switch verb {
	case api.Restart, api.Stop, api.Start:
	default:
		return status.Operation{}, &api.Problem{Status: http.StatusNotFound, Text: fmt.Sprintf("%.60q is nothing that can be done to services", verb), Remedy: "use restart, stop or start"}
	}
	if err := checkServices(d.serviceNames(), services); err != nil {
		return status.Operation{}, err
	}
	sup, err := d.supervised()
	if err != nil {
		return status.Operation{}, err
	}
	return d.operate(verb, services, func(end func(error)) error {
		// To start all ends a stop of the whole stack too.
		if verb == api.Start && len(services) == 0 {
			if err := d.control(ctx, false); err != nil {
				return err
			}
		}
		done, err := sup.Request(d.life, verb, services)
		if err != nil {
			return err
		}
		d.finish(end, func(ctx context.Context) error {
			select {
			case err := <-done:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		return nil
	})
}
