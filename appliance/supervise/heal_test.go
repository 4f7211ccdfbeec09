// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast/holdfast/appliance/engine/fake"
	"github.com/holdfast/holdfast/appliance/probe"
	"github.com/holdfast/holdfast/compose/stack"
)

// TestCrashLoopIsCheap lets 50 services crash for two minutes: at most three
// engine calls a restart, and one that is well is not touched.
func TestCrashLoopIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := []Service{svc("good", "always", true)}
		for i := range 50 {
			all = append(all, svc(fmt.Sprintf("bad%02d", i), "always", false))
		}
		b := newBox(t, stackOf(all...))
		b.start()
		pass(30 * time.Second)
		b.want("healthy")
		for i := range 50 {
			b.e.Behave(fmt.Sprintf("bad%02d", i), fake.Behaviour{ExitAfter: 50 * time.Millisecond, ExitCode: 1})
		}
		b.e.ClearCalls()
		b.e.ClearLog()
		for i := range 50 {
			b.e.Kill(fmt.Sprintf("bad%02d", i), 1)
		}
		pass(2 * time.Minute)
		calls, restarts, sum := b.e.Calls(), 0, 0
		for _, l := range b.e.Log() {
			if strings.HasPrefix(l, "start bad") {
				restarts++
			} else {
				t.Errorf("unexpected %q", l)
			}
		}
		for _, n := range calls {
			sum += n
		}
		if restarts < 150 || restarts > 50*8 {
			t.Errorf("%d restarts", restarts)
		}
		if sum > 3*restarts {
			t.Errorf("%d calls for %d restarts: %v", sum, restarts, calls)
		}
		if n := calls["list"]; n != 0 {
			t.Errorf("%d lists", n)
		}
		if s := b.state("good"); s.Health != "healthy" || s.Restarts != 0 {
			t.Errorf("good: %+v", s)
		}
		b.stop()
	})
}

// TestThrottle holds back second restarts of many, and never a first one.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all []Service
		for i := range 30 {
			all = append(all, svc(fmt.Sprintf("s%02d", i), "always", false))
		}
		b := newBox(t, stackOf(all...))
		b.start()
		pass(time.Second)
		b.want("healthy")
		b.e.ClearLog()
		for i := range 30 {
			b.e.Kill(fmt.Sprintf("s%02d", i), 1)
		}
		synctest.Wait()
		if n := len(b.e.Log()); n != 30 {
			t.Fatalf("%d first restarts at once, want 30", n)
		}
		pass(time.Millisecond)
		b.e.ClearLog()
		for i := range 30 {
			b.e.Kill(fmt.Sprintf("s%02d", i), 1)
		}
		pass(1500 * time.Millisecond) // the wait of the second failure is 1 s
		if n := len(b.e.Log()); n < healBurst || n > healBurst+1 {
			t.Errorf("%d second restarts, want %d at once", n, healBurst)
		}
		if c := codes(b.plan()); !strings.Contains(c, "heal-throttled") {
			t.Errorf("conditions %s", c)
		}
		pass(25 * time.Second)
		if n := len(b.e.Log()); n != 30 {
			t.Errorf("%d second restarts after 26 s, want all 30", n)
		}
		pass(settle)
		b.want("healthy")
		if c := codes(b.plan()); strings.Contains(c, "heal-throttled") {
			t.Errorf("conditions %s", c)
		}
		b.stop()
	})
}

func codes(p Plan) string {
	var out []string
	for _, c := range p.Conditions {
		out = append(out, c.Code)
		if c.Remedy == "" || c.Text == "" {
			out = append(out, "(without text or remedy)")
		}
	}
	return strings.Join(out, " ")
}

// TestHeldIsSaidAndStillTried: after an hour a crash loop is held; it is tried
// every 5 min, and comes back when its cause has gone.
func TestHeldIsSaidAndStillTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, stackOf(svc("db", "always", true), svc("web", "always", false, "db:healthy")))
		b.e.Behave("db", fake.Behaviour{HealthyAfter: -1, ExitAfter: time.Second, ExitCode: 2})
		b.start()
		pass(holdAfter - time.Minute)
		if s := b.state("db"); s.State != "crash-loop" {
			t.Errorf("before the hour: %+v", s)
		}
		pass(10 * time.Minute)
		s := b.state("db")
		if s.State != "held" || s.NextTry.IsZero() || !strings.Contains(s.Reason, "ended with exit code 2") {
			t.Errorf("after the hour: %+v", s)
		}
		if c := codes(b.plan()); c != "service-held" {
			t.Errorf("conditions %s", c)
		}
		if r := b.state("web").Reason; r != "waits for db to be healthy, which is held" {
			t.Errorf("web: %q %s", r, b.plan())
		}
		before := s.Restarts
		pass(time.Hour)
		if n := b.state("db").Restarts - before; n < 10 || n > 13 {
			t.Errorf("%d tries in an hour, want one each 5 min", n)
		}
		b.e.Behave("db", fake.Behaviour{HealthyAfter: time.Second})
		pass(6 * time.Minute)
		b.want("healthy")
		b.stop()
	})
}

