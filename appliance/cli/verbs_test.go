// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
)

// busy is a report with budgets, and two looks at what is used.
func busy() (status.Report, status.Usage, status.Usage) {
	r := report()
	id := strings.Repeat("ab12", 16)
	r.Services[0].Container, r.Services[0].Class = id, "critical"
	r.Services[0].Budget = &status.ServiceBudget{Guaranteed: status.Share{CPU: 0.25, Memory: 256 * mib}, Limit: status.Share{CPU: 0.5, Memory: gib, Pids: 200}}
	r.Services[1].Class, r.Services[2].Class = "normal", "best-effort"
	r.Budget = &status.NodeBudget{Size: "XS", Admitted: true, Node: status.Share{CPU: 2, Memory: 4 * gib}, Reserve: status.Share{CPU: 0.1, Memory: 512 * mib},
		Guaranteed: status.Share{CPU: 0.25, Memory: 256 * mib}}
	r.Engine = &status.Engine{Up: true, Version: "26.1.5"}
	r.Allowances = []status.Allowance{{Service: "db", Key: "ipc", Reason: "the shared memory of its twin is read"}}
	look := func(at time.Time, cpu, node float64, throttled, read int64) status.Usage {
		return status.Usage{Time: at,
			Node: status.NodeUsage{CPUs: 2, CPUSeconds: node, MemoryTotal: 4 * gib, MemoryAvailable: 3 * gib,
				Disks: []status.DiskUsage{{Name: "data", Used: 3 * gib, Total: 20 * gib}}, Pressure: &status.Pressure{IOSome: 0.031}},
			Services: []status.ServiceUsage{{Service: "db", Container: id, CPUSeconds: cpu, Periods: throttled * 4, Throttled: throttled, Memory: 700 * mib, MemoryWorkingSet: 512 * mib,
				MemoryLimit: gib, Pids: 12, PidsLimit: 200, CPULimit: 0.5, IORead: read, IOWritten: read / 2,
				Volumes: []status.DiskUsage{{Name: "pgdata", Used: 100 * mib, Total: gib, Enforced: true}, {Name: "wal", Unknown: true}}}}}
	}
	return r, look(noon, 10, 100, 10, 1<<20), look(noon.Add(2*time.Second), 10.5, 101, 12, 5<<20)
}

func TestTopFrame(t *testing.T) {
	r, before, now := busy()
	top := status.TopOf(r, before, now)
	want := `demo 1.0.0: degraded, size XS, 12:00:02 UTC

cpu        [###|####......................]  0.50 of 2 cores, guaranteed 0.25, system 0.1
memory     [#|######......................]  1.0 GiB of 4.0 GiB, guaranteed 256 MiB, system 512 MiB
disk data  [#####.........................]  3.0 GiB of 20 GiB
pressure                                     waiting for cpu 0%, memory 0%, disk 3% of the time

SERVICE  STATE       CLASS        CPU                             THROTTLED  MEMORY                                    PIDS       READ      WRITE  VOLUMES
db       running     critical     [########|.......]  25% of 50%        25%  [####|###........]  512 MiB of 1.0 GiB  12/200  2.0 MiB/s  1.0 MiB/s  pgdata 100 MiB of 1.0 GiB, wal ?
migrate  completed   normal       -                                       -  -                                            -          -          -
web      crash-loop  best-effort  -                                       -  -                                            -          -          -
`
	if got := strings.Join(topLines(top, r, 200), "\n") + "\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for columns := 40; columns < 200; columns++ {
		for i, line := range topLines(top, r, columns) {
			if i > 7 && len([]rune(line)) > max(columns, 60) {
				t.Errorf("%d columns: line %d has %d: %s", columns, i, len([]rune(line)), line)
			}
		}
	}
}

