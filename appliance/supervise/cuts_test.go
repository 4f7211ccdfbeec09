// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/engine/fake"
)

// killer kills the daemon at one step: a step is a call to the engine or a
// write of the memory. It dies before the step, or after it and before the
// daemon hears of its outcome; from then on nothing it does has an effect.
type killer struct {
	Engine
	mu    sync.Mutex
	n, at int
	after bool
	dead  chan struct{} // closed by the kill
	names []string
}

func newKiller(e Engine, at int, after bool) *killer {
	return &killer{Engine: e, at: at, after: after, dead: make(chan struct{})}
}

func (k *killer) step(name string, do func() error) error {
	k.mu.Lock()
	select {
	case <-k.dead:
		k.mu.Unlock()
		return context.Canceled
	default:
	}
	k.n++
	k.names = append(k.names, name)
	now := k.n == k.at
	if now && !k.after {
		close(k.dead)
		k.mu.Unlock()
		return context.Canceled
	}
	k.mu.Unlock()
	err := do()
	if now {
		k.mu.Lock()
		close(k.dead)
		k.mu.Unlock()
		return context.Canceled
	}
	return err
}

func (k *killer) Containers(ctx context.Context, p string) (out []engine.Container, err error) {
	err = k.step("list", func() error { out, err = k.Engine.Containers(ctx, p); return err })
	return out, err
}
func (k *killer) Container(ctx context.Context, id string) (out engine.Container, err error) {
	err = k.step("inspect", func() error { out, err = k.Engine.Container(ctx, id); return err })
	return out, err
}
func (k *killer) Create(ctx context.Context, s engine.Spec) (id string, err error) {
	err = k.step("create "+s.Name, func() error { id, err = k.Engine.Create(ctx, s); return err })
	return id, err
}
func (k *killer) Start(ctx context.Context, id string) error {
	return k.step("start", func() error { return k.Engine.Start(ctx, id) })
}
func (k *killer) Stop(ctx context.Context, id string, g time.Duration) error {
	return k.step("stop", func() error { return k.Engine.Stop(ctx, id, g) })
}
func (k *killer) Restart(ctx context.Context, id string, g time.Duration) error {
	return k.step("restart", func() error { return k.Engine.Restart(ctx, id, g) })
}
func (k *killer) Remove(ctx context.Context, id string) error {
	return k.step("remove", func() error { return k.Engine.Remove(ctx, id) })
}
func (k *killer) Rename(ctx context.Context, id, name string) error {
	return k.step("rename", func() error { return k.Engine.Rename(ctx, id, name) })
}
func (k *killer) Update(ctx context.Context, id string, l engine.Limits) error {
	return k.step("update", func() error { return k.Engine.Update(ctx, id, l) })
}
func (k *killer) Wait(ctx context.Context, id string) (code int, err error) {
	err = k.step("wait", func() error { code, err = k.Engine.Wait(ctx, id); return err })
	return code, err
}
func (k *killer) ExecCommand(ctx context.Context, id string, c engine.Command) (r engine.ExecResult, err error) {
	err = k.step("exec", func() error { r, err = k.Engine.ExecCommand(ctx, id, c); return err })
	return r, err
}
func (k *killer) CreateNetwork(ctx context.Context, n engine.Network) error {
	return k.step("network", func() error { return k.Engine.CreateNetwork(ctx, n) })
}
func (k *killer) CreateVolume(ctx context.Context, v engine.Volume) error {
	return k.step("volume", func() error { return k.Engine.CreateVolume(ctx, v) })
}

// startKilled is start with a daemon that k kills.
func (b *box) startKilled(k *killer) {
	b.t.Helper()
	b.engine = k
	b.prepare()
	keep := b.sup.keep
	b.sup.keep = func(h History) error { return k.step("save", func() error { return keep(h) }) }
	b.run()
	b.engine = b.e
	go func(cancel context.CancelFunc) { <-k.dead; cancel() }(b.cancel)
}

// scenario is something that a daemon does in several steps.
type scenario struct {
	name string
	// before is the stack that runs when the scenario begins, nil for none;
	// stack what shall run.
	before, stack func() *Desired
	// act happens once the daemon runs.
	act func(b *box)
	// repeats are acts that may be done more than once.
	repeats []string
}

// rich is a stack with all that needs memory: an anonymous volume, a one-shot,
// hooks, an init container.
func rich(generation int, hash string) *Desired {
	d := demo()
	d.Generation = generation
	d.Services[0].Spec.Host.Mounts = []mount.Mount{{Type: "volume", Target: "/data"}}
	d.Services[2].Hooks = Hooks{PostStart: []Hook{{Command: []string{"after"}}},
		PreStart: []engine.Spec{{Name: "demo-web-pre-start-0", Config: container.Config{Labels: map[string]string{
			engine.ProjectLabel: "demo", engine.ServiceLabel: "web", fake.InitLabel: "pre_start.0"}}}}}
	for i := range d.Services {
		d.Services[i].Hash += hash
		relabel(d, &d.Services[i])
	}
	return d
}

