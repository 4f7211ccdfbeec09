// SPDX-License-Identifier: Apache-2.0

//go:build engine

package sourcegraph

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/compose/stack"
	"github.com/holdfast/holdfast/qa/standin/image"
)

// patience bounds every wait; the error names what was waited for.
const patience = 5 * time.Minute

// deployment is a stack of stand-ins under a daemon of its own.
type deployment struct {
	t      *testing.T
	st     *stack.Stack
	dir    string
	cli    *engine.Docker
	client *api.Client

	out  output
	cmd  *exec.Cmd
	exit chan error

	mu     sync.Mutex
	events []engine.Event
}

// output is what the daemon prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// deploy copies a stack with stand-ins in the place of its images, a
// sixteenth of its memory and a quarter of its processors, loads the
// stand-ins into the engine and starts a daemon on it. env says what stand-ins
// shall do.
func deploy(t *testing.T, of string, env map[string]map[string]string) *deployment {
	t.Helper()
	dir, err := os.MkdirTemp(base, "box-")
	if err != nil {
		t.Fatal(err)
	}
	d := &deployment{t: t, dir: dir}
	copied := filepath.Join(dir, "stack")
	set, err := image.Stack(load(t, of), standin, copied, image.RoleOf)
	if err != nil {
		t.Fatal(err)
	}
	if err := (image.Scale{Memory: scale, CPU: 4, Disk: 1024, Size: "XS", Confined: image.Confined(), Environment: env}).Apply(filepath.Join(copied, "compose.yaml")); err != nil {
		t.Fatal(err)
	}
	d.st = load(t, copied)
	if d.cli, err = engine.Open(running.Host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.end)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := set.Load(ctx, dir, func(ctx context.Context, r io.Reader) error { return d.cli.LoadImage(ctx, r, patience) }); err != nil {
		t.Fatal(err)
	}
	d.listen()
	d.client = api.NewClient(filepath.Join(dir, "api.sock"))
	args := []string{"daemon", "--engine", running.Host, "--socket", filepath.Join(dir, "api.sock"),
		"--state", filepath.Join(dir, "state"), "--run", filepath.Join(dir, "run"), "--stack", filepath.Join(copied, "compose.yaml"),
		"--metrics-listen", ":4653", "--metrics-container-names"}
	for ref, digest := range set.Digests() {
		args = append(args, "--images", ref+"="+digest)
	}
	d.cmd = exec.Command(program, args...)
	d.cmd.Stdout, d.cmd.Stderr = &d.out, &d.out
	// In the engine's network: the daemon's own probes go to the containers.
	if err := running.Launch(d.cmd); err != nil {
		t.Fatal(err)
	}
	d.exit = make(chan error, 1)
	go func() { d.exit <- d.cmd.Wait() }()
	return d
}

// listen keeps the engine's events from here on.
func (d *deployment) listen() {
	ctx, cancel := context.WithCancel(context.Background())
	d.t.Cleanup(cancel)
	events, _ := d.cli.Events(ctx, d.st.Name)
	go func() {
		for e := range events {
			d.mu.Lock()
			d.events = append(d.events, e)
			d.mu.Unlock()
		}
	}()
}

// times returns when an action happened to each service, the first one, and
// how often.
func (d *deployment) times(action string) (first map[string]time.Time, count map[string]int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	first, count = map[string]time.Time{}, map[string]int{}
	for _, e := range d.events {
		if e.Action != action {
			continue
		}
		if count[e.Service]++; count[e.Service] == 1 {
			first[e.Service] = e.Time
		}
	}
	return first, count
}

// healthy waits until the whole stack is.
func (d *deployment) healthy() status.Report {
	d.t.Helper()
	return d.await("a healthy stack", func(r status.Report) bool { return r.Stack == "healthy" })
}

// await follows the reports until one satisfies ok.
func (d *deployment) await(what string, ok func(status.Report) bool) status.Report {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	var last status.Report
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		done := false
		err := d.client.Watch(ctx, func(r status.Report) bool {
			last, done = r, ok(r)
			return !done && r.Stack != "held"
		})
		switch {
		case done:
			return last
		case last.Stack == "held", !errors.Is(err, api.ErrNoDaemon), ctx.Err() != nil:
			d.t.Fatalf("waited for %s: %v\n%s", what, err, waiting(last))
		}
		select { // the socket is not there yet
		case e := <-d.exit:
			d.t.Fatalf("waited for %s, and the daemon ended: %v\n%s", what, e, d.out.String())
		case <-tick.C:
		}
	}
}

// waiting names what is not well, and why.
func waiting(r status.Report) string {
	var b strings.Builder
	fmt.Fprintln(&b, "the stack is", r.Stack)
	for _, c := range r.Conditions {
		fmt.Fprintf(&b, "%+v\n", c)
	}
	for _, s := range r.Services {
		if s.State != "running" || s.Health != "healthy" && s.Health != "none" {
			fmt.Fprintf(&b, "%+v\n", s)
		}
	}
	return b.String()
}

func (d *deployment) containers() map[string]engine.Container {
	d.t.Helper()
	cs, err := d.cli.Containers(d.t.Context(), d.st.Name)
	if err != nil {
		d.t.Fatal(err)
	}
	out := map[string]engine.Container{}
	for _, c := range cs {
		out[c.Labels[engine.ServiceLabel]] = c
	}
	return out
}

// tell runs a program in a container.
func (d *deployment) tell(c engine.Container, argv ...string) error {
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	r, err := d.cli.Exec(ctx, c.ID, argv)
	if err == nil && r.ExitCode != 0 {
		err = fmt.Errorf("%s: %v exits with %d: %s", c.Name, argv, r.ExitCode, r.Output)
	}
	return err
}

func (d *deployment) end() {
	if d.cmd != nil {
		d.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-d.exit:
		case <-time.After(patience):
			d.t.Errorf("the daemon did not end")
		}
	}
	if d.t.Failed() {
		d.t.Logf("--- daemon ---\n%s", d.out.String())
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cs, err := d.cli.Containers(ctx, d.st.Name)
	for _, c := range cs {
		err = errors.Join(err, d.cli.Stop(ctx, c.ID, time.Second), d.cli.Remove(ctx, c.ID))
	}
	if err != nil {
		d.t.Errorf("clean up: %v", err)
	}
	d.cli.Close()
}
