// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/moby/api/types/mount"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/engine/fake"
	"github.com/holdfast/holdfast/compose/stack"
)

// judge watches every act of the supervisor against the truth.
type judge struct {
	*fake.Engine
	d  *Desired
	mu sync.Mutex
	// starts of each service, and the disturbances that excuse one more.
	starts  map[string][]time.Time
	excuses []time.Time
	// press is true while there is pressure, or was a moment ago.
	press time.Time
	// blind is until when an event may have been lost that a resync tells.
	blind time.Time
	done  bool
	acts  int
	bad   []string
}

func (j *judge) blame(format string, args ...any) {
	j.bad = append(j.bad, time.Now().UTC().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// excuse allows each service one more start in the window around now.
func (j *judge) excuse() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.excuses = append(j.excuses, time.Now())
}

func (j *judge) Start(ctx context.Context, id string) error {
	j.starting(ctx, id)
	return j.Engine.Start(ctx, id)
}

func (j *judge) Restart(ctx context.Context, id string, grace time.Duration) error {
	j.ending(ctx, id, "restart")
	j.starting(ctx, id)
	return j.Engine.Restart(ctx, id, grace)
}

func (j *judge) Stop(ctx context.Context, id string, grace time.Duration) error {
	j.ending(ctx, id, "stop")
	return j.Engine.Stop(ctx, id, grace)
}

// ending: nothing that is well is ever touched, but to make room.
func (j *judge) ending(ctx context.Context, id, what string) {
	c, err := j.Engine.Container(ctx, id)
	if err != nil || !c.Up() {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.acts++
	s := j.d.service(c.Labels[engine.ServiceLabel])
	well := c.State == "running" && (c.Health == "healthy" || c.Health == "none")
	if !well || s == nil {
		return
	}
	if what == "stop" && s.Sheddable && s.Class != stack.Critical && time.Since(j.press) <= time.Second {
		return
	}
	j.blame("%s of %s, which is well", what, s.Name)
}

// starting: in order, never two on one read-write volume, never too often.
func (j *judge) starting(ctx context.Context, id string) {
	c, err := j.Engine.Container(ctx, id)
	if err != nil {
		return
	}
	name := c.Labels[engine.ServiceLabel]
	s := j.d.service(name)
	now := time.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.acts++
	for _, other := range j.All(name) {
		if other.ID == id || !other.Up() {
			continue
		}
		for _, v := range c.Volumes {
			for _, w := range other.Volumes {
				if v == w {
					j.blame("two containers of %s on volume %s", name, v)
				}
			}
		}
	}
	for _, dep := range s.DependsOn {
		if now.Before(j.blind) {
			break
		}
		dc, ok := j.Get(dep.Service)
		switch {
		case dep.Condition == Completed && j.done:
		case !ok:
			j.blame("%s starts and %s does not exist", name, dep.Service)
		case dep.Condition == Completed && (dc.State != "exited" || dc.ExitCode != 0):
			j.blame("%s starts and %s has not completed", name, dep.Service)
		case dep.Condition == Completed:
			j.done = true // once is for good, whatever becomes of the container
		case !dc.Up() && now.Sub(dc.Finished) > 0:
			j.blame("%s starts and %s has not run for %s", name, dep.Service, now.Sub(dc.Finished))
		case dep.Condition == Healthy && dc.Up() && dc.Health == "starting" && now.Sub(dc.Started) > 0:
			j.blame("%s starts and %s is not healthy", name, dep.Service)
		}
	}
	const window = 10 * time.Minute
	j.starts[name] = append(j.starts[name], now)
	in := func(ts []time.Time) (n int) {
		for _, t := range ts {
			if now.Sub(t) <= window {
				n++
			}
		}
		return n
	}
	// 0, 1, 3, 7, ... s: at most ten restarts within ten minutes, and one for
	// each disturbance that makes the supervisor forget or begin anew.
	if n := in(j.starts[name]); n > 11+2*in(j.excuses) {
		j.blame("%s started %d times within %s, with %d excuses", name, n, window, in(j.excuses))
	}
}

// town is a stack of 12 with all kinds of dependencies.
func town() *Desired {
	migrate := svc("migrate", "on-failure", false, "db:healthy")
	migrate.OneShot = true
	list := []Service{
		svc("cache", "always", true), svc("db", "always", true), svc("disk", "always", false), migrate,
		svc("index", "unless-stopped", true, "disk", "db:healthy"), svc("api", "always", true, "db:healthy", "migrate:completed", "cache:healthy"),
		svc("worker", "always", false, "api:healthy"), sheddable(svc("batch", "always", false, "db:healthy"), stack.BestEffort, 1),
		sheddable(svc("trace", "always", true), stack.BestEffort, 2), svc("web", "always", true, "api:healthy", "index"),
		sheddable(svc("docs", "always", false), stack.Normal, 0), svc("edge", "always", true, "web"),
	}
	for i := range list {
		list[i].Spec.Host.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: "demo_" + list[i].Name, Target: "/data"}}
		list[i].Spec.Host.Memory = 1 << 28
	}
	return stackOf(list...)
}

