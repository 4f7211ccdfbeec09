// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast/holdfast/appliance/engine/fake"
)

// ask sends a request that must be taken.
func (b *box) ask(verb string, services ...string) <-chan error {
	b.t.Helper()
	done, err := b.sup.Request(b.t.Context(), verb, services)
	if err != nil {
		b.t.Fatalf("%s %v: %v", verb, services, err)
	}
	return done
}

// answered returns the answer of a request, which must be there by now.
func (b *box) answered(done <-chan error) error {
	b.t.Helper()
	select {
	case err := <-done:
		return err
	default:
		b.t.Fatalf("not done yet\n%s", b.plan())
		return nil
	}
}

func TestStoppedStaysStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, demo())
		b.start()
		pass(10 * time.Second)
		b.e.ClearLog()
		done := b.ask(VerbStop, "web", "edge")
		pass(time.Second)
		if err := b.answered(done); err != nil {
			t.Error(err)
		}
		if got := fmt.Sprint(b.e.Log()); got != "[stop edge stop web]" {
			t.Errorf("calls %s", got)
		}
		b.stop()
		b.start()
		pass(time.Hour)
		if s := b.state("web"); s.State != "stopped" || s.Restarts != 0 || s.Failures != 0 {
			t.Errorf("after a restart of the daemon: %+v", s)
		}
		if c := codes(b.plan()); c != "service-stopped service-stopped" {
			t.Errorf("conditions %s", c)
		}
		b.stop()
		b.e.Down()
		b.e.Up()
		b.boot = "boot-2"
		b.start()
		pass(time.Minute)
		if s := b.state("edge"); s.State != "stopped" {
			t.Errorf("after a reboot: %+v", s)
		}
		if _, err := b.sup.Request(t.Context(), VerbStart, []string{"edge"}); err == nil || !strings.Contains(err.Error(), "edge depends on web, which is stopped: start both") {
			t.Errorf("start edge: %v", err)
		}
		done = b.ask(VerbStart, "edge", "web")
		pass(time.Minute)
		if err := b.answered(done); err != nil {
			t.Error(err)
		}
		b.want("healthy")
		b.stop()
	})
}

func TestRestartOnRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web := svc("web", "always", true, "db:healthy")
		web.DependsOn[0].Restart = true
		b := newBox(t, stackOf(svc("db", "always", true), web, svc("edge", "always", false, "db:healthy")))
		b.start()
		pass(10 * time.Second)
		b.want("healthy")
		b.e.ClearLog()
		done := b.ask(VerbRestart, "db")
		pass(20 * time.Second)
		if err := b.answered(done); err != nil {
			t.Error(err)
		}
		if got := fmt.Sprint(b.e.Log()); got != "[restart db restart web]" {
			t.Errorf("calls %s", got)
		}
		if by := fmt.Sprint(b.state("db").RestartsBy, b.state("web").RestartsBy); by != "map[request:1] map[dependency:1]" {
			t.Errorf("causes %s", by)
		}
		b.e.ClearLog()
		done = b.ask(VerbRestart) // all, in order, each once
		pass(time.Minute)
		if err := b.answered(done); err != nil {
			t.Error(err)
		}
		if got := b.e.Log(); len(got) != 3 || got[0] != "restart db" {
			t.Errorf("calls %s", got)
		}
		b.want("healthy")
		if _, err := b.sup.Request(t.Context(), VerbStop, []string{"wbe"}); err == nil || !strings.Contains(err.Error(), `no service "wbe"`) {
			t.Errorf("%v", err)
		}
		b.stop()
	})
}

func TestRequestThatFailsSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, stackOf(svc("web", "always", false)))
		b.start()
		pass(time.Second)
		b.e.Behave("web", fake.Behaviour{StartFails: fmt.Errorf("no such device")})
		done := b.ask(VerbRestart, "web")
		pass(time.Second)
		if err := b.answered(done); err == nil || !strings.Contains(err.Error(), "no such device") {
			t.Errorf("%v", err)
		}
		// While it waits for its next try a restart comes at once.
		pass(time.Minute)
		b.e.Behave("web", fake.Behaviour{})
		b.e.ClearLog()
		done = b.ask(VerbRestart, "web")
		synctest.Wait()
		if got := fmt.Sprint(b.e.Log()); got != "[start web]" {
			t.Errorf("calls %s", got)
		}
		pass(time.Second)
		if err := b.answered(done); err != nil {
			t.Error(err)
		}
		done = b.ask(VerbStop, "web")
		b.stop()
		if err := <-done; err != nil && !strings.Contains(err.Error(), "daemon ended") {
			t.Errorf("%v", err)
		}
	})
}

func TestPlanShowsWhatRunsAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, demo())
		b.e.Behave("edge", fake.Behaviour{StopTakes: 5 * time.Second})
		if p := must(New(Config{Desired: b.d, Journal: must(OpenJournal(t.TempDir(), "b"))})).Plan(); len(p.Ops) != 0 {
			t.Errorf("%+v", p)
		}
		b.start()
		pass(time.Second)
		p := b.sup.Plan()
		if len(p.Ops) != 0 || len(p.Waiting) != 3 || p.Waiting[0].Because != "waits for db to be healthy" {
			t.Errorf("%+v", p)
		}
		pass(20 * time.Second)
		b.ask(VerbStop, "edge")
		pass(time.Second)
		p = b.sup.Plan()
		if len(p.Ops) != 1 || p.Ops[0].Kind != "stop" || !p.Ops[0].Running || p.Ops[0].Because != "stopped on request" {
			t.Errorf("%+v", p)
		}
		b.stop()
		if len(b.events) == 0 || b.events[0].Number != 1 || b.events[len(b.events)-1].Number != int64(len(b.events)) {
			t.Errorf("events %v", b.events)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