func TestBar(t *testing.T) {
	for _, c := range []struct {
		part, mark, whole float64
		want              string
	}{
		{0, 0, 10, "[..........]"}, {0.1, 0, 10, "[#.........]"}, {5, 0, 10, "[#####.....]"}, {50, 0, 10, "[##########]"},
		{5, 2, 10, "[##|##.....]"}, {0, 9.99, 10, "[.........|]"}, {1, 10, 10, "[#.........]"}, {-1, 0, 10, "[..........]"}, {1, 1, 0, ""},
	} {
		if got := bar(c.part, c.mark, c.whole, 10); got != c.want {
			t.Errorf("%v: %s", c, got)
		}
	}
	for n, want := range map[float64]string{0: "0 B", 999: "999 B", 1023: "1.0 KiB", 1536: "1.5 KiB", 10 << 20: "10 MiB", 1 << 60: "1024 PiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("%v: %s, want %s", n, got, want)
		}
	}
}

func TestStatusWithBudget(t *testing.T) {
	r, _, now := busy()
	r.Conditions = append(r.Conditions, status.Condition{Code: "budget-changed", Severity: "info", Text: "it changed:\nmemory: 1 -> 2\x1b", Remedy: "nothing"})
	r.Services[2].NextTry = noon.Add(9 * time.Second)
	var b bytes.Buffer
	if err := writeStatus(&b, r, now); err != nil {
		t.Fatal(err)
	}
	want := `budget         size XS: 256 MiB of memory and 0.25 cores guaranteed, 512 MiB and 0.1 for the system, of 4.0 GiB and 2
engine         up 26.1.5

SERVICE  CLASS        STATE       HEALTH   RESTARTS  MEMORY              SINCE   REASON
db       critical     running     healthy  0         512 MiB of 1.0 GiB  2 days
migrate  normal       completed   none     0         -                   3 h
web      best-effort  crash-loop  none     12        -                   1 min   ended with exit code 3; next try in 9s

ALLOWED  KEY  REASON
db       ipc  the shared memory of its twin is read

critical: web failed 12 times in a row (service-crash-loop)
  to do: docker logs --tail 50 demo-web-1

info: it changed:
  memory: 1 -> 2? (budget-changed)
  to do: nothing
`
	if _, got, _ := strings.Cut(b.String(), "images 20.2 s)\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestTopVerb(t *testing.T) {
	r, before, now := busy()
	socket, c := serve(t, r)
	c.usages = []status.Usage{before, now}
	code, out, errs := run(t.Context(), "top", "--json", "--socket", socket)
	var top status.Top
	if err := json.Unmarshal([]byte(out), &top); code != 0 || err != nil || top.Seconds != 2 || top.Services[0].CPU == nil || *top.Services[0].CPU != 0.25 || top.Services[1].Measured {
		t.Errorf("%d %s %s %v", code, out, errs, err)
	}
	if code, _, errs := run(t.Context(), "top", "--sort", "x", "--socket", socket); code != ExitUsage || !strings.Contains(errs, "start, cpu or memory") {
		t.Errorf("%d %s", code, errs)
	}
}

func TestPlanVerb(t *testing.T) {
	socket, c := serve(t, report())
	if code, out, _ := run(t.Context(), "plan", "--socket", socket); code != 0 || out != "Nothing to do: everything is as the stack says.\n" {
		t.Errorf("%d %s", code, out)
	}
	c.plan = status.Plan{Time: noon, Next: noon.Add(9 * time.Second),
		Ops:     []status.PlanOp{{Kind: "restart", Target: "web", Container: strings.Repeat("ab", 32), Because: "unhealthy", Running: true}, {Kind: "create network", Target: "demo_default", Because: "the engine does not have it"}},
		Waiting: []status.PlanWait{{Service: "edge", Because: "waits for web to be healthy"}}}
	_, out, _ := run(t.Context(), "plan", "--socket", socket)
	want := `STATE    OPERATION       TARGET        CONTAINER     BECAUSE
running  restart         web           abababababab  unhealthy
next     create network  demo_default  -             the engine does not have it

WAITING  BECAUSE
edge     waits for web to be healthy

The next step by the clock is in 9s; whatever happens before is acted on at once.
`
	if out != want {
		t.Errorf("got\n%s", out)
	}
	var p status.Plan
	if code, out, _ := run(t.Context(), "plan", "--json", "--socket", socket); code != 0 || json.Unmarshal([]byte(out), &p) != nil || len(p.Ops) != 2 {
		t.Errorf("%d %s", code, out)
	}
}

func TestEventsVerb(t *testing.T) {
	socket, c := serve(t, report())
	c.events = []status.Event{
		{Number: 1, Time: noon, Act: "daemon", Because: "supervising demo"},
		{Number: 2, Time: noon, Act: "start", Service: "web", Because: "its dependencies are ready", Seconds: 0.31},
		{Number: 3, Time: noon, Act: "start", Service: "db", Error: "port is taken\nby another"},
	}
	code, out, errs := run(t.Context(), "events", "--socket", socket)
	want := `2026-01-01 12:00:00  -             daemon          supervising demo
2026-01-01 12:00:00  web           start           its dependencies are ready (took 0.3 s)
2026-01-01 12:00:00  db            start           error: port is taken
    by another
`
	if code != 0 || out != want {
		t.Errorf("%d %s got\n%s", code, errs, out)
	}
	for args, lines := range map[string]int{"--tail 1": 1, "--tail all": 3, "web": 1, "--json --tail 2": 2, "--tail 0": 0} {
		if _, out, _ := run(t.Context(), append(strings.Fields("events "+args), "--socket", socket)...); strings.Count(out, "{") != lines && strings.Count(out, "2026") != lines {
			t.Errorf("%s: %s", args, out)
		}
	}
	for args, text := range map[string]string{"wbe": "it has db, migrate, web", "--tail x": "or all", "--tail -3": "or all"} {
		if code, _, errs := run(t.Context(), append(strings.Fields("events "+args), "--socket", socket)...); code != ExitUsage || !strings.Contains(errs, text) {
			t.Errorf("%s: %d %s", args, code, errs)
		}
	}
}

func TestLogsVerb(t *testing.T) {
	socket, c := serve(t, report())
	c.lines = []status.LogLine{{Time: noon, Service: "web", Stream: "stdout", Text: "a\x1b[31mb\x1b[0m\tc"}, {Time: noon, Service: "migrate", Text: "done"}}
	if code, out, errs := run(t.Context(), "logs", "--socket", socket); code != 0 || out != "web     | a\x1b[31mb\x1b[0m\tc\nmigrate | done\n" {
		t.Errorf("%d %q %s", code, out, errs)
	}
	if _, out, _ := run(t.Context(), "logs", "-t", "web", "--socket", socket); !strings.HasPrefix(out, "web | 2026-01-01T12:00:00.000Z a") {
		t.Errorf("%q", out)
	}
	if _, out, _ := run(t.Context(), "logs", "--json", "--socket", socket); strings.Count(out, "\n") != 2 || !strings.Contains(out, `"stream":"stdout"`) {
		t.Errorf("%q", out)
	}
	if got := terminalText("a\x1b[1;31mb\x1b[0m\tc\x1b]0;title\x07\r"); got != "ab\tc?]0;title??" {
		t.Errorf("%q", got)
	}
	if code, _, errs := run(t.Context(), "logs", "wbe", "--socket", socket); code != ExitUsage || errs != "holdfast: the stack has no service \"wbe\"; did you mean web?\n" {
		t.Errorf("%d %q", code, errs)
	}
	if code, _, errs := run(t.Context(), "logs", "--since", "yesterday", "--socket", socket); code != ExitUsage || !strings.Contains(errs, "15m") {
		t.Errorf("%d %q", code, errs)
	}
}

func TestSinceTime(t *testing.T) {
	for text, want := range map[string]time.Time{
		"90s": noon.Add(-90 * time.Second), "2h30m": noon.Add(-150 * time.Minute), "2026-01-01T11:00:00Z": noon.Add(-time.Hour), "2026-01-01T12:00:00+01:00": noon.Add(-time.Hour),
		"2025-12-31": noon.Add(-36 * time.Hour), "2026-01-01 11:30": noon.Add(-30 * time.Minute), "11:30": noon.Add(-30 * time.Minute), "12:30": noon.Add(-23*time.Hour - 30*time.Minute),
	} {
		if got, err := sinceTime(text, noon); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"-5m", "yesterday", "25:00", ""} {
		if got, err := sinceTime(text, noon); err == nil {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestOperationVerbs(t *testing.T) {
	socket, c := serve(t, report())
	for args, want := range map[string]string{"restart web db": "restarted web, db\n", "stop": "stopped the stack\n", "start web": "started web\n", "restart --no-wait web": "x-1\n"} {
		c.asked = nil
		code, out, errs := run(t.Context(), append(strings.Fields(args), "--socket", socket)...)
		if code != 0 || out != want || strings.Join(c.asked, ";") != strings.Replace(args, "--no-wait ", "", 1) {
			t.Errorf("%s: %d %q %q, asked for %q", args, code, out, errs, c.asked)
		}
	}
	var op status.Operation
	if code, out, _ := run(t.Context(), "restart", "--json", "web", "--socket", socket); code != 0 || json.Unmarshal([]byte(out), &op) != nil || op.State != "done" {
		t.Errorf("%d %s", code, out)
	}
	c.failed = "web: ended with exit code 3"
	if code, out, errs := run(t.Context(), "restart", "web", "--socket", socket); code != ExitFailed || out != "" || errs != "holdfast: restart of web failed: web: ended with exit code 3\n" {
		t.Errorf("%d %q %q", code, out, errs)
	}
	c.err = errors.New("web is shed")
	if code, _, errs := run(t.Context(), "start", "web", "--socket", socket); code != ExitFailed || !strings.Contains(errs, "shed") {
		t.Errorf("%d %q", code, errs)
	}
}

// cancelling ends a command at its first output, as Ctrl-C would.
type cancelling struct {
	said   bytes.Buffer
	cancel func()
}

func (c *cancelling) Write(p []byte) (int, error) {
	defer c.cancel()
	return c.said.Write(p)
}

// TestFollowersEndWell: what has no end but Ctrl-C ends with 0 and no word.
func TestFollowersEndWell(t *testing.T) {
	socket, c := serve(t, report())
	c.lines = []status.LogLine{{Time: noon, Service: "web", Text: "hello"}}
	c.events = []status.Event{{Number: 1, Time: noon, Act: "daemon"}}
	for _, verb := range []string{"logs", "events"} {
		ctx, cancel := context.WithCancel(t.Context())
		out, errs := &cancelling{cancel: cancel}, &bytes.Buffer{}
		if code := Execute(ctx, IO{out, errs}, []string{verb, "-f", "--socket", socket}); code != 0 || errs.String() != "" || !strings.Contains(out.said.String(), "\n") {
			t.Errorf("%s: %d %q %q", verb, code, out.said.String(), errs)
		}
		cancel()
	}
}

// TestLiveTop draws on the terminal's other screen and gives the first back.
func TestLiveTop(t *testing.T) {
	r, before, now := busy()
	socket, c := serve(t, r)
	c.usages = []status.Usage{before, now}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &bytes.Buffer{}
	frames := 0
	top := &topper{o: &options{socket: socket}, every: time.Millisecond, by: "cpu", size: func() (int, int) {
		if frames++; frames > 6 {
			cancel()
		}
		return 100, 30
	}, w: out}
	if err := top.live(ctx); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); !strings.HasPrefix(text, "\x1b[?1049h") || !strings.HasSuffix(text, "\x1b[?25h\x1b[?1049l") || !strings.Contains(text, "25% of 50%") {
		t.Errorf("%q", text)
	}
}
