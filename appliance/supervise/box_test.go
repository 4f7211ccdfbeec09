// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/engine/fake"
	"github.com/holdfast/holdfast/appliance/status"
)

// svc is a short way to write a Service; deps are "db:healthy" and the like.
func svc(name, policy string, health bool, deps ...string) Service {
	s := Service{Name: name, Image: "x/" + name + "@sha256:0", Hash: "hash-" + name, Grace: 10 * time.Second, Restart: Restart{Mode: policy}}
	for _, d := range deps {
		n, c, _ := strings.Cut(d, ":")
		cond := map[string]string{"": Started, "healthy": Healthy, "completed": Completed}[c]
		s.DependsOn = append(s.DependsOn, Dependency{Service: n, Condition: cond, Required: true})
	}
	s.Spec = engine.Spec{Name: "demo-" + name + "-1", Config: container.Config{Image: s.Image}}
	if health {
		s.Spec.Config.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "ok"}}
	}
	return s
}

// stackOf finishes services to a Desired with labels.
func stackOf(services ...Service) *Desired {
	d := &Desired{Project: "demo", Generation: 1, Services: services, Networks: []engine.Network{{Name: "demo_default"}}, Volumes: []engine.Volume{{Name: "demo_data"}}}
	for i := range d.Services {
		relabel(d, &d.Services[i])
	}
	return d
}

func relabel(d *Desired, s *Service) {
	s.Spec.Config.Labels = map[string]string{
		engine.ProjectLabel: d.Project, engine.ServiceLabel: s.Name, labelHash: s.Hash, labelGeneration: fmt.Sprint(d.Generation),
	}
}

func demo() *Desired {
	migrate := svc("migrate", "on-failure", false, "db:healthy")
	migrate.OneShot = true
	return stackOf(
		svc("db", "always", true), migrate,
		svc("web", "unless-stopped", true, "db:healthy", "migrate:completed"), svc("edge", "always", false, "web:healthy"))
}

// box runs supervisors on one fake engine and one journal folder.
type box struct {
	t      *testing.T
	e      *fake.Engine
	engine Engine // what the next daemon talks to: e, or a way to it
	j      *Journal
	d      *Desired
	dir    string
	boot   string
	mu     sync.Mutex
	last   Plan
	sup    *Supervisor
	cancel context.CancelFunc
	done   chan error
	alive  int
	// pressure and events of the running supervisor.
	pressure Pressure
	events   []status.Event
}

func newBox(t *testing.T, d *Desired) *box {
	b := &box{t: t, e: fake.New(), d: d, dir: t.TempDir(), boot: "boot-1"}
	b.engine = b.e
	b.e.Behave("db", fake.Behaviour{HealthyAfter: 3 * time.Second})
	b.e.Behave("migrate", fake.Behaviour{ExitAfter: 2 * time.Second})
	b.e.Behave("web", fake.Behaviour{HealthyAfter: time.Second})
	return b
}

func (b *box) start() {
	b.t.Helper()
	b.prepare()
	b.run()
}

// prepare makes a daemon, run runs it.
func (b *box) prepare() {
	b.t.Helper()
	j, err := OpenJournal(b.dir, b.boot)
	if err != nil {
		b.t.Fatal(err)
	}
	b.j = j
	b.sup, err = New(Config{
		Engine: b.engine, Desired: b.d, Journal: j, Boot: b.boot, Jitter: func() float64 { return 0.5 },
		Publish:    func(p Plan) { b.mu.Lock(); b.last = p; b.mu.Unlock() },
		Alive:      func() { b.mu.Lock(); b.alive++; b.mu.Unlock() },
		AliveEvery: 30 * time.Second, Processors: 1,
		Pressure: func() Pressure { b.mu.Lock(); defer b.mu.Unlock(); return b.pressure },
		Event:    func(e status.Event) { b.mu.Lock(); b.events = append(b.events, e); b.mu.Unlock() },
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) run() {
	ctx, cancel := context.WithCancel(b.t.Context())
	b.cancel, b.done = cancel, make(chan error, 1)
	sup, j, done := b.sup, b.j, b.done
	go func() { done <- sup.Run(ctx); j.Close() }()
}

func (b *box) stop() { b.cancel(); <-b.done }

func (b *box) plan() Plan {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

func (b *box) state(service string) status.Service {
	for _, s := range b.plan().Services {
		if s.Name == service {
			return s
		}
	}
	return status.Service{}
}

// pass lets the bubble's clock run for d.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (b *box) want(stack string) {
	b.t.Helper()
	if p := b.plan(); p.Stack != stack {
		b.t.Fatalf("stack is %s, want %s\n%s\ncalls: %v", p.Stack, stack, p, b.e.Log())
	}
}

// saved is the memory as it is on disk.
func (b *box) saved() string {
	c, err := os.ReadFile(filepath.Join(b.dir, "history.json"))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(c)
}

// journal is all that was journalled, up to its rotation.
func (b *box) journal() string {
	c, err := os.ReadFile(filepath.Join(b.dir, "journal.jsonl"))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(c)
}
