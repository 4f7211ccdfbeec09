// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/probe"
)

const (
	// looksPerRound bounds how many containers are inspected before the first
	// of them is acted on: when fifty die at once, the last must not delay
	// the first.
	looksPerRound = 8
	// lookTimeout bounds one look: an engine that answers each call, but
	// slowly, must not keep the loop from its watchdog.
	lookTimeout = time.Minute
	// guessFor is how long the outcome of a start is taken on trust.
	guessFor = time.Second
	// holdersPause is the least time between two looks for foreign containers
	// that a failed operation asks for.
	holdersPause = time.Second
)

// view is what was seen of the engine last. An event makes one container's
// part of it stale, and only that part is asked for again: a crash loop of
// fifty must not cost a list of fifty at each turn.
type view struct {
	services          map[string][]engine.Container
	networks, volumes map[string]bool
	foreign           []Foreign
	// at is when each container was inspected.
	at map[string]time.Time
	// stale maps containers to look at to their service, "" if unknown.
	stale map[string]string
	// guessed are containers that a start of ours has changed and nobody has
	// looked at since, with when to look at the latest: most that crash do so
	// before, and their end is looked at anyway.
	guessed map[string]time.Time
	// died are containers that ended while we still started them: there is
	// nothing to take on trust.
	died map[string]bool
	// doubts are operations that found no container, or no network, volume or
	// image: which of them, the next look tells.
	doubts map[string]result
	// whole asks for a look at everything, since the last at wholeAt; holders
	// for one at all others' containers, since the last at holdersAt.
	whole, holders     bool
	wholeAt, holdersAt time.Time
}

func newView() view {
	return view{whole: true, at: map[string]time.Time{}, stale: map[string]string{}, guessed: map[string]time.Time{}, died: map[string]bool{}, doubts: map[string]result{}}
}

// mark makes a container stale.
func (v *view) mark(id, service string) {
	if id != "" {
		v.stale[id] = service
	}
}

// knows reports whether an event tells nothing that the last look at its
// container did not show.
func (v *view) knows(e engine.Event, now time.Time) bool {
	at, ok := v.at[e.Container]
	if !ok || e.Time.After(at) {
		return false
	}
	// The two times are comparable only while nobody set the clock.
	if jump := now.Round(0).Sub(at.Round(0)) - now.Sub(at); jump.Abs() > 5*time.Millisecond {
		return false
	}
	if _, ok := v.guessed[e.Container]; ok {
		return e.Action == "start"
	}
	if e.Time.Before(at) {
		return true
	}
	c := v.find(e.Container)
	return c != nil && (e.Action == "start" && c.Up() || e.Action == "die" && !c.Up())
}

func (v *view) find(id string) *engine.Container {
	for _, cs := range v.services {
		for i := range cs {
			if cs[i].ID == id {
				return &cs[i]
			}
		}
	}
	return nil
}

// started enters what a start of ours has made of a container.
func (v *view) started(id string, at time.Time) {
	old := v.find(id)
	if old == nil || old.Started.IsZero() || v.died[id] {
		return // whether it has a health check shows at its first start
	}
	c := *old
	c.State, c.Started, c.ExitCode, c.OOMKilled, c.Error, c.HealthLog = "running", at, 0, false, "", ""
	if c.Health != "none" {
		c.Health = "starting"
	}
	v.put(c, at)
	delete(v.stale, id)
	v.guessed[id] = at.Add(guessFor)
}

// put takes a container over as it was seen.
func (v *view) put(c engine.Container, at time.Time) {
	v.at[c.ID] = at
	delete(v.guessed, c.ID)
	name := c.Labels[engine.ServiceLabel]
	cs := slices.Clone(v.services[name])
	if i := slices.IndexFunc(cs, func(x engine.Container) bool { return x.ID == c.ID }); i >= 0 {
		cs[i] = c
	} else {
		cs = append(cs, c)
	}
	v.services[name] = cs
}

// drop forgets a container that is gone.
func (v *view) drop(id string) {
	delete(v.at, id)
	delete(v.stale, id)
	delete(v.guessed, id)
	delete(v.died, id)
	for name, cs := range v.services {
		kept := slices.DeleteFunc(slices.Clone(cs), func(c engine.Container) bool { return c.ID == id })
		if len(kept) == 0 {
			delete(v.services, name)
		} else {
			v.services[name] = kept
		}
	}
}

