// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"net/http"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/enforce"
	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/pressure"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/supervise"
	"github.com/holdfast/holdfast/appliance/usage"
	"github.com/holdfast/holdfast/compose/stack"
)

// informer is an engine that tells about itself.
type informer interface {
	Info(ctx context.Context) (engine.Info, error)
}

// meet asks the engine what it is, once it answers.
func (d *Daemon) meet(ctx context.Context) {
	e, ok := d.c.Engine.(informer)
	if !ok {
		return
	}
	info, err := e.Info(ctx)
	if err != nil {
		return // the next call says what is wrong
	}
	d.mu.Lock()
	d.engineInfo = info
	d.mu.Unlock()
}

func (d *Daemon) engineIs() engine.Info {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.engineInfo
}

// slices says whether containers belong into the slices of their classes: on
// a box, which has them, where the engine makes groups through systemd.
func (d *Daemon) slices() bool { return d.box && d.engineIs().CgroupDriver == "systemd" }

func (d *Daemon) v2() bool { return d.engineIs().CgroupVersion == "2" }

// measuring prepares to read what is used, once the stack is known.
func (d *Daemon) measuring(st *stack.Stack) {
	m := &meter{volumes: map[string][]usage.Place{}}
	root := d.engineIs().Root
	for _, p := range []usage.Place{{Name: "data", Path: d.c.Data}, {Name: "engine", Path: root}, {Name: "state", Path: d.c.State}} {
		if p.Path != "" {
			m.disks = append(m.disks, p)
		}
	}
	if root != "" {
		for service, keys := range mountedVolumes(st) {
			for _, key := range keys {
				m.volumes[service] = append(m.volumes[service], usage.Place{Name: key, Path: filepath.Join(root, "volumes", st.Project.Volumes[key].Name, "_data")})
			}
		}
	}
	if !d.box {
		m.gauge = usage.NewGauge()
	}
	m.reader = usage.New(usage.Config{Root: d.c.Root, Disks: m.disks, Gauge: m.gauge})
	d.mu.Lock()
	d.meter = m
	d.mu.Unlock()
}

// meter reads what is used.
type meter struct {
	reader  *usage.Reader
	gauge   *usage.Gauge // nil on a box, whose quotas count
	disks   []usage.Place
	volumes map[string][]usage.Place
}

// places are the volumes of the stack.
func (m *meter) places() []enforce.Volume {
	var out []enforce.Volume
	for _, places := range m.volumes {
		for _, p := range places {
			if v := (enforce.Volume{Name: p.Name, Path: p.Path}); !slices.Contains(out, v) {
				out = append(out, v)
			}
		}
	}
	slices.SortFunc(out, func(a, b enforce.Volume) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// enforcer makes budgets hold that the engine has no word for; nil where what
// is read of the kernel is not the machine's.
func (d *Daemon) enforcer(ctx context.Context) *enforce.Enforcer {
	if d.c.Root != "" {
		return nil
	}
	c := enforce.Config{Quotas: enforce.Observed{}}
	if d.box {
		c = enforce.Box(d.commands())
		c.Slices = d.slices()
	}
	var e *enforce.Enforcer
	// Its conditions change while it holds locks of its own.
	changed := make(chan struct{}, 1)
	c.Wake = func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	e = enforce.New(c)
	d.ops.Go(func() {
		for {
			select {
			case <-changed:
				d.setOther("enforce", e.Conditions())
			case <-ctx.Done():
				return
			}
		}
	})
	return e
}

// folders are those of all volumes, for the gauge.
func (m *meter) folders() []string {
	var out []string
	for _, places := range m.volumes {
		for _, p := range places {
			if !slices.Contains(out, p.Path) {
				out = append(out, p.Path)
			}
		}
	}
	slices.Sort(out)
	return out
}

// Usage implements api.Control.
func (d *Daemon) Usage(ctx context.Context) (status.Usage, error) {
	d.mu.Lock()
	m := d.meter
	d.mu.Unlock()
	if m == nil {
		return status.Usage{}, &api.Problem{Status: http.StatusServiceUnavailable, Text: "nothing is measured before the stack is known", Remedy: "holdfast status says what it waits for"}
	}
	r, _ := d.feed.Get()
	var targets []usage.Target
	for _, s := range r.Services {
		if s.Container != "" && (s.State == "running" || s.State == "paused") {
			targets = append(targets, usage.Target{Service: s.Name, Container: s.Container, Volumes: m.volumes[s.Name]})
		}
	}
	u, err := m.reader.Read(ctx, targets)
	u.Services = orNone(u.Services)
	// Two names for one file system would show it twice.
	var disks []status.DiskUsage
	for _, x := range u.Node.Disks {
		if !slices.ContainsFunc(disks, func(y status.DiskUsage) bool { return x.Used == y.Used && x.Total == y.Total }) {
			disks = append(disks, x)
		}
	}
	u.Node.Disks = orNone(disks)
	return u, err
}

// rooms is the room on the disks, for the pressure.
func (m *meter) rooms() []pressure.Room {
	var out []pressure.Room
	seen := map[unix.Fsid]bool{}
	for _, p := range m.disks {
		var s unix.Statfs_t
		if unix.Statfs(p.Path, &s) != nil || seen[s.Fsid] {
			continue
		}
		seen[s.Fsid] = true
		out = append(out, pressure.Room{Name: p.Name, Free: int64(s.Bavail) * s.Bsize, Total: int64(s.Blocks) * s.Bsize})
	}
	return out
}

// watchPressure watches what the machine lacks until ctx ends.
func (d *Daemon) watchPressure(ctx context.Context, rooms func() []pressure.Room, wake func()) *pressure.Watcher {
	c := pressure.Config{Sample: pressure.Machine(d.c.Root, rooms)}
	var w *pressure.Watcher
	c.Wake = func() {
		s := w.State()
		d.update(func(r *status.Report) bool {
			r.Pressure = &status.PressureState{Level: s.Level, Resource: s.Resource, Text: s.Text, Since: s.Since}
			d.others["pressure"] = w.Conditions()
			r.Conditions = d.conditions()
			d.lookAtRoot(r)
			return true
		})
		wake()
	}
	var end func()
	if d.c.Root == "" {
		// Where the kernel gives none, samples do.
		if wait, stop, err := pressure.Triggers(); err == nil {
			c.Trigger, end = wait, stop
		}
	}
	w = pressure.New(c)
	// Watched and well is not the same as not watched.
	d.update(func(r *status.Report) bool {
		if r.Pressure == nil {
			r.Pressure = &status.PressureState{Level: pressure.None}
		}
		return true
	})
	d.ops.Go(func() {
		w.Run(ctx)
		if end != nil {
			end()
		}
	})
	return w
}

// lacks is a pressure in the supervisor's words.
func lacks(w *pressure.Watcher) func() supervise.Pressure {
	return func() supervise.Pressure {
		s := w.State()
		return supervise.Pressure{Level: s.Level, Resource: s.Resource, Text: s.Text, Since: s.Since}
	}
}

// setOther sets what one of the watchers beside the supervisor has to say.
func (d *Daemon) setOther(who string, c []status.Condition) {
	d.update(func(r *status.Report) bool {
		if slices.Equal(d.others[who], c) {
			return false
		}
		d.others[who] = c
		r.Conditions = d.conditions()
		d.lookAtRoot(r)
		return true
	})
}
