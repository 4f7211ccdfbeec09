// SPDX-License-Identifier: Apache-2.0

//go:build engine

package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// TestEnds: what becomes of a service that ends, by its exit code and policy.
func TestEnds(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.stack(`
x-once: &once
  image: holdfast.test/standin:1.0.0
services:
  well-always: {<<: *once, command: [serve, --exit-after, 1s], restart: always}
  well-on-failure: {<<: *once, command: [serve, --exit-after, 500ms], restart: on-failure}
  killed: {<<: *once, command: [serve, --exit-after, 1s, --code, "137"], restart: on-failure}
  twice: {<<: *once, command: [serve, --exit-after, 500ms, --code, "3"], restart: "on-failure:2"}
  steady: {<<: *once, command: [serve]}
`)
	b.start()
	b.await("each end's consequence", func(r status.Report) bool {
		done := service(r, "well-on-failure").State
		return service(r, "well-always").Restarts >= 2 && service(r, "killed").Restarts >= 2 && (done == "completed" || done == "exited")
	})
	r := b.await("twice given up", func(r status.Report) bool {
		return service(r, "twice").Restarts == 2 && service(r, "twice").State == "exited" && service(r, "killed").Restarts >= 1
	})
	for name, want := range map[string]string{"twice": "after 2 restarts", "killed": "exit code 137"} {
		if s := service(r, name); s.State != "running" && !strings.Contains(s.Reason, want) {
			t.Errorf("%s: %+v, want a reason with %q", name, s, want)
		}
	}
	if s := service(r, "well-on-failure"); s.Restarts != 0 {
		t.Errorf("well-on-failure ended with 0 and has %d restarts", s.Restarts)
	}
	if s := service(r, "steady"); s.Restarts != 0 || s.State != "running" {
		t.Errorf("steady: %+v", s)
	}
}

// TestHungHealthCheck: a check that never answers is a failed one.
func TestHungHealthCheck(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.stack(`
services:
  web:
    image: holdfast.test/standin:1.0.0
    command: [serve]
    healthcheck: {test: [CMD, /standin, check], interval: 300ms, timeout: 300ms, retries: 2, start_interval: 200ms, start_period: 1s}
    restart: always
    stop_grace_period: 1s
`)
	b.start()
	b.healthy()
	b.do("web", "hang-health")
	b.await("a restart of what hangs", func(r status.Report) bool {
		return service(r, "web").Restarts == 1 && service(r, "web").Health == "healthy"
	})
}

// TestPortTaken: a port that somebody else has is named, and taken once free.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	thief := b.docker("run", "--detach", "--publish", "8099:8080", "--name", "port-thief", "holdfast.test/standin:1.0.0", "serve")
	t.Cleanup(func() { b.docker("rm", "--force", thief) })
	b.stack(`
services:
  web: {image: "holdfast.test/standin:1.0.0", command: [serve], ports: ["8099:8080"], restart: always}
  other: {image: "holdfast.test/standin:1.0.0", command: [serve], restart: always}
`)
	b.start()
	r := b.await("the taken port", func(r status.Report) bool {
		return strings.Contains(service(r, "web").Reason, "8099") && service(r, "other").State == "running"
	})
	if r.Stack == "healthy" {
		t.Error("the stack is called healthy")
	}
	b.docker("rm", "--force", thief)
	b.healthy()
}

// TestNameTaken: a foreign container that has the name of one of ours is left
// alone and reported; ours is made once the name is free.
func TestNameTaken(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	name := b.project + "-web-1"
	b.docker("create", "--name", name, "holdfast.test/standin:1.0.0", "serve")
	removed := false
	t.Cleanup(func() {
		if !removed {
			b.docker("rm", "--force", name)
		}
	})
	b.stack(`
services:
  web: {image: "holdfast.test/standin:1.0.0", command: [serve], restart: always}
`)
	b.start()
	b.await("the taken name", func(r status.Report) bool { return strings.Contains(service(r, "web").Reason, name) })
	b.docker("inspect", name) // still there
	b.docker("rm", name)
	removed = true
	b.healthy()
}

// TestVolumeBusy: a stack's volume that a foreign container uses, too, is
// shared, as Docker allows; the foreign one is neither stopped nor removed, and
// the volume is there afterwards.
func TestVolumeBusy(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	volume := b.project + "_data"
	foreign := b.docker("run", "--detach", "--volume", volume+":/data", "holdfast.test/standin:1.0.0", "serve")
	t.Cleanup(func() { b.docker("rm", "--force", foreign) })
	b.stack(`
services:
  web: {image: "holdfast.test/standin:1.0.0", command: [serve], volumes: ["data:/data"], restart: always}
volumes: {data: {}}
`)
	b.start()
	b.await("a stack that runs", func(r status.Report) bool { return service(r, "web").State == "running" })
	if got := b.docker("inspect", "--format", "{{.State.Running}}", foreign); got != "true" {
		t.Errorf("the foreign container runs: %s", got)
	}
	b.docker("rm", "--force", foreign)
	b.healthy()
}

// TestSlowStop: a service that takes long to end does not hold up another, and
// is killed after its grace.
func TestSlowStop(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	stack := func(edition string) string {
		return `
services:
  slow: {image: "holdfast.test/standin:1.0.0", command: [serve], labels: {edition: "` + edition + `"}, environment: {STANDIN_DO: slow-stop 30s}, stop_grace_period: 8s, restart: always}
  quick: {image: "holdfast.test/standin:1.0.0", command: [serve], environment: {STANDIN_DO: slow-stop 1s}, labels: {edition: "` + edition + `"}, stop_grace_period: 20s, restart: always}
  other: {image: "holdfast.test/standin:1.0.0", command: [serve], restart: always}
`
	}
	b.stack(stack("one"))
	b.start()
	b.healthy()
	before := b.containers()
	b.signal(15)
	b.stack(stack("two"))
	began := time.Now()
	b.start()
	b.logged("slow", "asked to stop")
	b.docker("kill", before["other"].ID)
	b.await("other restarted while slow still ends", func(r status.Report) bool { return service(r, "other").Restarts == 1 })
	if c := b.containers()["slow"]; c.ID != before["slow"].ID || !c.Up() {
		t.Errorf("slow had ended already, %v after the change: %+v", time.Since(began), c)
	}
	b.await("both made anew", func(status.Report) bool {
		c := b.containers()
		return c["slow"].Labels["edition"] == "two" && c["slow"].Up() && c["quick"].Labels["edition"] == "two" && c["quick"].Up()
	})
	if took := time.Since(began); took < 8*time.Second {
		t.Errorf("slow was ended after %v and had a grace of 8 s", took)
	}
}

// TestEventsLost: a stream of events that breaks is taken up again, and what
// happened meanwhile is seen.
func TestEventsLost(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.stack(`
services:
  web: {image: "holdfast.test/standin:1.0.0", command: [serve], restart: always}
  calm: {image: "holdfast.test/standin:1.0.0", command: [serve], restart: always}
`)
	p := newProxy(t, b)
	b.engine = p.host
	b.start()
	b.healthy()
	before := b.containers()
	p.cut()
	b.docker("kill", before["web"].ID)
	b.await("web restarted", func(r status.Report) bool {
		c := b.containers()["web"]
		return r.Stack == "healthy" && c.Up() && c.Started.After(before["web"].Started)
	})
	if c := b.containers(); c["calm"].ID != before["calm"].ID || !c["calm"].Started.Equal(before["calm"].Started) || c["web"].ID != before["web"].ID {
		t.Errorf("%+v", c)
	}
}
