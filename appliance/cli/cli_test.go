// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/images/verity"
)

// control plays the daemon: it stops and starts by word.
type control struct {
	feed *status.Feed
	*answers
}

func (c control) set(stack, service string) {
	c.feed.Update(func(r *status.Report) {
		r.Stack = stack
		r.Services = []status.Service{{Name: "web", State: service, Health: "none"}}
	})
}

func (c control) Refresh() {}

func (c control) StopStack(context.Context) (status.Operation, error) {
	c.set("stopping", "running")
	go c.set("stopped", "exited")
	return status.Operation{ID: "x-1", Verb: "stop", State: "running"}, nil
}

func (c control) StartStack(context.Context) (status.Operation, error) {
	return status.Operation{}, fmt.Errorf("nothing to start")
}

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func report() status.Report {
	return status.Report{
		Release: status.Release{Name: "demo", Version: "1.0.0", OS: "13-abc"}, Generation: 1, Slot: "A",
		Root:  status.Root{Hash: strings.Repeat("ab", 32), Verified: true, ReadOnly: true},
		Stack: "degraded",
		Services: []status.Service{
			{Name: "db", State: "running", Health: "healthy", Since: noon.Add(-49 * time.Hour)},
			{Name: "migrate", State: "completed", Health: "none", Since: noon.Add(-3 * time.Hour)},
			{Name: "web", State: "crash-loop", Health: "none", Restarts: 12, Since: noon.Add(-90 * time.Second), Reason: "ended with exit code 3; next try in 9s"},
		},
		Conditions: []status.Condition{{Code: "service-crash-loop", Severity: "critical", Text: "web failed 12 times in a row", Remedy: "docker logs --tail 50 demo-web-1"}},
		Timings:    status.Timings{DaemonStarted: 10.5, ImagesLoaded: 20.25, StackHealthy: 31},
		Now:        noon,
	}
}

