// SPDX-License-Identifier: Apache-2.0

//go:build engine

package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/status"
)

// killStack has what a crash could spoil: a one-shot that must run once, named
// and anonymous volumes, an order, a service whose configuration changes.
const killStack = `
services:
  db:
    image: holdfast.test/standin:1.0.0
    command: [serve]
    volumes: ["data:/data", "/scratch"]
    labels: {edition: %q}
    stop_grace_period: 2s
  migrate:
    image: holdfast.test/standin:1.0.0
    command: [once, --file, /data/migrations]
    volumes: ["data:/data"]
    depends_on: {db: {condition: service_started}}
    restart: "no"
  web:
    image: holdfast.test/standin:1.0.0
    command: [serve]
    depends_on: {migrate: {condition: service_completed_successfully}}
    restart: always
volumes:
  data:
`

// TestKilledAtEveryCall kills the daemon at each call that changes something
// at the engine, once before the engine gets it and once when it has done it
// and the daemon has not heard: all that can lie between a decision on disk
// and its effect. The calls are counted in a run without a kill, so that none
// is left out. However it was cut, the next daemon comes to the same end.
func TestKilledAtEveryCall(t *testing.T) {
	for _, phase := range []string{"create", "change", "stop"} {
		t.Run(phase, func(t *testing.T) {
			t.Parallel()
			n := killRun(t, phase, 0, "")
			least := map[string]int{"create": 8, "change": 4, "stop": 2}[phase]
			if n < least {
				t.Fatalf("%s made %d calls that change something, want at least %d", phase, n, least)
			}
			t.Logf("%d calls, each cut before and after", n)
			for i := 1; i <= n; i++ {
				for _, when := range []string{"before", "after"} {
					t.Run(fmt.Sprintf("%02d-%s", i, when), func(t *testing.T) {
						t.Parallel()
						killRun(t, phase, i, when)
					})
				}
			}
		})
	}
}

// crowd bounds how many stacks there are at a time.
var crowd = make(chan struct{}, 4)

// killRun runs one phase and kills the daemon at its at-th call that changes
// something, 0 for never; it returns how many such calls the phase made.
func killRun(t *testing.T, phase string, at int, when string) int {
	t.Helper()
	crowd <- struct{}{}
	defer func() { <-crowd }()
	b := newBox(t)
	// Now, not at the end of the test: the next one waits for the room.
	defer b.cleanup()
	b.cleaned = true
	b.stack(fmt.Sprintf(killStack, "one"))
	if phase != "create" {
		b.start()
		b.healthy()
		if phase == "change" {
			b.signal(syscall.SIGTERM)
			b.stack(fmt.Sprintf(killStack, "two"))
		}
	}
	before := b.containers()
	p := newProxy(t, b)
	var killed sync.WaitGroup
	if at > 0 {
		killed.Add(1)
		kill := func(n int, _ call) bool {
			if n != at {
				return n > at
			}
			b.cmd.Process.Signal(syscall.SIGKILL)
			killed.Done()
			return true
		}
		if when == "before" {
			p.before = kill
		} else {
			p.after = kill
		}
	}
	b.engine = p.host
	if phase == "stop" {
		// The daemon goes on at the proxy, in the middle of its life.
		b.signal(syscall.SIGTERM)
		b.start()
		b.healthy()
		go b.client.StopStack(t.Context())
	} else {
		b.start()
	}
	if at == 0 {
		switch phase {
		case "stop":
			b.await("a stopped stack", func(r status.Report) bool { return r.Stack == "stopped" })
		case "change":
			b.changed()
		default:
			b.healthy()
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.changed
	}
	waitGroup(t, &killed, fmt.Sprintf("call %d of %s", at, phase))
	select {
	case <-b.exit:
	case <-time.After(patience):
		t.Fatal("waited for the killed daemon to end")
	}
	b.engine = b.dock.host
	b.start()
	if phase == "change" {
		b.changed()
	} else {
		b.healthy()
	}
	b.whole(before, phase)
	return at
}

// whole checks that nothing was lost, doubled or done again.
func (b *box) whole(before map[string]engine.Container, phase string) {
	b.t.Helper()
	cs, err := b.cli.Containers(b.t.Context(), b.project)
	if err != nil {
		b.t.Fatal(err)
	}
	seen := map[string]engine.Container{}
	for _, c := range cs {
		name := c.Labels[engine.ServiceLabel]
		if old, two := seen[name]; two {
			b.t.Errorf("%s has two containers: %s, %s", name, old.Name, c.Name)
		}
		if want := b.project + "-" + name + "-1"; c.Name != want {
			b.t.Errorf("%s is called %s", name, c.Name)
		}
		seen[name] = c
	}
	if len(seen) != 3 {
		b.t.Errorf("%d services have containers, want 3", len(seen))
	}
	for name, old := range before {
		now := seen[name]
		if (phase != "change" || name != "db") && now.ID != old.ID {
			b.t.Errorf("%s has a new container", name)
		}
		if phase == "change" && name == "web" && !now.Started.Equal(old.Started) {
			b.t.Errorf("web was restarted")
		}
		for target, v := range old.Volumes {
			if now.Volumes[target] != v {
				b.t.Errorf("%s has another volume at %s", name, target)
			}
		}
	}
	if phase == "change" && seen["db"].Labels["edition"] != "two" {
		b.t.Errorf("db is of edition %q", seen["db"].Labels["edition"])
	}
	if got := strings.Count(b.inVolume(b.project+"_data", "migrations"), "ran"); got != 1 {
		b.t.Errorf("migrate ran %d times", got)
	}
}

// inVolume reads a file of a volume, where the engine keeps it.
func (b *box) inVolume(volume, name string) string {
	b.t.Helper()
	at := b.docker("volume", "inspect", "--format", "{{.Mountpoint}}", volume)
	out, err := os.ReadFile(filepath.Join(at, name))
	if err != nil {
		b.t.Error(err)
	}
	return string(out)
}

func waitGroup(t *testing.T, g *sync.WaitGroup, what string) {
	t.Helper()
	done := make(chan struct{})
	go func() { g.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("waited for %s", what)
	}
}

// changed waits for a healthy stack with the new db.
func (b *box) changed() {
	b.t.Helper()
	b.await("a healthy stack with the new db", func(r status.Report) bool {
		db := b.containers()["db"]
		return r.Stack == "healthy" && db.Labels["edition"] == "two" && db.Up()
	})
}