// TestPolicyKeys follows delay, max_attempts and window to the letter.
func TestPolicyKeys(t *testing.T) {
	t.Run("delay", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := svc("web", "always", false)
			s.Restart.Delay = 7 * time.Second
			b := newBox(t, stackOf(s))
			b.start()
			pass(time.Second)
			for range 4 {
				b.e.ClearLog()
				b.e.Kill("web", 1)
				pass(7*time.Second - time.Millisecond)
				if l := b.e.Log(); len(l) != 0 {
					t.Errorf("restarted before the delay: %v", l)
				}
				pass(2 * time.Millisecond)
				if l := b.e.Log(); len(l) != 1 {
					t.Errorf("not restarted after the delay: %v", l)
				}
			}
			b.stop()
		})
	})
	t.Run("window", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := svc("web", "on-failure", false)
			s.Restart.Max, s.Restart.Window = 2, 30*time.Second
			b := newBox(t, stackOf(s))
			// Each run is longer than the window: every restart succeeds.
			b.e.Behave("web", fake.Behaviour{ExitAfter: 31 * time.Second, ExitCode: 1})
			b.start()
			pass(time.Hour)
			if s := b.state("web"); s.Restarts < 8 {
				t.Errorf("it gave up although each restart succeeded: %+v", s)
			}
			// Now none does: two failed attempts are all.
			b.e.Behave("web", fake.Behaviour{ExitAfter: 29 * time.Second, ExitCode: 1})
			pass(time.Hour)
			if s := b.state("web"); s.State != "exited" || !strings.Contains(s.Reason, "after 2 restarts") {
				t.Errorf("%+v", s)
			}
			b.stop()
		})
	})
}

// TestFirstRestartDoesNotWaitForTheDisk: the memory is written before acts
// that need it, and else within two seconds.
func TestFirstRestartDoesNotWaitForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, stackOf(svc("web", "always", false)))
		b.start()
		pass(10 * time.Second)
		saved := b.saved()
		b.e.Kill("web", 1)
		synctest.Wait()
		if s := b.state("web"); s.Restarts != 1 {
			t.Fatalf("%+v", s)
		}
		if b.saved() != saved {
			t.Error("the memory was written before or with the restart")
		}
		pass(saveWithin)
		if b.saved() == saved {
			t.Errorf("the memory was not written within %s", saveWithin)
		}
		b.stop()
	})
}

// TestRestartCausesAreCounted follows each restart to its cause.
func TestRestartCausesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web := svc("web", "always", true, "db")
		web.DependsOn[0].Restart = true
		b := newBox(t, stackOf(svc("db", "always", false), web))
		b.start()
		pass(10 * time.Second)
		b.want("healthy")
		b.e.Kill("db", 1)
		pass(time.Minute)
		b.e.StopByHand("web")
		pass(time.Minute)
		b.e.ByHand("web", "remove")
		pass(time.Minute)
		b.e.Behave("web", fake.Behaviour{HealthyAfter: time.Second, UnhealthyAfter: 2 * time.Second})
		b.e.Kill("web", 1)
		pass(8 * time.Second)
		b.e.Behave("web", fake.Behaviour{HealthyAfter: time.Second})
		pass(20 * time.Minute)
		b.want("healthy")
		db, w := b.state("db"), b.state("web")
		if fmt.Sprint(db.RestartsBy) != "map[exit:1]" {
			t.Errorf("db: %v", db.RestartsBy)
		}
		sum := 0
		for _, n := range w.RestartsBy {
			sum += n
		}
		if w.RestartsBy["dependency"] != 1 || w.RestartsBy["drift"] != 2 || w.RestartsBy["exit"] != 1 || w.RestartsBy["unhealthy"] == 0 || sum != w.Restarts {
			t.Errorf("web: %d %v", w.Restarts, w.RestartsBy)
		}
		b.stop()
	})
}