// TestOneDay is 24 h of random faults on the fake engine's clock.
func TestOneDay(t *testing.T) {
	for _, seed := range []uint64{1, 2} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { day(t, seed, 24*time.Hour) })
		})
	}
}

func day(t *testing.T, seed uint64, long time.Duration) {
	rng := rand.New(rand.NewPCG(seed, 0))
	b := newBox(t, town())
	j := &judge{Engine: b.e, d: b.d, starts: map[string][]time.Time{}}
	b.engine = j
	start := func() {
		b.prepare()
		// The disk is not what is tested here.
		b.sup.keep = func(h History) error {
			c, err := json.Marshal(h)
			return errors.Join(err, os.WriteFile(filepath.Join(b.dir, "history.json"), c, 0o600))
		}
		b.run()
	}
	good := func(name string) fake.Behaviour {
		if name == "migrate" {
			return fake.Behaviour{ExitAfter: 2 * time.Second}
		}
		return fake.Behaviour{HealthyAfter: time.Second}
	}
	for _, s := range b.d.Services {
		b.e.Behave(s.Name, good(s.Name))
	}
	start()
	pass(time.Minute)
	b.want("healthy")
	faults, end := 0, time.Now().Add(long)
	for time.Now().Before(end) {
		pass(time.Duration(rng.Int64N(int64(3 * time.Minute))))
		faults++
		s := b.d.Services[rng.IntN(len(b.d.Services))].Name
		switch rng.IntN(16) {
		case 0, 1, 2:
			b.e.Kill(s, []int{0, 1, 137, 139}[rng.IntN(4)])
		case 3:
			b.e.Behave(s, fake.Behaviour{ExitAfter: time.Duration(rng.Int64N(int64(20 * time.Second))), ExitCode: rng.IntN(3), HealthyAfter: time.Second})
			b.e.Kill(s, 1)
		case 4:
			b.e.Behave(s, fake.Behaviour{HealthyAfter: time.Second, UnhealthyAfter: 5 * time.Second, StopTakes: time.Duration(rng.Int64N(int64(20 * time.Second)))})
			b.e.Kill(s, 1)
		case 5:
			b.e.Behave(s, fake.Behaviour{StartFails: errors.New("no such device")})
			b.e.Kill(s, 1)
		case 6, 7, 8:
			b.e.Behave(s, good(s))
		case 9:
			j.excuse()
			b.e.ByHand(s, []string{"rename", "update", "remove"}[rng.IntN(3)])
		case 10:
			b.e.ByHand(s, "pause")
			pass(time.Duration(rng.Int64N(int64(time.Minute))))
			b.e.ByHand(s, "unpause")
		case 11:
			j.excuse()
			b.e.Down()
			pass(time.Duration(rng.Int64N(int64(2 * time.Minute))))
			b.e.Up()
			pass(engineRetry) // by then it has been found again
			j.excuse()
		case 12:
			j.excuse()
			b.stop()
			pass(time.Duration(rng.Int64N(int64(time.Minute))))
			start()
		case 13:
			b.press(Pressure{Level: "high", Resource: "memory", Text: "memory: full", Since: time.Now()})
			for range rng.IntN(60) {
				j.mu.Lock()
				j.press = time.Now()
				j.mu.Unlock()
				pass(time.Second)
			}
			j.mu.Lock()
			j.press = time.Now()
			j.mu.Unlock()
			b.press(Pressure{Level: "none", Since: time.Now()})
		case 14:
			j.mu.Lock()
			j.blind = time.Now().Add(resync + time.Minute)
			j.mu.Unlock()
			b.e.LoseEvents(true)
			b.e.Kill(s, 1)
			pass(time.Second)
			b.e.LoseEvents(false)
		case 15:
			b.e.AddForeign(engine.Holder{ID: "f", Name: "demo-" + s + "-1x"})
			b.e.StopByHand(s)
		}
	}
	for _, s := range b.d.Services {
		b.e.Behave(s.Name, good(s.Name))
		b.e.ByHand(s.Name, "unpause")
	}
	// The longest wait, a resync for lost events, the shed ones one a minute.
	pass(resync + 2*backoffMax + 5*shedCalm)
	settled := b.plan()
	if b.stopped() {
		// unless-stopped was stopped by hand: that is to stay.
		b.ask(VerbStart, "index")
		pass(time.Minute)
		settled = b.plan()
	}
	if settled.Stack != "healthy" {
		t.Errorf("seed %d: not healthy after the faults\n%s", seed, settled)
	}
	b.stop()
	if len(j.bad) > 0 {
		t.Errorf("seed %d: %d violations, first:\n%s", seed, len(j.bad), strings.Join(j.bad[:min(5, len(j.bad))], "\n"))
	}
	t.Logf("seed %d: %d faults, %d acts", seed, faults, j.acts)
}

func (b *box) stopped() bool {
	for _, s := range b.plan().Services {
		if s.Reason == "stopped by hand" {
			return true
		}
	}
	return false
}