func scenarios() []scenario {
	first := func() *Desired { return rich(1, "") }
	hooks := []string{"exec web", "init "}
	return []scenario{
		{name: "first start", stack: first, repeats: hooks},
		{name: "every service changes, one goes", before: first, repeats: hooks, stack: func() *Desired {
			d := rich(2, "-new")
			d.Services = d.Services[:3]
			return d
		}},
		{name: "start-first update", before: func() *Desired { return rolling("") }, stack: func() *Desired { return rolling("-new") }},
		{name: "crash, removal and rename by hand", before: first, stack: first, repeats: hooks, act: func(b *box) {
			b.e.Kill("db", 1)
			b.e.ByHand("edge", "remove")
			b.e.ByHand("web", "rename")
		}},
		{name: "restart on request", before: first, stack: first, repeats: append(hooks, "restart "), act: func(b *box) {
			b.sup.Request(b.t.Context(), VerbRestart, []string{"db"})
		}},
	}
}

func rolling(hash string) *Desired {
	d := stackOf(svc("web", "always", true))
	d.Services[0].Update = StartFirst
	d.Services[0].Hash += hash
	relabel(d, &d.Services[0])
	return d
}

// play runs a scenario with a daemon that dies at step at (0: never), and then
// with one that does not. It returns what the engine was made to do, what is
// there in the end, and the steps.
func (sc scenario) play(t *testing.T, at int, after bool) (log []string, end string, steps []string) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, nil)
		var old engine.Container
		if sc.before != nil {
			b.d = sc.before()
			b.start()
			pass(30 * time.Second)
			b.want("healthy")
			b.stop()
			old, _ = b.e.Get("db")
		}
		b.d = sc.stack()
		b.e.ClearLog()
		k := newKiller(b.e, at, after)
		b.startKilled(k)
		if sc.act != nil {
			pass(3 * time.Second)
			sc.act(b)
		}
		pass(2 * time.Minute)
		if at == 0 {
			b.want("healthy")
			k.mu.Lock()
			close(k.dead)
			k.mu.Unlock()
		}
		<-b.done
		steps = slices.Clone(k.names)
		b.start()
		pass(20 * time.Minute)
		if p := b.plan(); p.Stack != "healthy" {
			t.Errorf("killed at %d (%s, after: %t): %s\ncalls %v", at, last(steps), after, p, b.e.Log())
		}
		b.stop()
		log, end = b.e.Log(), b.inventory(old)
	})
	return log, end, steps
}

func last(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[len(s)-1]
}

// inventory is what there is on the engine, without ids: of an anonymous
// volume, whether it is the old container's.
func (b *box) inventory(old engine.Container) string {
	var out []string
	for _, name := range []string{"db", "migrate", "web", "edge"} {
		for _, c := range b.e.All(name) {
			volumes := ""
			for target, v := range c.Volumes {
				volumes += fmt.Sprintf("%s (kept: %t)", target, v == old.Volumes[target])
			}
			out = append(out, fmt.Sprintf("%s %s %s %s", c.Name, c.State, c.Labels[labelHash], volumes))
		}
	}
	return strings.Join(out, "\n")
}

// TestKilledAtEveryStep kills the daemon before and after every call to the
// engine and every write, one by one. The next daemon resumes: it ends where
// an undisturbed one does, with the same volumes, and repeats no act but
// those a scenario names.
func TestKilledAtEveryStep(t *testing.T) {
	for _, sc := range scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			log, end, steps := sc.play(t, 0, false)
			want := sc.unique(log)
			kills := 0
			for at := 1; at <= len(steps); at++ {
				for _, after := range []bool{false, true} {
					got, gotEnd, s := sc.play(t, at, after)
					kills++
					where := fmt.Sprintf("killed at step %d (%s, after: %t)", at, last(s), after)
					if gotEnd != end {
						t.Errorf("%s: ends with\n%s\nwant\n%s\ncalls %v", where, gotEnd, end, got)
					}
					if u := sc.unique(got); !slices.Equal(u, want) {
						t.Errorf("%s: did %v, want %v", where, u, want)
					}
				}
			}
			t.Logf("%d steps, %d kills", len(steps), kills)
		})
	}
}

// unique is a log in no order, without what may be repeated.
func (sc scenario) unique(log []string) []string {
	out := slices.DeleteFunc(slices.Clone(log), func(l string) bool {
		return slices.ContainsFunc(sc.repeats, func(r string) bool { return strings.HasPrefix(l, r) })
	})
	slices.Sort(out)
	return out
}
