// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/engine/fake"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/supervise"
)

func TestRing(t *testing.T) {
	r := newRing()
	_, more := r.after(0)
	r.add(status.Event{Act: "first"})
	<-more
	for range 3 * ringSize {
		r.add(status.Event{})
	}
	all, _ := r.after(0)
	if len(all) != ringSize || all[len(all)-1].Number != 3*ringSize+1 || all[0].Number != 2*ringSize+2 {
		t.Errorf("%d events, %d to %d", len(all), all[0].Number, all[len(all)-1].Number)
	}
	for since, want := range map[int64]int{3*ringSize + 1: 0, 3*ringSize - 1: 2, 5: ringSize,
		// Of another run of the daemon.
		9 * ringSize: ringSize} {
		if got, _ := r.after(since); len(got) != want {
			t.Errorf("after %d: %d events, want %d", since, len(got), want)
		}
	}
}

func TestRecall(t *testing.T) {
	dir := t.TempDir()
	line := `{"time":"2026-01-01T12:00:00Z","act":"start","service":"web","because":"` + strings.Repeat("x", 500) + `"}` + "\n"
	for name, text := range map[string]string{"journal.1.jsonl": "half a li" + "\n" + strings.Repeat(line, 3000), "journal.jsonl": `{"act":"stop"}` + "\n{\n" + `{"act":""}` + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := New(Config{})
	d.recall(dir)
	all, _ := d.Events(0)
	if n := len(all); n < 500 || n > pastEvents || all[n-1].Act != "stop" || all[n-2].Service != "web" {
		t.Errorf("%d events", n)
	}
	d = New(Config{})
	d.recall(filepath.Join(dir, "none"))
	if all, _ := d.Events(0); len(all) != 0 {
		t.Errorf("%d events of nothing", len(all))
	}
}

func TestNearestName(t *testing.T) {
	names := []string{"db", "web", "worker", "precise-code-intel-worker", "gitserver-0", "redis-cache", "redis-store"}
	for named, want := range map[string]string{"wbe": "web", "Web": "web", "wrker": "worker", "gitserver": "gitserver-0", "gitserver-1": "gitserver-0",
		"intel": "precise-code-intel-worker", "redis": "", "redis-cach": "redis-cache", "postgres": "", "x": "", "": ""} {
		if got := nearest(names, named); got != want {
			t.Errorf("%q: %q, want %q", named, got, want)
		}
	}
	var p *api.Problem
	if err := checkServices(names, []string{"db", "wbe"}); !errors.As(err, &p) || p.Status != 404 || p.Error() != `the stack has no service "wbe"; did you mean web?` {
		t.Errorf("%v", err)
	}
	if err := checkServices([]string{"a", "b"}, []string{"postgres"}); err == nil || !strings.Contains(err.Error(), "it has a, b") {
		t.Errorf("%v", err)
	}
	if err := checkServices(names, []string{"db", "web"}); err != nil {
		t.Error(err)
	}
}

func TestOperationsAreBounded(t *testing.T) {
	o := newOperations()
	var ends []func(error)
	for range runningOperations {
		_, end, err := o.begin("restart", []string{"web"})
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, end)
	}
	if _, _, err := o.begin("restart", nil); err == nil || !strings.Contains(err.Error(), "64 operations") {
		t.Errorf("one too many: %v", err)
	}
	for i, end := range ends {
		if i > 0 {
			end(errors.New("no"))
		}
	}
	first := o.list[0].ID
	for range 2 * keptOperations {
		_, end, err := o.begin("stop", nil)
		if err != nil {
			t.Fatal(err)
		}
		end(nil)
	}
	// One that goes on is never forgotten.
	if op, _, ok := o.find(first); !ok || op.State != "running" || len(o.list) != keptOperations {
		t.Errorf("%d kept, %+v", len(o.list), op)
	}
	ends[0](nil)
	op, done, _ := o.find(first)
	<-done
	if op.State != "done" || op.Ended.IsZero() {
		t.Errorf("%+v", op)
	}
}

