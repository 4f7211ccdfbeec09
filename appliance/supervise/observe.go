// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/probe"
)

// Labels the supervisor finds its own containers by.
const (
	labelHash       = "com.docker.compose.config-hash"
	labelGeneration = "io.holdfast.generation"
)

// Observer is what observing needs of an engine.
type Observer interface {
	Container(ctx context.Context, id string) (engine.Container, error)
	Holders(ctx context.Context) ([]engine.Holder, error)
	Containers(ctx context.Context, project string) ([]engine.Container, error)
	Networks(ctx context.Context, project string) (map[string]bool, error)
	Volumes(ctx context.Context, project string) (map[string]bool, error)
}

// Observed is the engine's state as one value, with what the loop knows.
type Observed struct {
	// Services maps each service name, known to the stack or not, to its
	// containers.
	Services          map[string][]engine.Container
	Networks, Volumes map[string]bool
	// Boot is the id of this boot of the box.
	Boot string
	// Fresh is true at the first look after the engine was away: what ended
	// meanwhile ended with the engine.
	Fresh bool
	// Busy maps the key of each operation under way to its kind.
	Busy map[string]Kind
	// ByHand holds containers that somebody else asked the engine to stop.
	ByHand map[string]bool
	// OOM holds containers that the kernel has killed something of for lack of
	// memory. The engine tells of it apart from the end, which may not say so.
	OOM map[string]bool
	// Stopping is true while the stack is being stopped as a whole.
	Stopping bool
	// Processors of the machine, 0 counts as 1.
	Processors int
	// Foreign are containers of others that hold what the stack needs.
	Foreign []Foreign
	// Probes are the results of our own checks, by container; a container
	// whose service has probes and that is not in it is still starting.
	Probes map[string]probe.Result
	// Pressure is what the box lacks, the zero value where nobody watches.
	Pressure Pressure
}

// Foreign is a container of somebody else that holds what a service needs.
type Foreign struct {
	Service string
	// Container is its name, Holds "the name X" or "the port 80/tcp".
	Container, Holds string
}

// Pressure is what the box lacks.
type Pressure struct {
	// Level is "none", "warn" or "high", "" where nobody watches.
	Level string
	// Resource is "memory", "disk", "io" or "cpu", "" for Level "none"; Text
	// says more.
	Resource, Text string
	// Since is when Level was entered.
	Since time.Time
}

// isMain reports whether a container is a service's own.
func isMain(c engine.Container) bool {
	return c.Labels[labelHook] == "" && c.Labels["com.docker.compose.oneoff"] != "True"
}

// Observe asks the engine for everything of the project.
func Observe(ctx context.Context, e Observer, project string) (Observed, error) {
	o := Observed{Services: map[string][]engine.Container{}, Busy: map[string]Kind{}, ByHand: map[string]bool{}}
	cs, err := e.Containers(ctx, project)
	if err != nil {
		return o, err
	}
	for _, c := range cs {
		if !isMain(c) {
			continue
		}
		name := c.Labels[engine.ServiceLabel]
		o.Services[name] = append(o.Services[name], c)
	}
	if o.Networks, err = e.Networks(ctx, project); err != nil {
		return o, err
	}
	o.Volumes, err = e.Volumes(ctx, project)
	return o, err
}

// merge puts the results of our own checks into the containers: both they and
// the container's health check must be good.
func (o Observed) merge(d *Desired) {
	for i := range d.Services {
		s := &d.Services[i]
		if len(s.Probes) == 0 {
			continue
		}
		cs := slices.Clone(o.Services[s.Name])
		for j := range cs {
			c := &cs[j]
			if !c.Up() {
				continue
			}
			r, ok := o.Probes[c.ID]
			if !ok {
				r = probe.Result{Health: probe.Starting}
			}
			switch {
			case c.Health == probe.Unhealthy:
			case r.Health == probe.Unhealthy:
				c.Health, c.HealthLog = r.Health, r.Output
			case c.Health == probe.Starting || r.Health == probe.Starting:
				c.Health = probe.Starting
			default:
				c.Health = probe.Healthy
			}
		}
		o.Services[s.Name] = cs
	}
}

// pick returns the container that is the service's, or nil, and the others,
// which are in its way: the one with the right configuration comes first,
// then the one that runs, then the name, so that the choice is stable.
func (o Observed) pick(s *Service) (*engine.Container, []engine.Container) {
	all := slices.Clone(o.Services[s.Name])
	if len(all) == 0 {
		return nil, nil
	}
	rank := func(c engine.Container) int {
		n := 0
		if c.Labels[labelHash] != s.Hash {
			n += 2
		}
		if !c.Up() {
			n++
		}
		return n
	}
	slices.SortFunc(all, func(a, b engine.Container) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return &all[0], all[1:]
}
