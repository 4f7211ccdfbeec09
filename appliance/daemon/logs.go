// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/status"
)

// reattach is the least time between two tries to follow one service: a log
// that ends at once must not be asked for in a circle.
const reattach = time.Second

// Logs implements api.Control. Lines of several services come in the order of
// their times; with Follow, new ones as they come, also from the containers
// that replace those of now.
func (d *Daemon) Logs(ctx context.Context, q api.LogQuery, each func(status.LogLine) error) error {
	if err := checkServices(d.serviceNames(), q.Services); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	r, _ := d.feed.Get()
	var logs []*serviceLog
	for _, s := range r.Services {
		if len(q.Services) == 0 || slices.Contains(q.Services, s.Name) {
			logs = append(logs, &serviceLog{d: d, service: s.Name, container: s.Container, last: began})
		}
	}
	if len(logs) == 0 {
		return &api.Problem{Status: http.StatusConflict, Text: "no stack runs yet", Remedy: "holdfast status says what it waits for"}
	}
	if err := merge(ctx, logs, engine.LogOptions{Tail: q.Tail, Since: q.Since}, each); err != nil || !q.Follow {
		return problemOfEngine(err)
	}
	// One at a time writes; the first that fails ends all.
	var mu sync.Mutex
	errs := make(chan error, len(logs))
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for _, l := range logs {
		all.Go(func() {
			errs <- l.follow(ctx, func(line status.LogLine) error {
				mu.Lock()
				defer mu.Unlock()
				return each(line)
			})
		})
	}
	return problemOfEngine(<-errs)
}

func problemOfEngine(err error) error {
	if errors.Is(err, engine.ErrUnreachable) {
		return &api.Problem{Status: http.StatusServiceUnavailable, Text: err.Error(), Remedy: "systemctl status docker"}
	}
	return err
}

// serviceLog is the log of one service.
type serviceLog struct {
	d         *Daemon
	service   string
	container string    // "" while there is none
	last      time.Time // of the newest line that was given, or when it began
}

// read gives the lines of the service's container.
func (l *serviceLog) read(ctx context.Context, o engine.LogOptions, each func(status.LogLine) error) error {
	if l.container == "" {
		return nil
	}
	err := l.d.c.Engine.Logs(ctx, l.container, o, func(e engine.LogLine) error {
		return each(status.LogLine{Time: e.Time.UTC(), Service: l.service, Container: l.container, Stream: e.Stream, Text: e.Text})
	})
	if errors.Is(err, engine.ErrNotFound) {
		return nil // it went meanwhile
	}
	return err
}

// merge gives the lines that are there now, by their times.
func merge(ctx context.Context, logs []*serviceLog, o engine.LogOptions, each func(status.LogLine) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	type source struct {
		log   *serviceLog
		lines chan status.LogLine
		head  status.LogLine
	}
	errs := make(chan error, len(logs))
	var open []*source
	for _, l := range logs {
		s := &source{log: l, lines: make(chan status.LogLine, 64)}
		open = append(open, s)
		all.Go(func() {
			defer close(s.lines)
			err := l.read(ctx, o, func(line status.LogLine) error {
				select {
				case s.lines <- line:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			if err != nil {
				errs <- fmt.Errorf("the log of %s: %w", l.service, err)
			}
		})
	}
	// next takes the head of s; s is over where there is none.
	next := func(s *source) bool {
		line, ok := <-s.lines
		s.head = line
		return ok
	}
	open = slices.DeleteFunc(open, func(s *source) bool { return !next(s) })
	for len(open) > 0 {
		first := slices.MinFunc(open, func(a, b *source) int { return a.head.Time.Compare(b.head.Time) })
		first.log.last = first.head.Time
		if err := each(first.head); err != nil {
			return err
		}
		if !next(first) {
			open = slices.DeleteFunc(open, func(s *source) bool { return s == first })
		}
	}
	select {
	case err := <-errs:
		return err
	default:
		return ctx.Err()
	}
}

// follow gives new lines until ctx ends, over restarts and new containers.
func (l *serviceLog) follow(ctx context.Context, each func(status.LogLine) error) error {
	var lost error
	for {
		again := time.NewTimer(reattach)
		err := l.read(ctx, engine.LogOptions{Tail: -1, Since: l.last.Add(time.Nanosecond), Follow: true}, func(line status.LogLine) error {
			l.last = line.Time
			lost = nil
			return each(line)
		})
		switch {
		case ctx.Err() != nil:
			again.Stop()
			return ctx.Err()
		case errors.Is(err, engine.ErrUnreachable):
			lost = err // the engine comes back, and the service with it
		case err != nil:
			again.Stop()
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		}
		if err := l.awaitRunning(ctx); err != nil {
			return errors.Join(err, lost)
		}
	}
}

// awaitRunning waits until the service has a container that runs.
func (l *serviceLog) awaitRunning(ctx context.Context) error {
	for {
		r, changed := l.d.feed.Get()
		i := slices.IndexFunc(r.Services, func(s status.Service) bool { return s.Name == l.service })
		if i >= 0 && r.Services[i].Container != "" && (r.Services[i].State == "running" || r.Services[i].Container != l.container) {
			l.container = r.Services[i].Container
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
