// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"fmt"
	"maps"
	"slices"
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
}

// Act carries out one operation and returns the id of a container it made.
// inherit are the anonymous volumes a new container takes over.
func Act(ctx context.Context, a Actor, d *Desired, op Op, inherit map[string]string) (string, error) {
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
		if s := d.service(op.Target); s != nil {
			return a.Create(ctx, withVolumes(s.Spec, inherit))
		}
	case Start:
		return "", a.Start(ctx, op.Container)
	case Stop:
		return "", a.Stop(ctx, op.Container, op.Grace)
	case RestartOp:
		return "", a.Restart(ctx, op.Container, op.Grace)
	case Remove:
		return "", a.Remove(ctx, op.Container)
	}
	return "", fmt.Errorf("the stack has no %s", op.key())
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