func TestStatusTable(t *testing.T) {
	var b bytes.Buffer
	if err := writeStatus(&b, report(), status.Usage{}); err != nil {
		t.Fatal(err)
	}
	want := `stack          degraded
release        demo 1.0.0
os             13-abc
slot           A, generation 1
root           verified, read-only, root hash abababababababababababababababababababababababababababababababab
healthy after  31.0 s (daemon 10.5 s, images 20.2 s)

SERVICE  STATE       HEALTH   RESTARTS  SINCE   REASON
db       running     healthy  0         2 days
migrate  completed   none     0         3 h
web      crash-loop  none     12        1 min   ended with exit code 3; next try in 9s

critical: web failed 12 times in a row (service-crash-loop)
  to do: docker logs --tail 50 demo-web-1
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// serve answers on a socket until the test ends.
func serve(t *testing.T, r status.Report) (string, control) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "api.sock")
	c := control{status.NewFeed(r), &answers{}}
	serveAt(t, socket, c)
	return socket, c
}

// serveAt answers on this socket until the test or stop ends it.
func serveAt(t *testing.T, socket string, c control) (stop func()) {
	t.Helper()
	l, err := api.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { api.Serve(ctx, l, api.Handler(c.feed, c)) })
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

// run executes a command line.
func run(ctx context.Context, args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = Execute(ctx, IO{&o, &e}, args)
	return code, o.String(), e.String()
}

func TestVerbs(t *testing.T) {
	socket, c := serve(t, report())
	code, out, errs := run(t.Context(), "status", "--json", "--socket", socket)
	var r status.Report
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil || errs != "" || r.Services[2].Restarts != 12 {
		t.Errorf("status --json: %d %q %q %v", code, out, errs, err)
	}
	if code, _, _ := run(t.Context(), "status", "--check", "--socket", socket); code != ExitNotHealthy {
		t.Errorf("status --check of a degraded stack: %d", code)
	}
	done := make(chan string)
	go func() {
		code, _, errs := run(t.Context(), "wait-healthy", "--socket", socket)
		done <- fmt.Sprint(code, " ", errs)
	}()
	c.set("healthy", "running")
	if got := <-done; !strings.HasPrefix(got, "0 ") {
		t.Errorf("wait-healthy: %s", got)
	}
	if code, out, errs := run(t.Context(), "stop-stack", "--socket", socket); code != 0 || out != "" {
		t.Errorf("stop-stack: %d %q %q", code, out, errs)
	}
	if code, _, errs := run(t.Context(), "start-stack", "--socket", socket); code != ExitFailed || !strings.Contains(errs, "nothing to start") {
		t.Errorf("start-stack: %d %q", code, errs)
	}
	code, _, errs = run(t.Context(), "wait-healthy", "--timeout", "1ms", "--socket", socket)
	if code != ExitNotHealthy || !strings.Contains(errs, "holdfast status") {
		t.Errorf("wait-healthy that gives up: %d %q", code, errs)
	}
}

func TestErrorsAreOneLineWithACode(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "none.sock")
	for _, c := range []struct {
		args string
		code int
		text string
	}{
		{"status --socket " + gone, ExitNoDaemon, "systemctl status holdfast"},
		{"stop-stack --socket " + gone, ExitNoDaemon, "does not answer"},
		{"bogus", ExitUsage, "bogus"},
		{"status extra", ExitUsage, "extra"},
		{"status --bogus", ExitUsage, "--bogus"},
		{"daemon --lock x", ExitUsage, "--stack"},
		{"daemon --stack x --images y", ExitUsage, "REF=sha256:DIGEST"},
		{"daemon --engine ::", ExitUsage, "engine address"},
		{"doctor", ExitUsage, "--scan-root"},
		{"doctor --scan-root --device /dev/null --root-hash zz", ExitUsage, "64 hex digits"},
		{"firstboot", ExitUsage, "step"},
		{"firstboot bogus", ExitUsage, "bogus"},
	} {
		code, out, errs := run(t.Context(), strings.Fields(c.args)...)
		if code != c.code || out != "" || !strings.Contains(errs, c.text) || strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, "holdfast: ") {
			t.Errorf("%s: code %d, want %d; stdout %q, stderr %q", c.args, code, c.code, out, errs)
		}
	}
}

func TestInterruptedWait(t *testing.T) {
	socket, _ := serve(t, report())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if code, _, _ := run(ctx, "wait-healthy", "--socket", socket); code != ExitInterrupted {
		t.Errorf("code %d", code)
	}
}

func TestScanRoot(t *testing.T) {
	const size = 64 * verity.BlockSize
	path := filepath.Join(t.TempDir(), "root.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bytes.Repeat([]byte("0123456789abcdef"), size/16), 0); err != nil {
		t.Fatal(err)
	}
	root, err := verity.Format(t.Context(), f, size, f, size, []byte("salt"), [16]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"doctor", "--scan-root", "--device", path, "--root-hash", fmt.Sprintf("%x", root), "--hash-offset", fmt.Sprint(size)}
	if code, out, errs := run(t.Context(), args...); code != 0 || !strings.Contains(out, "every block") || !strings.Contains(errs, "scanned 100%") {
		t.Errorf("a good image: %d %q %q", code, out, errs)
	}
	for _, block := range []int64{17, 40} {
		if _, err := f.WriteAt([]byte{'x'}, block*verity.BlockSize+5); err != nil {
			t.Fatal(err)
		}
	}
	code, out, errs := run(t.Context(), args...)
	want := fmt.Sprintf("%[1]s: dm-verity: data block 17 at byte 69632 is not what was sealed\n%[1]s: dm-verity: data block 40 at byte 163840 is not what was sealed\n", path)
	if code != ExitCorrupt || out != want || !strings.Contains(errs, "2 blocks are not what was sealed") {
		t.Errorf("two flipped bytes: %d %q %q", code, out, errs)
	}
	// The wrong place for a superblock is a wrong question, not a bad root.
	args[len(args)-1] = "0"
	if code, _, errs := run(t.Context(), args...); code != ExitFailed || !strings.Contains(errs, "no superblock") {
		t.Errorf("a wrong offset: %d %q", code, errs)
	}
}
