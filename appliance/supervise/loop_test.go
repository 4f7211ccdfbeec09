// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/moby/api/types/mount"

	"github.com/holdfast/holdfast/appliance/engine/fake"
)

func TestBootInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, demo())
		b.start()
		pass(time.Second)
		b.want("starting")
		if r := b.state("web").Reason; r != "waits for db to be healthy" {
			t.Errorf("web's reason is %q", r)
		}
		pass(9 * time.Second)
		b.want("healthy")
		var starts []string
		for _, l := range b.e.Log() {
			if s, ok := strings.CutPrefix(l, "start "); ok {
				starts = append(starts, s)
			}
		}
		if got := strings.Join(starts, " "); got != "db migrate web edge" {
			t.Errorf("started in order %q", got)
		}
		if s := b.state("migrate"); s.State != "completed" {
			t.Errorf("migrate is %s", s.State)
		}
		b.stop()
	})
}

func TestDaemonRestartAdopts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, demo())
		b.start()
		pass(10 * time.Second)
		b.want("healthy")
		since := b.state("web").Since
		b.stop()
		b.e.ClearLog()
		pass(time.Minute)
		b.start()
		pass(time.Second)
		b.want("healthy")
		if l := b.e.Log(); len(l) > 0 {
			t.Errorf("the new daemon did %v, want nothing", l)
		}
		if got := b.state("web").Since; !got.Equal(since) {
			t.Errorf("since went from %s to %s", since, got)
		}
		b.stop()
	})
}

func TestRebootRunsOneShotOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, demo())
		b.start()
		pass(10 * time.Second)
		b.stop()
		b.e.Down()
		b.e.Up()
		b.e.ClearLog()
		b.boot = "boot-2"
		b.start()
		pass(10 * time.Second)
		b.want("healthy")
		if got := fmt.Sprint(b.e.Log()); got != "[start db start web start edge]" {
			t.Errorf("after a reboot: %s", got)
		}
		if r := b.state("db").Restarts; r != 0 {
			t.Errorf("a reboot counted as %d restarts", r)
		}
		b.stop()
		// A new generation runs it again.
		b.d = demo()
		b.d.Generation = 2
		for i := range b.d.Services {
			relabel(b.d, &b.d.Services[i])
		}
		b.e.ClearLog()
		b.start()
		pass(10 * time.Second)
		if got := fmt.Sprint(b.e.Log()); got != "[remove migrate create migrate start migrate]" {
			t.Errorf("new generation: %s", got)
		}
		b.want("healthy")
		b.stop()
	})
}

func TestCrashBacksOffAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, stackOf(svc("web", "always", false)))
		b.start()
		pass(time.Second)
		b.want("healthy")
		b.e.Behave("web", fake.Behaviour{ExitAfter: 100 * time.Millisecond, ExitCode: 3})
		b.e.Kill("web", 137)
		pass(100 * time.Second)
		b.want("degraded")
		s := b.state("web")
		// Restarts at 0, 1, 3, 7, 15, 31, 63 s: six doublings and the first.
		if s.State != "crash-loop" || s.Restarts != 7 {
			t.Errorf("after 100 s: %+v", s)
		}
		if !strings.Contains(s.Reason, "ended with exit code 3") {
			t.Errorf("reason %q", s.Reason)
		}
		if c := b.plan().Conditions; len(c) != 1 || c[0].Code != "service-crash-loop" || c[0].Remedy == "" {
			t.Errorf("conditions %v", c)
		}
		b.e.Behave("web", fake.Behaviour{})
		pass(6 * time.Minute)
		b.want("healthy")
		if c := b.plan().Conditions; len(c) != 1 {
			t.Errorf("the condition went before 10 min of health: %v", c)
		}
		pass(11 * time.Minute)
		if c := b.plan().Conditions; len(c) != 0 {
			t.Errorf("still there after 10 min of health: %v", c)
		}
		b.e.ClearLog()
		b.e.Kill("web", 1)
		synctest.Wait()
		if got := fmt.Sprint(b.e.Log()); got != "[start web]" {
			t.Errorf("the first restart after recovery was not at once: %s", got)
		}
		b.stop()
	})
}

func TestUnhealthyIsRestartedAndDependentsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, demo())
		b.start()
		pass(10 * time.Second)
		b.want("healthy")
		b.e.ClearLog()
		b.e.Behave("web", fake.Behaviour{HealthyAfter: time.Second, UnhealthyAfter: 20 * time.Second})
		b.e.Kill("web", 1)
		pass(5 * time.Second)
		b.want("healthy")
		pass(17 * time.Second)
		if got := fmt.Sprint(b.e.Log()); got != "[start web restart web]" {
			t.Errorf("calls %s", got)
		}
		if r := b.state("web").Restarts; r != 2 {
			t.Errorf("%d restarts, want 2", r)
		}
		b.stop()
	})
}

func TestDependencyRestartPropagates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web := svc("web", "always", false, "db:healthy")
		web.DependsOn[0].Restart = true
		b := newBox(t, stackOf(svc("db", "always", true), web))
		b.start()
		pass(10 * time.Second)
		b.want("healthy")
		b.e.ClearLog()
		b.e.Kill("db", 1)
		pass(10 * time.Second)
		if got := fmt.Sprint(b.e.Log()); got != "[start db restart web]" {
			t.Errorf("calls %s", got)
		}
		b.stop()
	})
}

func TestEngineAwayIsNotTheServicesFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, demo())
		b.start()
		pass(10 * time.Second)
		b.e.Down()
		pass(5 * time.Second)
		b.want("degraded")
		if c := b.plan().Conditions; len(c) != 1 || c[0].Code != "engine-unreachable" {
			t.Errorf("conditions %v", c)
		}
		b.e.Up()
		pass(30 * time.Second)
		b.want("healthy")
		if r := b.state("db").Restarts + b.state("web").Restarts; r != 0 {
			t.Errorf("the engine's restart counted %d times", r)
		}
		b.stop()
	})
}

func TestChangeRecreatesOnlyThatService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, demo())
		b.start()
		pass(10 * time.Second)
		b.stop()
		b.d = demo()
		b.d.Services[2].Hash = "changed"
		relabel(b.d, &b.d.Services[2])
		b.d.Services = b.d.Services[:3] // and edge is gone
		b.e.ClearLog()
		b.start()
		pass(10 * time.Second)
		b.want("healthy")
		got := b.e.Log()
		slices.Sort(got) // the two services do not wait for each other
		if s := fmt.Sprint(got); s != "[create web remove edge remove web start web stop edge stop web]" {
			t.Errorf("calls %s", s)
		}
		b.stop()
	})
}

func TestAnonymousVolumesAreInherited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := stackOf(svc("db", "always", false))
		d.Services[0].Spec.Host.Mounts = []mount.Mount{{Type: "volume", Target: "/data"}}
		b := newBox(t, d)
		b.start()
		pass(time.Second)
		old, _ := b.e.Get("db")
		b.stop()
		d.Services[0].Hash = "changed"
		relabel(d, &d.Services[0])
		b.start()
		pass(time.Second)
		c, _ := b.e.Get("db")
		if c.ID == old.ID || c.Volumes["/data"] != old.Volumes["/data"] || old.Volumes["/data"] == "" {
			t.Errorf("old %v, new %v", old.Volumes, c.Volumes)
		}
		b.stop()
	})
}

func TestStopStackInReverseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, demo())
		b.e.Behave("edge", fake.Behaviour{StopTakes: 2 * time.Second})
		b.start()
		pass(10 * time.Second)
		b.e.ClearLog()
		if err := b.sup.StopStack(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		b.want("stopping")
		pass(5 * time.Second)
		b.want("stopped")
		if got := fmt.Sprint(b.e.Log()); got != "[stop edge stop web stop db]" {
			t.Errorf("calls %s", got)
		}
		pass(time.Hour)
		b.want("stopped")
		if err := b.sup.StartStack(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		b.want("healthy")
		b.stop()
	})
}

func TestPoliciesAreHonoured(t *testing.T) {
	for _, c := range []struct {
		policy string
		code   int
		byHand bool
		state  string
	}{
		{"no", 0, false, "completed"}, {"no", 1, false, "exited"},
		{"on-failure", 0, false, "completed"}, {"on-failure", 1, false, "running"},
		{"always", 0, false, "running"}, {"always", 0, true, "running"},
		{"unless-stopped", 0, true, "exited"}, {"unless-stopped", 137, false, "running"},
	} {
		t.Run(fmt.Sprintf("%s-%d-%t", c.policy, c.code, c.byHand), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox(t, stackOf(svc("web", c.policy, false)))
				b.e.Behave("web", fake.Behaviour{})
				b.start()
				pass(time.Second)
				if c.byHand {
					b.e.StopByHand("web")
				} else {
					b.e.Kill("web", c.code)
				}
				pass(time.Minute)
				if s := b.state("web"); s.State != c.state {
					t.Errorf("%+v, want %s", s, c.state)
				}
				b.stop()
			})
		})
	}
}

func TestMaxRetriesGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := svc("web", "on-failure", false)
		s.Restart.Max = 2
		b := newBox(t, stackOf(s))
		b.e.Behave("web", fake.Behaviour{ExitAfter: time.Second, ExitCode: 9})
		b.start()
		pass(time.Hour)
		b.want("degraded")
		if s := b.state("web"); s.Restarts != 2 || s.State != "exited" {
			t.Errorf("%+v", s)
		}
		if c := b.plan().Conditions; len(c) != 1 || c[0].Code != "service-failed" {
			t.Errorf("conditions %v", c)
		}
		b.stop()
	})
}

func TestStartFailureBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, stackOf(svc("web", "always", false)))
		b.e.Behave("web", fake.Behaviour{StartFails: fmt.Errorf("port 80 is in use")})
		b.start()
		pass(20 * time.Second)
		if s := b.state("web"); !strings.Contains(s.Reason, "port 80 is in use") {
			t.Errorf("%+v", s)
		}
		b.e.Behave("web", fake.Behaviour{})
		pass(time.Minute)
		b.want("healthy")
		b.stop()
	})
}

func TestAliveWhileIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, demo())
		b.start()
		pass(10 * time.Minute)
		b.mu.Lock()
		n := b.alive
		b.mu.Unlock()
		if n < 20 {
			t.Errorf("alive was called %d times in 10 min, want at least every 30 s", n)
		}
		b.stop()
	})
}
