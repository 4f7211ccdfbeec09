// SPDX-License-Identifier: Apache-2.0

//go:build engine

package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
)

// patience bounds every wait; the error names what was waited for. An engine
// that is not the tests' own may be one in an emulated machine.
var patience = 90 * time.Second

// box is one daemon on the shared engine, with its own stack and folders.
type box struct {
	t       *testing.T
	project string
	dir     string
	cli     *engine.Docker
	client  *api.Client
	args    []string
	// dock is where its containers are.
	dock dock
	// engine is the address the daemon is given: the engine's, or a proxy's.
	engine string
	// outside leaves the daemon in the tests' network, not the engine's.
	outside bool
	// cleaned is true where the test cleans up by itself, before its end.
	cleaned bool

	cmd  *exec.Cmd
	out  *console
	exit chan error
}

// console is what the daemon prints. It arrives through a pipe, later than
// what the API says of the same event, so tests wait for a line.
type console struct {
	mu   sync.Mutex
	b    bytes.Buffer
	more chan struct{} // closed and made anew at each write
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.more != nil {
		close(c.more)
		c.more = nil
	}
	return c.b.Write(p)
}

func (c *console) String() string {
	s, _ := c.read()
	return s
}

// read returns what was printed so far, and a channel that is closed when
// there is more.
func (c *console) read() (string, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.more == nil {
		c.more = make(chan struct{})
	}
	return c.b.String(), c.more
}

// said waits until the daemon has printed the text at least n times.
func (b *box) said(text string, n int) {
	b.t.Helper()
	deadline := time.After(patience)
	for {
		s, more := b.out.read()
		if strings.Count(s, text) >= n {
			return
		}
		select {
		case <-more:
		case <-deadline:
			b.t.Fatalf("waited for the daemon to print %q %d times:\n%s", text, n, s)
		}
	}
}

// newBox makes the folders of a box whose project is named after the test.
func newBox(t *testing.T) *box {
	t.Helper()
	return newBoxOn(t, shared())
}

// newBoxOn is newBox on an engine of the caller's choice.
func newBoxOn(t *testing.T, d dock) *box {
	t.Helper()
	dir, err := os.MkdirTemp(d.base, "box-")
	if err != nil {
		t.Fatal(err)
	}
	cli, err := engine.Open(d.host)
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, dir: dir, cli: cli, dock: d, out: &console{}, engine: d.host, project: projectName(t.Name())}
	b.client = api.NewClient(filepath.Join(dir, "api.sock"))
	t.Cleanup(func() {
		if !b.cleaned {
			b.cleanup()
		}
	})
	return b
}

// projectName is a test's name as Compose takes it.
func projectName(test string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		}
		return '-'
	}, strings.ToLower(strings.TrimPrefix(test, "Test"))), "-")
}

// stack writes the Compose file and runs it from a folder.
func (b *box) stack(yaml string) {
	b.t.Helper()
	b.write("compose.yaml", "name: "+b.project+"\n"+yaml)
	b.args = []string{"--stack", filepath.Join(b.dir, "stack", "compose.yaml"), "--images", ref + "=" + digest}
}

func (b *box) write(name, content string) {
	b.t.Helper()
	path := filepath.Join(b.dir, "stack", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) start() {
	b.t.Helper()
	args := append([]string{"daemon", "--engine", b.engine, "--socket", filepath.Join(b.dir, "api.sock"),
		"--state", filepath.Join(b.dir, "state"), "--run", filepath.Join(b.dir, "run")}, b.args...)
	b.cmd = exec.Command(program, args...)
	b.cmd.Stdout, b.cmd.Stderr = b.out, b.out
	// Where the containers can be reached by their addresses.
	start := b.cmd.Start
	if b.dock.d != nil && !b.outside {
		start = func() error { return b.dock.d.Launch(b.cmd) }
	}
	if err := start(); err != nil {
		b.t.Fatal(err)
	}
	b.exit = make(chan error, 1)
	cmd, exit := b.cmd, b.exit
	go func() { exit <- cmd.Wait() }()
}

// signal ends the daemon.
func (b *box) signal(s syscall.Signal) {
	b.t.Helper()
	b.cmd.Process.Signal(s)
	select {
	case err := <-b.exit:
		if s == syscall.SIGTERM && err != nil {
			b.t.Errorf("the daemon ended with %v\n%s", err, b.out.String())
		}
	case <-time.After(patience):
		b.t.Fatalf("the daemon did not end on %s\n%s", s, b.out.String())
	}
	b.cmd = nil
}

func (b *box) cleanup() {
	if b.t.Failed() {
		b.t.Logf("--- daemon ---\n%s", b.out.String())
	}
	if b.cmd != nil {
		b.signal(syscall.SIGTERM)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cs, err := b.cli.Containers(ctx, b.project)
	for _, c := range cs {
		err = errors.Join(err, b.cli.Stop(ctx, c.ID, time.Second), b.cli.Remove(ctx, c.ID))
	}
	if err != nil {
		b.t.Errorf("clean up: %v", err)
	}
	// The engine has addresses for some thirty networks only.
	for _, kind := range []string{"network", "volume"} {
		for _, name := range strings.Fields(b.docker(kind, "ls", "--quiet", "--filter", "label="+engine.ProjectLabel+"="+b.project)) {
			b.docker(kind, "rm", name)
		}
	}
	b.cli.Close()
}

// await follows the reports until one satisfies ok.
func (b *box) await(what string, ok func(status.Report) bool) status.Report {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	var last status.Report
	found := false
	for !found {
		err := b.client.Watch(ctx, func(r status.Report) bool {
			last = r
			found = ok(r)
			return !found
		})
		if found {
			break
		}
		if !errors.Is(err, api.ErrNoDaemon) || ctx.Err() != nil {
			b.t.Fatalf("waited for %s: %v\nlast report: %+v\n%s", what, err, last, b.out.String())
		}
		select {
		case e := <-b.exit:
			b.t.Fatalf("waited for %s, and the daemon ended: %v\n%s", what, e, b.out.String())
		case <-time.After(50 * time.Millisecond): // the socket is not there yet
		}
	}
	return last
}

func (b *box) healthy() status.Report {
	b.t.Helper()
	return b.await("a healthy stack", func(r status.Report) bool { return r.Stack == "healthy" })
}

func (b *box) containers() map[string]engine.Container {
	b.t.Helper()
	cs, err := b.cli.Containers(b.t.Context(), b.project)
	if err != nil {
		b.t.Fatal(err)
	}
	out := map[string]engine.Container{}
	for _, c := range cs {
		out[c.Labels[engine.ServiceLabel]] = c
	}
	return out
}

// docker runs the engine's own command line, as an admin would.
func (b *box) docker(args ...string) string {
	b.t.Helper()
	c := exec.Command("docker", args...)
	c.Env = append(os.Environ(), "DOCKER_HOST="+b.dock.host)
	out, err := c.CombinedOutput()
	if err != nil {
		b.t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func service(r status.Report, name string) status.Service {
	for _, s := range r.Services {
		if s.Name == name {
			return s
		}
	}
	return status.Service{Name: fmt.Sprintf("no service %s", name)}
}

// notable are the conditions that are more than information, such as what a
// host of this kind cannot enforce.
func notable(r status.Report) []status.Condition {
	var out []status.Condition
	for _, c := range r.Conditions {
		if c.Severity != "info" {
			out = append(out, c)
		}
	}
	return out
}