// TestVerbs: restart, stop and start through the API, with what an admin
// asks beside.
func TestVerbs(t *testing.T) {
	f := one(t)
	f.Source = source{text: pinned}
	e := fake.New()
	client, _, _ := start(t, Config{Engine: e, Find: found{f: f}})
	await(t, client, "healthy")
	ctx := t.Context()
	for _, verb := range []string{api.Restart, api.Stop, api.Start, api.Restart} {
		names := []string{"web"}
		if verb == api.Restart {
			names = nil
		}
		op, err := client.Do(ctx, verb, names)
		if err != nil {
			t.Fatalf("%s: %v", verb, err)
		}
		if op, err = client.Await(ctx, op.ID); err != nil || op.State != "done" {
			t.Errorf("%s: %+v %v", verb, op, err)
		}
		c, _ := e.Get("web")
		if up := c.Up(); up != (verb != api.Stop) {
			t.Errorf("after %s the container is %s", verb, c.State)
		}
	}
	var p *api.Problem
	if _, err := client.Do(ctx, api.Stop, []string{"wbe"}); !errors.As(err, &p) || p.Status != 404 || p.Remedy != "did you mean web?" {
		t.Errorf("%v", err)
	}
	if _, err := client.Operation(ctx, "x-1"); !errors.As(err, &p) || p.Status != 404 {
		t.Errorf("%v", err)
	}
	if _, err := client.Plan(ctx); err != nil {
		t.Error(err)
	}
	u, err := client.Usage(ctx)
	if err == nil && (u.Node.CPUs != 2 || u.Node.MemoryTotal != 4<<30) {
		t.Errorf("%+v", u)
	}
	acts := map[string]bool{}
	if err := client.Events(ctx, 0, false, func(e status.Event) bool { acts[e.Act] = true; return true }); err != nil || !acts["start"] || !acts["restart"] || !acts["stop"] {
		t.Errorf("%v %v", acts, err)
	}
	// The stack as a whole.
	op, err := client.StopStack(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if op, err = client.Await(ctx, op.ID); err != nil || op.State != "done" || op.Verb != "stop" {
		t.Errorf("%+v %v", op, err)
	}
	if op, err = client.Do(ctx, api.Start, nil); err != nil {
		t.Fatal(err)
	}
	if op, err = client.Await(ctx, op.ID); err != nil || op.State != "done" {
		t.Errorf("%+v %v", op, err)
	}
	await(t, client, "healthy")
}

func TestHeldRefusesVerbs(t *testing.T) {
	client, _, _ := start(t, Config{Engine: fake.New(), Find: found{err: errors.New("no stack")}})
	await(t, client, "held")
	var p *api.Problem
	if _, err := client.Do(t.Context(), api.Restart, nil); !errors.As(err, &p) || p.Status != 409 || !strings.Contains(p.Text, "held") {
		t.Errorf("%v", err)
	}
	if _, err := client.Plan(t.Context()); !errors.As(err, &p) || p.Status != 409 {
		t.Errorf("%v", err)
	}
	if err := client.Logs(t.Context(), api.LogQuery{}, func(status.LogLine) bool { return true }); !errors.As(err, &p) {
		t.Errorf("%v", err)
	}
}

func TestLogsFollowARestart(t *testing.T) {
	f := one(t)
	f.Source = source{text: pinned}
	e := fake.New()
	client, _, _ := start(t, Config{Engine: e, Find: found{f: f}})
	await(t, client, "healthy")
	for i := range 5 {
		e.Say("web", "stdout", fmt.Sprint("line ", i))
	}
	var got []string
	each := func(l status.LogLine) bool { got = append(got, l.Service+" "+l.Text); return true }
	if err := client.Logs(t.Context(), api.LogQuery{Tail: 2}, each); err != nil || strings.Join(got, ",") != "web line 3,web line 4" {
		t.Errorf("%q %v", got, err)
	}
	got = nil
	err := client.Logs(t.Context(), api.LogQuery{Services: []string{"web"}, Tail: 1, Follow: true}, func(l status.LogLine) bool {
		got = append(got, l.Text)
		switch l.Text {
		case "line 4":
			e.Say("web", "stderr", "the last")
		case "the last":
			go func() {
				// What the next run of the container says comes too.
				e.Kill("web", 1)
				for c, _ := e.Get("web"); !c.Up() && t.Context().Err() == nil; c, _ = e.Get("web") {
					<-time.After(5 * time.Millisecond)
				}
				e.Say("web", "stdout", "again")
			}()
		}
		return l.Text != "again"
	})
	if err != nil || !slices.Equal(got, []string{"line 4", "the last", "again"}) {
		t.Errorf("%q %v", got, err)
	}
}

// TestRestartedDaemonChangesNothing: what is well stays as it is when the
// daemon goes and another comes.
func TestRestartedDaemonChangesNothing(t *testing.T) {
	f := one(t)
	f.Source = source{text: pinned}
	e := fake.New()
	at := t.TempDir()
	for run := range 3 {
		client, _, stop := start(t, Config{Engine: e, Find: found{f: f}, State: at, Data: filepath.Join(at, "data")})
		r := await(t, client, "healthy")
		if r.Services[0].Restarts != 0 {
			t.Errorf("run %d: %+v", run, r.Services)
		}
		if log := e.Log(); run > 0 && len(log) > 0 {
			t.Errorf("run %d asked the engine for %v", run, log)
		}
		past := 0
		if err := client.Events(t.Context(), 0, false, func(e status.Event) bool {
			if e.Act == "create" {
				past++
			}
			return true
		}); err != nil || past != 1 {
			t.Errorf("run %d remembers %d creates: %v", run, past, err)
		}
		stop()
		e.ClearLog()
	}
}

// stuck is an engine whose answers stop coming, whatever the caller's
// deadline: a bug of ours, or a kernel that hangs.
type stuck struct {
	*fake.Engine
	hang chan struct{}
	on   chan struct{}
}

func (s stuck) Containers(ctx context.Context, project string) ([]engine.Container, error) {
	select {
	case <-s.on:
		<-s.hang
	default:
	}
	return s.Engine.Containers(ctx, project)
}

// TestHungLoopStopsTheWatchdog: systemd hears WATCHDOG=1 while the loop goes
// on, and nothing once it hangs, so that it can start another daemon.
func TestHungLoopStopsTheWatchdog(t *testing.T) {
	f := one(t)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := stuck{fake.New(), make(chan struct{}), make(chan struct{})}
		pings := make(chan struct{}, 10000)
		c := Config{Engine: e, State: dir, Data: dir, AliveEvery: time.Minute, Console: &lines{}, Root: dir,
			Notify: func(s string) {
				if s == "WATCHDOG=1" {
					pings <- struct{}{}
				}
			}}
		d := New(c)
		d.feed = status.NewFeed(status.Report{})
		j, err := supervise.OpenJournal(filepath.Join(dir, "supervise"), "boot")
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		desired, err := d.translated(f, 1, nil, map[string]string{"pw": filepath.Join(dir, "pw")})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		d.life = ctx
		sup, err := d.supervisor(ctx, desired, j)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() { ended <- d.supervise(ctx, sup) }()
		heard := func(during time.Duration) (n int) {
			<-time.After(during)
			for {
				select {
				case <-pings:
					n++
				default:
					return n
				}
			}
		}
		if n := heard(10 * time.Minute); n < 9 {
			t.Errorf("%d pings in 10 minutes of a loop that goes on", n)
		}
		close(e.on)
		heard(10 * time.Minute) // it looks at everything every few minutes
		if n := heard(time.Hour); n != 0 {
			t.Errorf("%d pings in an hour of a loop that hangs", n)
		}
		close(e.hang)
		if n := heard(10 * time.Minute); n < 9 {
			t.Errorf("%d pings after the loop went on", n)
		}
		cancel()
		<-ended
		d.ops.Wait()
	})
}
