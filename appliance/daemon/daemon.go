// SPDX-License-Identifier: Apache-2.0

// Package daemon is the box's one long-running program: it opens the API,
// finds and verifies the stack, holds its budget against the machine, loads its
// images, makes its secrets and hands it to the supervisor, beside which it
// runs what watches pressure, use and the engine, and the exporter. What goes
// wrong before that holds the stack: the daemon stays up and says why, and
// nothing of the stack is started.
package daemon

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/firstboot"
	"github.com/holdfast/holdfast/appliance/probe"
	"github.com/holdfast/holdfast/appliance/settings"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/status/facts"
	"github.com/holdfast/holdfast/appliance/supervise"
	"github.com/holdfast/holdfast/appliance/upgrade"
	"github.com/holdfast/holdfast/compose/budget"
)

// Engine is all the daemon needs of the Docker engine.
type Engine interface {
	supervise.Engine
	supervise.Images
	Ping(ctx context.Context) error
	Logs(ctx context.Context, id string, o engine.LogOptions, each func(engine.LogLine) error) error
}

// Config is where things are; Defaults gives a box's.
type Config struct {
	// Root goes before what is read of the kernel; "" on a box.
	Root string
	// Engine is the engine to use.
	Engine Engine
	// Socket of the API.
	Socket string
	// State is the writable folder, /var/lib/holdfast; Run the one that a
	// reboot empties, /run/holdfast.
	State, Run string
	// Data is where secrets lie, beside the data they open.
	Data string
	// Find finds the stack that shall run: on a box the factory's, while no
	// other release is committed. Installed finds an installed release's by
	// the digest of its manifest; nil where none can be.
	Find      Finder
	Installed func(digest string) Finder
	// Place tells of addresses and configuration; nil where that is not the
	// daemon's to say.
	Place Place
	// Commands run the box's disk tools; nil means the real ones.
	Commands firstboot.Runner
	// Upgrades is what a box needs for other releases; nil where there are
	// none.
	Upgrades *Upgrades
	// Size is the profile to run, "" for what the box's configuration says, or
	// else the machine's own.
	Size string
	// Metrics says where metrics are served; on a box without Listen, its
	// configuration does.
	Metrics Metrics
	// Version of this program, for metrics.
	Version string
	// AnyHost is true where a person named the stack: a machine that was
	// booted with a root hash need not be a Holdfast box then.
	AnyHost bool
	// Console gets the lines a person at the screen should see.
	Console io.Writer
	// Notify tells systemd; nil outside of it.
	Notify func(state string)
	// AliveEvery is half of systemd's watchdog time, 0 without one.
	AliveEvery time.Duration
}

// Daemon is one run of the daemon.
type Daemon struct {
	c     Config
	feed  *status.Feed
	say   *console
	facts facts.Facts
	ring  *ring
	// operations that were asked for; ops waits for them, life ends with Run.
	operations *operations
	ops        sync.WaitGroup
	life       context.Context

	mu         sync.Mutex
	sup        *supervise.Supervisor
	stopping   bool // the whole stack
	leaving    bool // the machine shuts down
	stretch    *stretch
	begin      chan struct{} // a parked stack is to begin again
	journal    *supervise.Journal
	running    *Found // what the stretch under way runs
	machine    *upgrade.Machine
	broken     error // why the machine could not begin
	took       latencies
	meter      *meter
	engineInfo engine.Info
	timings    status.Timings
	rootCond   []status.Condition
	bootCond   []status.Condition // what rootCond begins with

	looking, telling sync.Mutex
	// Guarded by the feed's lock, see update.
	view      settings.View
	ports     published
	stackCond []status.Condition
	others    map[string][]status.Condition // of the watchers beside the supervisor
	budget    *budget.Budget
	mounted   map[string][]string // volumes by service
	mends     int

	// box is true on a Holdfast box; known before anything is supervised.
	box           bool
	metricsClosed []status.Condition
}

// New prepares a daemon.
func New(c Config) *Daemon {
	if c.Notify == nil {
		c.Notify = func(string) {}
	}
	if c.AliveEvery <= 0 {
		c.AliveEvery = time.Minute
	}
	return &Daemon{c: c, say: newConsole(c.Console), ring: newRing(), operations: newOperations(), begin: make(chan struct{}, 1), others: map[string][]status.Condition{}, life: context.Background()}
}