// prober gives what the test says.
type prober struct {
	mu      sync.Mutex
	targets []probe.Target
	health  string
}

func (p *prober) Set(targets []probe.Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.targets = targets
}

func (p *prober) Results() map[string]probe.Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]probe.Result{}
	for _, t := range p.targets {
		out[t.Container] = probe.Result{Health: p.health, Output: "http :80/: answered 503",
			Checks: []probe.Check{{Health: p.health, Output: "answered 503"}}}
	}
	return out
}

func (p *prober) say(health string, b *box) {
	p.mu.Lock()
	p.health = health
	p.mu.Unlock()
	b.sup.Wake()
}

// TestProbesCountLikeHealthChecks: both must be good, and either makes a
// service unhealthy.
func TestProbesCountLikeHealthChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web := svc("web", "always", true)
		web.Probes = []stack.Probe{{Kind: "http", Port: 80, Path: "/"}}
		b := newBox(t, stackOf(web, svc("edge", "always", false, "web:healthy")))
		p := &prober{health: "starting"}
		b.prepare()
		b.sup.c.Probes = p
		b.run()
		pass(10 * time.Second)
		if s := b.state("web"); s.Health != "starting" || len(s.Probes) != 1 || b.state("edge").State == "running" {
			t.Errorf("%+v, edge %+v", s, b.state("edge"))
		}
		p.say("healthy", b)
		pass(time.Second)
		b.want("healthy")
		b.e.ClearLog()
		p.say("unhealthy", b)
		synctest.Wait()
		p.say("starting", b)
		pass(time.Second)
		if got := fmt.Sprint(b.e.Log()); got != "[restart web]" {
			t.Errorf("calls %s", got)
		}
		if !strings.Contains(b.journal(), "unhealthy: http :80/: answered 503") {
			t.Error("the journal does not say why")
		}
		p.say("healthy", b)
		pass(time.Minute)
		b.want("healthy")
		b.stop()
	})
}

// TestFullDiskKeepsVolumes: what only the memory would know is not let go
// while the memory cannot be written; everything else goes on.
func TestFullDiskKeepsVolumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := rich(1, "")
		b := newBox(t, d)
		b.start()
		pass(30 * time.Second)
		b.want("healthy")
		b.stop()
		old, _ := b.e.Get("db")
		b.d = rich(1, "-new")
		b.prepare()
		keep, full := b.sup.keep, true
		var mu sync.Mutex
		b.sup.keep = func(h History) error {
			mu.Lock()
			defer mu.Unlock()
			if full {
				return errors.New("no space left on device")
			}
			return keep(h)
		}
		b.e.ClearLog()
		b.run()
		pass(time.Minute)
		if got := fmt.Sprint(b.e.Log()); strings.Contains(got, "remove db") || !strings.Contains(got, "remove edge") {
			t.Errorf("calls %s", got)
		}
		if !strings.Contains(codes(b.plan()), "supervisor-journal") {
			t.Errorf("conditions %s", codes(b.plan()))
		}
		mu.Lock()
		full = false
		mu.Unlock()
		pass(5 * time.Minute)
		b.want("healthy")
		if c, _ := b.e.Get("db"); c.ID == old.ID || c.Volumes["/data"] != old.Volumes["/data"] {
			t.Errorf("old %v, new %v", old.Volumes, c.Volumes)
		}
		b.stop()
	})
}

// TestEndDuringTheStart: a process that ends before the engine has answered
// the start is noticed as fast as any other.
func TestEndDuringTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, stackOf(svc("web", "always", false)))
		b.start()
		pass(20 * time.Second)
		b.engine = b.e
		b.stop()
		b.engine = slow{b.e}
		b.start()
		pass(20 * time.Second)
		b.e.Behave("web", fake.Behaviour{ExitAfter: time.Millisecond, ExitCode: 1})
		b.e.Kill("web", 1)
		pass(200 * time.Millisecond)
		if s := b.state("web"); s.Restarts != 1 || s.Failures != 2 {
			t.Errorf("200 ms after the first end: %+v", s)
		}
		b.stop()
	})
}

// slow is an engine that takes a while to answer a start.
type slow struct{ *fake.Engine }

func (e slow) Start(ctx context.Context, id string) error {
	err := e.Engine.Start(ctx, id)
	<-time.After(50 * time.Millisecond)
	return err
}