// refresh brings the view up to date. more is true where stale containers are
// left for another round.
func (s *Supervisor) refresh(ctx context.Context) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	v := &s.view
	if v.whole || time.Since(v.wholeAt) >= resync {
		return false, s.lookAtAll(ctx)
	}
	for id, at := range v.guessed {
		if left := time.Until(at); left <= 0 || left > guessFor {
			c := v.find(id)
			if c == nil {
				delete(v.guessed, id)
				continue
			}
			v.mark(id, c.Labels[engine.ServiceLabel])
		}
	}
	var look []string
	for _, id := range slices.Sorted(maps.Keys(v.stale)) {
		if s.busy[v.stale[id]] != "" {
			continue // looked at once, when the operation has ended
		}
		if more = len(look) == looksPerRound; more {
			break
		}
		look = append(look, id)
	}
	for _, l := range s.lookAt(ctx, look) {
		service := v.stale[l.id]
		delete(v.stale, l.id)
		switch {
		case errors.Is(l.err, engine.ErrNotFound):
			v.drop(l.id)
			delete(v.doubts, l.id)
			continue
		case l.err != nil:
			v.stale[l.id] = service
			return false, l.err
		case !isMain(l.c) || l.c.Labels[engine.ProjectLabel] != s.c.Desired.Project:
			continue
		}
		v.put(l.c, l.at)
		if r, ok := v.doubts[l.id]; ok {
			// The container is there: something it needs is not.
			delete(v.doubts, l.id)
			s.failed(r)
			v.whole = true
		}
	}
	if more {
		return true, nil
	}
	if v.holders && time.Since(v.holdersAt) >= holdersPause {
		return false, s.lookAtHolders(ctx)
	}
	return false, nil
}

// looked is one container as it was seen.
type looked struct {
	id  string
	at  time.Time
	c   engine.Container
	err error
}

// lookAt inspects containers side by side: an engine that is busy with starts
// takes its time for each.
func (s *Supervisor) lookAt(ctx context.Context, ids []string) []looked {
	out := make([]looked, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		look := func() {
			at := time.Now()
			c, err := s.c.Engine.Container(ctx, id)
			out[i] = looked{id: id, at: at, c: c, err: err}
		}
		if i == len(ids)-1 {
			look() // the last one here: mostly it is the only one
			break
		}
		wg.Go(look)
	}
	wg.Wait()
	return out
}

func (s *Supervisor) lookAtAll(ctx context.Context) error {
	v := &s.view
	at := time.Now()
	o, err := Observe(ctx, s.c.Engine, s.c.Desired.Project)
	if err != nil {
		return err
	}
	v.services, v.networks, v.volumes = o.Services, o.Networks, o.Volumes
	clear(v.at)
	clear(v.guessed)
	for _, cs := range o.Services {
		for _, c := range cs {
			v.at[c.ID] = at
		}
	}
	for id, r := range v.doubts {
		if v.at[id] != (time.Time{}) {
			s.failed(r)
		}
	}
	clear(v.doubts)
	maps.DeleteFunc(v.stale, func(_, service string) bool { return s.busy[service] == "" })
	v.whole, v.wholeAt = false, at
	return s.lookAtHolders(ctx)
}

func (s *Supervisor) lookAtHolders(ctx context.Context) error {
	v := &s.view
	all, err := s.c.Engine.Holders(ctx)
	if err != nil {
		return err
	}
	ours := make(map[string]bool, len(v.at))
	for id := range v.at {
		ours[id] = true
	}
	now := foreign(s.c.Desired, all, ours)
	for _, f := range now {
		if !slices.Contains(v.foreign, f) {
			s.write(Entry{Act: "seen", Service: f.Service, Because: "foreign container " + f.Container + " holds " + f.Holds})
		}
	}
	v.foreign, v.holders, v.holdersAt = now, false, time.Now()
	return nil
}

// observed is the view as Decide takes it, with what the loop knows.
func (s *Supervisor) observed() Observed {
	v := &s.view
	o := Observed{
		Services: v.services, Networks: v.networks, Volumes: v.volumes, Foreign: v.foreign,
		Boot: s.c.Boot, Busy: s.busyOrStale(), ByHand: s.byHand, OOM: s.oom, Stopping: s.stopping, Fresh: s.fresh, Processors: s.c.Processors,
	}
	if s.c.Pressure != nil {
		o.Pressure = s.c.Pressure()
	}
	if s.c.Probes != nil && s.probed {
		s.c.Probes.Set(s.targets())
		o.Probes = s.c.Probes.Results()
	}
	if s.probed {
		o.Services = maps.Clone(v.services)
		o.merge(s.c.Desired)
	}
	return o
}

// busyOrStale are the operations under way, and the services that nothing may
// be decided about before they were looked at.
func (s *Supervisor) busyOrStale() map[string]Kind {
	out := maps.Clone(s.busy)
	for id, service := range s.view.stale {
		if c := s.view.find(id); c != nil {
			service = c.Labels[engine.ServiceLabel]
		}
		if service != "" && out[service] == "" {
			out[service] = Look
		}
	}
	for _, r := range s.view.doubts {
		if out[r.op.key()] == "" {
			out[r.op.key()] = Look
		}
	}
	return out
}

// targets are the running containers whose services have probes.
func (s *Supervisor) targets() []probe.Target {
	var out []probe.Target
	for i := range s.c.Desired.Services {
		svc := &s.c.Desired.Services[i]
		if len(svc.Probes) == 0 {
			continue
		}
		for _, c := range s.view.services[svc.Name] {
			if c.State != "running" {
				continue
			}
			t := probe.Target{Container: c.ID, Service: svc.Name, Started: c.Started, IPs: c.IPs, Probes: svc.Probes}
			if c.SharesNetwork != "" {
				for _, cs := range s.view.services {
					for _, other := range cs {
						if other.ID == c.SharesNetwork || other.Name == c.SharesNetwork {
							t.IPs = other.IPs
						}
					}
				}
			}
			out = append(out, t)
		}
	}
	return out
}
