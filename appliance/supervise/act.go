// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/mount"

	"github.com/holdfast/holdfast/appliance/engine"
)

// Actor is what acting needs of an engine.
type Actor interface {
	CreateNetwork(ctx context.Context, n engine.Network) error
	CreateVolume(ctx context.Context, v engine.Volume) error
	Create(ctx context.Context, s engine.Spec) (id string, err error)
	Start(ctx context.Context, id string) error
	Stop(ctx context.Context, id string, grace time.Duration) error
	Restart(ctx context.Context, id string, grace time.Duration) error
	Remove(ctx context.Context, id string) error
	Rename(ctx context.Context, id, name string) error
	Update(ctx context.Context, id string, l engine.Limits) error
	Wait(ctx context.Context, id string) (code int, err error)
	ExecCommand(ctx context.Context, id string, c engine.Command) (engine.ExecResult, error)
}

// Bounds of hooks, for which the specification has none. pre_stop commands
// together have the service's grace.
const (
	initTimeout      = time.Hour
	postStartTimeout = 5 * time.Minute
)

// Act carries out one operation and returns the id of a container it made.
// inherit are the anonymous volumes a new container takes over.
func Act(ctx context.Context, a Actor, d *Desired, op Op, inherit map[string]string) (string, error) {
	s := d.service(op.Target)
	if s == nil {
		s = &Service{Name: op.Target} // a container of a service that is no more
	}
	switch op.Kind {
	case CreateNetwork:
		for _, n := range d.Networks {
			if n.Name == op.Target {
				return "", a.CreateNetwork(ctx, n)
			}
		}
	case CreateVolume:
		for _, v := range d.Volumes {
			if v.Name == op.Target {
				return "", a.CreateVolume(ctx, v)
			}
		}
	case Create:
		spec := withVolumes(s.Spec, inherit)
		if op.Name != "" {
			spec.Name = op.Name
		}
		return a.Create(ctx, spec)
	case Start:
		if op.Init {
			if err := preStart(ctx, a, s, op); err != nil {
				return "", err
			}
		}
		if err := a.Start(ctx, op.Container); err != nil {
			return "", err
		}
		return "", postStart(ctx, a, s, op)
	case PostStart:
		return "", postStart(ctx, a, s, op)
	case Stop:
		return "", a.Stop(ctx, op.Container, preStop(ctx, a, s, op))
	case RestartOp:
		if err := a.Restart(ctx, op.Container, preStop(ctx, a, s, op)); err != nil {
			return "", err
		}
		return "", postStart(ctx, a, s, op)
	case Remove:
		return "", a.Remove(ctx, op.Container)
	case Rename:
		return "", a.Rename(ctx, op.Container, op.Name)
	case Update:
		return "", a.Update(ctx, op.Container, *op.Limits)
	}
	return "", fmt.Errorf("the stack has no %s", op.key())
}

// preStart runs the init containers, one after the other. What an interrupted
// run left under their names goes first: two of them must not work on the
// same volumes at once.
func preStart(ctx context.Context, a Actor, s *Service, op Op) error {
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	for i, spec := range s.Hooks.PreStart {
		if err := discardInit(ctx, a, spec.Name, op.Grace); err != nil {
			return fmt.Errorf("pre_start %d: %w", i, err)
		}
		// The new container's volumes, anonymous ones too. By its id: while an
		// older one has the name, that would be the wrong one.
		from := slices.DeleteFunc(slices.Clone(spec.Host.VolumesFrom), func(v string) bool { return v == s.Spec.Name })
		spec.Host.VolumesFrom = append(from, op.Container)
		id, err := a.Create(ctx, spec)
		if err != nil {
			return fmt.Errorf("pre_start %d: %w", i, err)
		}
		if err := a.Start(ctx, id); err != nil {
			return fmt.Errorf("pre_start %d: %w", i, err)
		}
		code, err := a.Wait(ctx, id)
		switch {
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("pre_start %d did not end within %s: docker logs %s", i, initTimeout, spec.Name)
		case err != nil:
			return fmt.Errorf("pre_start %d: %w", i, err)
		case code != 0:
			return fmt.Errorf("pre_start %d ended with exit code %d: docker logs %s", i, code, spec.Name)
		}
		if err := a.Remove(ctx, id); err != nil {
			return fmt.Errorf("pre_start %d: %w", i, err)
		}
	}
	return nil
}

