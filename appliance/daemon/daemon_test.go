// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/config"
	"github.com/holdfast/holdfast/appliance/engine/fake"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/supervise"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/compose/stack"
)

// found is a Finder with a fixed answer.
type found struct {
	f   *Found
	err error
}

func (f found) Find(context.Context) (*Found, error) { return f.f, f.err }

// source gives an image's text, then an error.
type source struct {
	text string
	err  error
}

func (s source) WriteImage(_ context.Context, w io.Writer, _ string, progress func(done, total int64)) error {
	progress(1, 2)
	if _, err := io.WriteString(w, s.text); err != nil {
		return err
	}
	return s.err
}

type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const pinned = "x.test/web@sha256:1111111111111111111111111111111111111111111111111111111111111111"

// one is a stack of one service with a secret.
func one(t *testing.T) *Found {
	t.Helper()
	dir := t.TempDir()
	text := "name: demo\nservices:\n  web:\n    image: x.test/web:1\n    secrets: [pw]\nsecrets:\n  pw:\n    x-holdfast: {generate: password, length: 24}\n"
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	_, digest, _ := strings.Cut(pinned, "@")
	st, err := stack.Load(t.Context(), dir, stack.Options{Digests: map[string]string{"x.test/web:1": digest}})
	if err != nil {
		t.Fatal(err)
	}
	return &Found{Stack: st, Release: status.Release{Name: "demo", Version: "1.0.0", OS: "os"},
		Images: []supervise.Image{{Ref: "x.test/web:1", Pinned: pinned, Digest: digest}}}
}

// twoCores puts a machine of 2 processors and 4 GiB below root.
func twoCores(t *testing.T, root string) {
	t.Helper()
	for name, text := range map[string]string{
		"proc/meminfo":         "MemTotal:        4194304 kB\nMemFree:         3000000 kB\nMemAvailable:    3500000 kB\n",
		"proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"proc/pressure/io":     "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"proc/pressure/cpu":    "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"proc/stat":            "cpu  100 0 100 1000 0 0 0 0 0 0\ncpu0 50 0 50 500 0 0 0 0 0 0\ncpu1 50 0 50 500 0 0 0 0 0 0\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// start runs a daemon until stop; it notes what systemd hears.
func start(t *testing.T, c Config) (client *api.Client, console *lines, stop func() []string) {
	t.Helper()
	dir := t.TempDir()
	console = &lines{}
	var mu sync.Mutex
	var heard []string
	if c.Root == "" {
		c.Root = t.TempDir()
	}
	twoCores(t, c.Root)
	if c.Metrics.Listen == "" {
		c.Metrics.Listen = config.MetricsOff // the port is the machine's
	}
	if c.Data == "" {
		c.Data = filepath.Join(dir, "data")
	}
	if c.State == "" {
		c.State = filepath.Join(dir, "state")
	}
	c.Socket, c.Run = filepath.Join(dir, "s"), filepath.Join(dir, "run")
	c.Console = console
	c.Notify = func(s string) { mu.Lock(); heard = append(heard, s); mu.Unlock() }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- New(c).Run(ctx) }()
	stop = sync.OnceValue(func() []string {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		return heard
	})
	t.Cleanup(func() { stop() })
	return api.NewClient(c.Socket), console, stop
}

// await follows the reports until the stack is in a state.
func await(t *testing.T, c *api.Client, want string) status.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var last status.Report
	for {
		err := c.Watch(ctx, func(r status.Report) bool { last = r; return r.Stack != want })
		if err == nil {
			return last
		}
		if ctx.Err() != nil {
			t.Fatalf("waited for a %s stack: %v; last %+v", want, err, last)
		}
		select {
		case <-time.After(10 * time.Millisecond): // the socket is not there yet
		case <-ctx.Done():
		}
	}
}

func TestRuns(t *testing.T) {
	f := one(t)
	f.Source = source{text: pinned}
	e := fake.New()
	client, console, stop := start(t, Config{Engine: e, Find: found{f: f}})
	r := await(t, client, "healthy")
	if r.Release != f.Release || len(r.Services) != 1 || r.Services[0].Image != pinned || r.Generation != 1 {
		t.Errorf("%+v", r)
	}
	for _, want := range []string{"release demo 1.0.0, 1 services", "loaded x.test/web:1", "service web: running", "the stack is healthy"} {
		if !strings.Contains(console.String(), "holdfast: "+want) {
			t.Errorf("the console lacks %q:\n%s", want, console)
		}
	}
	c, _ := e.Get("web")
	if m := e.Spec(c.ID).Host.Mounts; len(m) != 1 || m[0].Target != "/run/secrets/pw" || !m[0].ReadOnly {
		t.Errorf("mounts %+v", m)
	}
	if _, err := client.StopStack(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, client, "stopped")
	heard := stop()
	if heard[0] == "" || !slices.Contains(heard, "READY=1") || !slices.Contains(heard, "WATCHDOG=1") || heard[len(heard)-1] != "STOPPING=1" {
		t.Errorf("systemd heard %v", heard)
	}
}

func TestHolds(t *testing.T) {
	corrupt := one(t)
	corrupt.Source = source{text: pinned, err: &release.CorruptError{Image: "x.test/web:1", Blob: "sha256:2", Err: errors.New("wrong hash")}}
	for _, c := range []struct {
		name string
		find found
		code string
		text string
	}{
		{"corrupt image", found{f: corrupt}, "factory-image-corrupt", "x.test/web:1"},
		{"no image", found{f: one(t)}, "images-not-loaded", "x.test/web:1"},
		{"untrusted", found{err: held("factory-release-untrusted", "reinstall", errors.New("bad signature"))}, "factory-release-untrusted", "bad signature"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := fake.New()
			client, console, _ := start(t, Config{Engine: e, Find: c.find})
			r := await(t, client, "held")
			if len(r.Conditions) != 1 || r.Conditions[0].Code != c.code || !strings.Contains(r.Conditions[0].Text, c.text) || r.Conditions[0].Remedy == "" {
				t.Errorf("conditions %+v", r.Conditions)
			}
			if !strings.Contains(console.String(), c.text) {
				t.Errorf("console:\n%s", console)
			}
			if l := e.Log(); slices.ContainsFunc(l, func(s string) bool { return strings.HasPrefix(s, "create") }) {
				t.Errorf("the engine was asked for %v", l)
			}
		})
	}
}

func TestWaitsForTheEngine(t *testing.T) {
	f := one(t)
	f.Source = source{text: pinned}
	e := fake.New()
	e.Down()
	client, _, _ := start(t, Config{Engine: e, Find: found{f: f}})
	await(t, client, "starting")
	e.Up()
	await(t, client, "healthy")
}

func TestProgressLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		c := newConsole(&b)
		p := supervise.Progress{Image: "x/db:1", Total: 28_000_000, Number: 1, Count: 2}
		for range 100 { // ten seconds
			p.Done += 250_000
			c.progress(p)
			<-time.After(100 * time.Millisecond)
		}
		p.End = true
		c.progress(p)
		if n := strings.Count(b.String(), "loading"); n != 5 {
			t.Errorf("%d progress lines in 10 s, want 5:\n%s", n, b.String())
		}
		for _, want := range []string{"holdfast: loading x/db:1 18% 5 of 28 MB\n", "holdfast: loaded x/db:1, 28 MB (1 of 2)\n"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("no %q in\n%s", want, b.String())
			}
		}
	})
}
