// SPDX-License-Identifier: Apache-2.0

//go:build engine

package engine

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/status"
)

// These tests hurt an engine: each has one of its own, beside the others.

const faultStack = `
services:
  db:
    image: holdfast.test/standin:1.0.0
    command: [serve]
    healthcheck: {test: [CMD, /standin, check], interval: 1s, timeout: 20s, retries: 20, start_interval: 200ms, start_period: 10s}
    stop_grace_period: 1s
    restart: always
  web:
    image: holdfast.test/standin:1.0.0
    command: [serve]
    depends_on: {db: {condition: service_healthy}}
    stop_grace_period: 1s
    restart: always
`

func faultBox(t *testing.T) (*box, map[string]engine.Container) {
	t.Helper()
	b := newBoxOn(t, newDock(t))
	b.stack(faultStack)
	b.start()
	b.healthy()
	return b, b.containers()
}

// hit sends a signal to every process of a name that the engine has.
func (b *box) hit(s syscall.Signal, name string) {
	b.t.Helper()
	pids := b.dock.d.Pids(name)
	if len(pids) == 0 {
		b.t.Fatalf("the engine has no %s", name)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, s); err != nil {
			b.t.Fatal(err)
		}
	}
}

// same checks that no container was made anew or started again.
func (b *box) same(before map[string]engine.Container) {
	b.t.Helper()
	after := b.containers()
	for name, c := range before {
		now := after[name]
		if now.ID != c.ID || !now.Started.Equal(c.Started) || !now.Up() {
			b.t.Errorf("%s was touched: %s, started %s, was %s, started %s", name, now.State, now.Started, c.State, c.Started)
		}
	}
}

// TestKilledEngine: dockerd and containerd come back, the containers never
// were away, and the daemon adopts them as they are.
func TestKilledEngine(t *testing.T) {
	for _, name := range []string{"dockerd", "containerd"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, before := faultBox(t)
			g := b.visit("web")
			old := b.dock.d.Pids(name)
			b.hit(syscall.SIGKILL, name)
			b.answers(old, name)
			// It acts again: what ends now is started again.
			b.docker("kill", before["db"].ID)
			b.await("db restarted", func(r status.Report) bool {
				db := b.containers()["db"]
				return r.Stack == "healthy" && db.Started.After(before["db"].Started)
			})
			g.wellServed()
			if c := b.containers()["web"]; c.ID != before["web"].ID || !c.Started.Equal(before["web"].Started) {
				t.Errorf("web was touched: %+v", c)
			}
			if c := b.containers()["db"]; c.ID != before["db"].ID {
				t.Error("db was made anew")
			}
		})
	}
}

// answers waits until another process has taken the old one's place and the
// engine starts containers.
func (b *box) answers(old []int, name string) {
	b.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var err error
	for {
		now := b.dock.d.Pids(name)
		if len(now) > 0 && now[0] != old[0] {
			if err = b.cli.Ping(b.t.Context()); err == nil {
				if err = b.cli.Runtime(b.t.Context()); err == nil {
					return
				}
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("waited for a new %s: %v", name, err)
		}
	}
}

// TestHungEngine: dockerd stops answering without ending. The daemon says so
// within its deadlines, touches nothing, and goes on when it answers again.
func TestHungEngine(t *testing.T) {
	t.Parallel()
	b, before := faultBox(t)
	g := b.visit("web")
	b.hit(syscall.SIGSTOP, "dockerd")
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			b.hit(syscall.SIGCONT, "dockerd")
		}
	}
	t.Cleanup(resume)
	b.await("a report of the hang", func(r status.Report) bool {
		return condition(r, "engine-unreachable").Code != "" || condition(r, "engine-hung").Code != ""
	})
	resume()
	b.await("a healthy stack without conditions of the hang", func(r status.Report) bool {
		return r.Stack == "healthy" && condition(r, "engine-unreachable").Code == "" && condition(r, "engine-hung").Code == ""
	})
	b.same(before)
	g.wellServed()
}

// TestHungContainerd: the engine answers and can start nothing. Nothing that
// runs is touched, and afterwards it acts again.
func TestHungContainerd(t *testing.T) {
	t.Parallel()
	b, before := faultBox(t)
	g := b.visit("web")
	b.hit(syscall.SIGSTOP, "containerd")
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			b.hit(syscall.SIGCONT, "containerd")
		}
	}
	t.Cleanup(resume)
	if err := b.cli.Ping(t.Context()); err != nil {
		t.Errorf("the engine itself does not answer: %v", err)
	}
	b.await("a report of the hang", func(r status.Report) bool { return condition(r, "engine-hung").Code != "" })
	resume()
	b.await("a healthy stack without conditions of the hang", func(r status.Report) bool {
		return r.Stack == "healthy" && condition(r, "engine-hung").Code == ""
	})
	b.same(before)
	g.wellServed()
	b.docker("kill", before["db"].ID)
	b.await("db restarted", func(r status.Report) bool {
		return r.Stack == "healthy" && b.containers()["db"].Started.After(before["db"].Started)
	})
}

// shim is the process that holds a container's own.
func (b *box) shim(id string) int {
	b.t.Helper()
	for _, pid := range b.dock.d.Pids("containerd-shim") {
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(line), id) {
			return pid
		}
	}
	b.t.Fatalf("no shim for %s", id)
	return 0
}

// TestKilledShim: a container whose shim is gone is ended by containerd; it is
// started again, and no other is.
func TestKilledShim(t *testing.T) {
	t.Parallel()
	b, before := faultBox(t)
	g := b.visit("db")
	if err := syscall.Kill(b.shim(before["web"].ID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.await("web restarted", func(r status.Report) bool {
		web := b.containers()["web"]
		return r.Stack == "healthy" && web.Up() && web.Started.After(before["web"].Started)
	})
	g.wellServed()
	if c := b.containers()["db"]; !c.Started.Equal(before["db"].Started) {
		t.Error("db was started again")
	}
}

// TestHungShim: a container whose shim hangs cannot be ended by the engine.
// When the engine has not done it in time the daemon kills the shim.
func TestHungShim(t *testing.T) {
	t.Parallel()
	b, before := faultBox(t)
	g := b.visit("db")
	if err := syscall.Kill(b.shim(before["web"].ID), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := b.client.Do(t.Context(), "stop", []string{"web"}); err != nil {
		t.Fatal(err)
	}
	// Until then the engine does not even answer what state it is in.
	b.said("killed its shim", 1)
	b.await("web stopped", func(status.Report) bool { return !b.containers()["web"].Up() })
	if _, err := b.client.Do(t.Context(), "start", []string{"web"}); err != nil {
		t.Fatal(err)
	}
	b.healthy()
	if c := b.containers(); c["web"].ID != before["web"].ID || !c["web"].Up() || !c["db"].Started.Equal(before["db"].Started) {
		t.Errorf("%+v", c)
	}
	g.wellServed()
}