func discardInit(ctx context.Context, a Actor, name string, grace time.Duration) error {
	if err := a.Stop(ctx, name, grace); errors.Is(err, engine.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	if err := a.Remove(ctx, name); err != nil && !errors.Is(err, engine.ErrNotFound) {
		return err
	}
	return nil
}

// postStart runs the hooks of a container that has just started. Where one
// fails the container ends again: half started is not started.
func postStart(ctx context.Context, a Actor, s *Service, op Op) error {
	if len(s.Hooks.PostStart) == 0 {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, postStartTimeout)
	defer cancel()
	for i, h := range s.Hooks.PostStart {
		if err := h.run(limited, a, op.Container); err != nil {
			return errors.Join(fmt.Errorf("post_start %d: %w", i, err), a.Stop(ctx, op.Container, s.Grace))
		}
	}
	return nil
}

// preStop runs the hooks of a container that is about to be stopped, and
// returns what is left of its grace. A hook that fails must not keep a
// service from stopping.
func preStop(ctx context.Context, a Actor, s *Service, op Op) time.Duration {
	if len(s.Hooks.PreStop) == 0 {
		return op.Grace
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, op.Grace)
	defer cancel()
	for _, h := range s.Hooks.PreStop {
		if err := h.run(limited, a, op.Container); err != nil && op.Said != nil {
			op.Said("pre_stop: " + err.Error())
		}
	}
	return max(time.Second, op.Grace-time.Since(began))
}

func (h Hook) run(ctx context.Context, a Actor, container string) error {
	r, err := a.ExecCommand(ctx, container, engine.Command{Argv: h.Command, Env: h.Env, User: h.User, WorkingDir: h.WorkingDir, Privileged: h.Privileged})
	if err != nil {
		return err
	}
	if r.ExitCode != 0 {
		out := strings.TrimSpace(r.Output)
		if i := strings.LastIndexByte(out, '\n'); i >= 0 {
			out = out[i+1:]
		}
		return fmt.Errorf("%s ended with exit code %d: %s", h.Command[0], r.ExitCode, strings.ToValidUTF8(out, "?"))
	}
	return nil
}

// withVolumes mounts inherited anonymous volumes where the new container has
// nothing of its own.
func withVolumes(s engine.Spec, inherit map[string]string) engine.Spec {
	if len(inherit) == 0 {
		return s
	}
	s.Host.Mounts = slices.Clone(s.Host.Mounts)
	for _, target := range slices.Sorted(maps.Keys(inherit)) {
		i := slices.IndexFunc(s.Host.Mounts, func(m mount.Mount) bool { return m.Target == target })
		switch {
		case i < 0:
			s.Host.Mounts = append(s.Host.Mounts, mount.Mount{Type: mount.TypeVolume, Source: inherit[target], Target: target})
		case s.Host.Mounts[i].Type == mount.TypeVolume && s.Host.Mounts[i].Source == "":
			s.Host.Mounts[i].Source = inherit[target]
		}
	}
	return s
}

// anonymous picks the volumes of a container that only it names.
func anonymous(d *Desired, c *engine.Container) map[string]string {
	var out map[string]string
	for target, name := range c.Volumes {
		named := slices.ContainsFunc(d.Volumes, func(v engine.Volume) bool { return v.Name == name }) ||
			slices.Contains(d.ExternalVolumes, name)
		if named {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[target] = name
	}
	return out
}