// Run works until ctx ends; the stack's containers then run on.
func (d *Daemon) Run(ctx context.Context) error {
	if err := d.identify(); err != nil {
		return err
	}
	d.machine = d.upgrading()
	l, err := api.Listen(d.c.Socket)
	if err != nil {
		return err
	}
	defer os.Remove(d.c.Socket)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.life = ctx
	var wg sync.WaitGroup
	defer d.ops.Wait() // after all that may begin one
	defer wg.Wait()
	defer cancel()
	served := make(chan error, 1)
	wg.Go(func() { served <- api.Serve(ctx, l, api.Handler(d.feed, d)) })
	d.lookAround()
	wg.Go(func() { d.watchPlace(ctx) })
	wg.Go(func() { d.serveMetrics(ctx) })
	d.mend(ctx)
	d.c.Notify("READY=1")

	done := make(chan error, 1)
	wg.Go(func() { done <- d.work(ctx) })
	select {
	case err = <-done:
	case err = <-served:
		cancel()
		<-done
	}
	d.c.Notify("STOPPING=1")
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// identify makes the first report: what this boot is.
func (d *Daemon) identify() error {
	f, problem := facts.Read(d.c.Root)
	d.facts = f
	if problem != nil {
		d.bootCond = []status.Condition{unverified(problem.Error())}
		d.rootCond = slices.Clone(d.bootCond)
	}
	t, err := loadTimings(d.c.Run, f.BootID)
	if err != nil {
		return err
	}
	if t.DaemonStarted == 0 {
		t.DaemonStarted = facts.Uptime()
	}
	d.timings = t
	d.feed = status.NewFeed(status.Report{
		Slot: f.Slot, Root: f.Root, BootID: f.BootID, MachineID: f.MachineID, Release: status.Release{OS: f.OS},
		Stack: "starting", Services: []status.Service{}, Conditions: orNone(d.rootCond), Timings: t,
		Allowances: []status.Allowance{}, Addresses: []status.Address{}, URLs: []string{}, SSH: status.SSH{Keys: []string{}},
		Config: status.Config{Sources: []status.ConfigSource{}, Origin: map[string]string{}},
	})
	d.stackCond = d.rootCond
	return saveTimings(d.c.Run, f.BootID, t)
}

// supervisor makes the supervisor and what watches beside it.
func (d *Daemon) supervisor(ctx context.Context, desired *supervise.Desired, j *supervise.Journal) (*supervise.Supervisor, error) {
	c := supervise.Config{
		Engine: d.c.Engine, Desired: desired, Journal: j, Boot: d.facts.BootID, Jitter: rand.Float64,
		Publish: d.publish, Alive: d.alive, AliveEvery: d.c.AliveEvery, Event: d.ring.add,
		Stuck: func(container string) { d.ops.Go(func() { d.stuck(ctx, container) }) },
	}
	if d.box {
		c.Carry = func(x supervise.Carried) error { return x.Save(d.carriedPath()) }
	}
	wake := func() {
		d.mu.Lock()
		sup := d.sup
		d.mu.Unlock()
		if sup != nil {
			sup.Wake()
		}
	}
	if e, ok := d.c.Engine.(probe.Engine); ok {
		r := probe.New(probe.Config{Engine: e, Publish: wake, Took: d.took.add})
		d.ops.Go(func() {
			<-ctx.Done()
			r.Close()
		})
		c.Probes = r
	}
	if m := d.meter; m != nil {
		rooms := m.rooms
		if e := d.enforcer(ctx); e != nil {
			e.Apply(ctx, d.budget, nil, m.places())
			c.Engine = e.Engine(d.c.Engine)
			d.ops.Go(func() { e.Run(ctx) })
			if d.box {
				rooms = e.Rooms
			}
		}
		c.Pressure = lacks(d.watchPressure(ctx, rooms, wake))
		if m.gauge != nil {
			d.ops.Go(func() { m.gauge.Run(ctx, m.folders) })
		}
	}
	return supervise.New(c)
}

// beat keeps systemd's watchdog content while the stack is prepared: each
// step there has a deadline of its own.
func (d *Daemon) beat(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	t := time.NewTicker(d.c.AliveEvery)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			d.alive()
			select {
			case <-t.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); t.Stop(); <-done }
}

func (d *Daemon) alive() { d.c.Notify("WATCHDOG=1") }

// control asks for the stack to be stopped or run, now or once there is one.
func (d *Daemon) control(ctx context.Context, stop bool) error {
	d.mu.Lock()
	sup := d.sup
	d.stopping = stop
	d.mu.Unlock()
	switch {
	case sup == nil && stop:
		// Nothing of the stack was started yet, and nothing will be.
		d.update(func(r *status.Report) bool {
			starting := r.Stack == "starting"
			if starting {
				r.Stack = "stopped"
			}
			return starting
		})
		return nil
	case sup == nil:
		return nil
	case stop:
		return sup.StopStack(ctx)
	}
	return sup.StartStack(ctx)
}

func orNone[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

var _ Engine = (*engine.Docker)(nil)
