// SPDX-License-Identifier: Apache-2.0

// Package enforce makes a budget hold where the engine has no word for it:
// protection and weights of control groups by class, project quotas of volumes
// and of the engine's store, and ballast files that keep a full disk usable.
// What a container may use at most (memory, processors, processes, log size)
// is set when it is created and is not this package's.
//
// Each act is observe, decide, act: what is as it should be is left alone, so
// Apply may be called as often as something changed. What a machine can't
// enforce is told as a condition and never stops a stack.
package enforce

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast/holdfast/appliance/enforce/quota"
	"github.com/holdfast/holdfast/appliance/pressure"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/usage"
	"github.com/holdfast/holdfast/compose/budget"
)

// Container is one that runs.
type Container struct {
	Service string
	// ID is the engine's, PID the container's first process, 0 if not known.
	ID  string
	PID int
}

// Volume is a named volume of the stack.
type Volume struct {
	// Name in the stack, as the budget has it.
	Name string
	// Path of the folder that holds its files.
	Path string
}

// Quotas are project quotas; Kernel's are the real ones, a test brings its own.
// Methods answer quota.ErrNone where a file system has none.
type Quotas interface {
	// Project of a folder, and whether what is created in it joins it.
	Project(path string) (id uint32, inherits bool, err error)
	// Adopt makes a folder and what is in it part of a project.
	Adopt(ctx context.Context, path string, id uint32) error
	// OfProject gives use and limit of a project on the file system of path.
	OfProject(path string, id uint32) (quota.Usage, error)
	// SetLimit in bytes, 0 for none.
	SetLimit(path string, id uint32, limit int64) error
}

// Runner runs one command to its end and gives its standard output.
type Runner interface {
	Run(ctx context.Context, argv ...string) ([]byte, error)
}

// Config of an Enforcer; Box gives a box's.
type Config struct {
	// Root is put before the paths of control groups; "" is the machine.
	Root string
	// Slices says that containers run in holdfast's slices, which are then
	// protected too. Run is for systemctl and needed with it.
	Slices bool
	Run    Runner
	// Data and State are folders on the volumes of that name; "" where they
	// are not ours: no ballast is kept there.
	Data, State string
	// Store are folders of the engine that together may fill State only up to
	// a quota; none where State is "".
	Store []string
	// Kept is the file, on the data volume, that remembers the projects of
	// volumes, KeptLayers the one, on state, for those of writable layers; ""
	// keeps none.
	Kept, KeptLayers string
	// Layers bounds what each service writes beside its volumes; nil leaves
	// that to the store's quota alone.
	Layers Layers
	// Quotas are Kernel where nil, Space and Mounted look at the machine where
	// nil. Nothing is kept on Data while it is not mounted.
	Quotas  Quotas
	Space   func(path string) (Space, error)
	Mounted func(path string) bool
	// Ballast makes and removes ballast files, the real ones where nil.
	Ballast Ballasts
	// Wake is called when the list of conditions changed; may be nil.
	Wake func()
}

// Box is the Config of a box.
func Box(run Runner) Config {
	return Config{
		Slices: true, Run: run,
		Data: "/var/lib/holdfast/data", State: "/var/lib/holdfast",
		// Unpacked images and the containers' writable layers. The store's own
		// databases lie beside it: they must not fail because a layer is full.
		Store: []string{"/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"},
		Kept:  "/var/lib/holdfast/data/projects.json", KeptLayers: "/var/lib/holdfast/layers.json",
		Layers: NewContainerd(""),
	}
}

// Enforcer enforces budgets. Its methods may be called by several goroutines.
type Enforcer struct {
	c      Config
	groups *usage.Reader

	mu      sync.Mutex // one Apply or check at a time
	b       *budget.Budget
	volumes []Volume
	ids     *ids // of volumes
	// layerIDs are of writable layers, nil before the first.
	layerIDs *ids
	who      map[string]known              // by container id
	told     map[string][]status.Condition // by part

	list    sync.Mutex
	current []status.Condition
}

// New makes an Enforcer; it touches nothing yet.
func New(c Config) *Enforcer {
	if c.Quotas == nil {
		c.Quotas = Kernel{}
	}
	if c.Space == nil {
		c.Space = statfs
	}
	if c.Mounted == nil {
		c.Mounted = mountPoint
	}
	if c.Ballast == nil {
		c.Ballast = Files{}
	}
	return &Enforcer{c: c, groups: usage.New(usage.Config{Root: c.Root}), who: map[string]known{}, told: map[string][]status.Condition{}}
}

// Apply enforces what b says for the containers that run and the volumes of the
// stack, whether they are there yet or not, and returns all conditions. b may be
// nil: limits of volumes and weights then stay as they are. Called once before
// the supervisor runs, it needs no containers: Engine sees to them.
func (e *Enforcer) Apply(ctx context.Context, b *budget.Budget, containers []Container, volumes []Volume) []status.Condition {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.b, e.volumes = b, slices.Clone(volumes)
	e.disks(ctx)
	e.told["groups"] = e.protect(ctx, containers)
	return e.tell()
}

// checkEvery is the time between looks at disks.
const checkEvery = 10 * time.Second

// Run looks at disks every 10 s until ctx ends, which is its error: ballast is
// released or made again, the store's quota follows the room there is.
func (e *Enforcer) Run(ctx context.Context) error {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			e.mu.Lock()
			e.disks(ctx)
			e.tell()
			e.mu.Unlock()
		}
	}
}

func (e *Enforcer) disks(ctx context.Context) {
	e.told["ballast"] = e.ballasts()
	e.told["store"] = e.store(ctx)
	e.told["layers"] = e.layers()
	e.told["volumes"] = e.quotas(ctx)
}

// Conditions are those of the last Apply or look.
func (e *Enforcer) Conditions() []status.Condition {
	e.list.Lock()
	defer e.list.Unlock()
	return slices.Clone(e.current)
}

// tell makes the list and wakes whoever shows it if it changed.
func (e *Enforcer) tell() []status.Condition {
	var all []status.Condition
	for _, part := range []string{"ballast", "store", "layers", "volumes", "groups"} {
		all = append(all, e.told[part]...)
	}
	e.list.Lock()
	changed := !slices.Equal(all, e.current)
	e.current = all
	e.list.Unlock()
	if changed && e.c.Wake != nil {
		e.c.Wake()
	}
	return slices.Clone(all)
}

// Rooms are the disks that the pressure watcher looks at: data, state and the
// engine's store, each as far as it is ours.
func (e *Enforcer) Rooms() []pressure.Room {
	var rooms []pressure.Room
	for _, d := range []struct{ name, path string }{{"data", e.c.Data}, {"state", e.c.State}} {
		if d.path == "" {
			continue
		}
		if s, err := e.space(d.path); err == nil {
			rooms = append(rooms, pressure.Room{Name: d.name, Free: s.Free, Total: s.Total})
		}
	}
	if len(e.c.Store) > 0 {
		if u, err := e.c.Quotas.OfProject(e.c.Store[0], storeProject); err == nil && u.Limit > 0 {
			rooms = append(rooms, pressure.Room{Name: "the engine's store", Free: max(0, u.Limit-u.Used), Total: u.Limit})
		}
	}
	return rooms
}

// failed is what a part says that could not do its work.
func failed(what string, err error) status.Condition {
	return status.Condition{
		Code: "limits-not-applied", Severity: "warning",
		Text:   what + ": " + strings.ReplaceAll(err.Error(), "\n", "; "),
		Remedy: "holdfast tries again at the next change; if it stays, journalctl -u holdfast says more",
	}
}
