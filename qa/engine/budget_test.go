// SPDX-License-Identifier: Apache-2.0

//go:build engine

package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/status"
)

// neighbours is a service that misbehaves and one that must not notice. calm
// holds memory it would lose first if the kernel looked for some.
const neighbours = `
services:
  wild:
    image: holdfast.test/standin:1.0.0
    command: [serve]
    healthcheck: {test: [CMD, /standin, check], interval: 1s, timeout: 10s, retries: 10, start_interval: 200ms, start_period: 10s}
    mem_limit: 64m
    memswap_limit: 64m
    pids_limit: 40
    ulimits: {nofile: 128}
    logging: {driver: json-file, options: {max-size: 1m, max-file: "2"}}
    stop_grace_period: 1s
    restart: always
  calm:
    image: holdfast.test/standin:1.0.0
    command: [serve]
    environment: {STANDIN_MEMORY: 96MiB}
    healthcheck: {test: [CMD, /standin, check], interval: 1s, timeout: 10s, retries: 10, start_interval: 200ms, start_period: 10s}
    mem_limit: 160m
    pids_limit: 40
    restart: always
`

// wildBox runs the two and returns the visit of calm.
func wildBox(t *testing.T) (*box, *guest) {
	t.Helper()
	t.Parallel()
	b := newBox(t)
	b.stack(neighbours)
	b.start()
	b.healthy()
	return b, b.visit("calm")
}

// untouched ends the visit: calm ran on, healthy, and was always served.
func (b *box) untouched(g *guest, since status.Report) {
	b.t.Helper()
	g.wellServed()
	c := b.containers()["calm"]
	s := service(since, "calm")
	if !c.Up() || c.OOMKilled || s.Restarts != 0 || s.Health != "healthy" {
		b.t.Errorf("calm was touched: %+v %+v", c, s)
	}
}

// TestBudgetMemory: a service that takes all the memory it can is ended by
// the kernel and started again, and nobody else is.
func TestBudgetMemory(t *testing.T) {
	b, g := wildBox(t)
	before := b.containers()
	b.do("wild", "oom")
	r := b.await("wild ended for lack of memory and back", func(r status.Report) bool {
		return service(r, "wild").Restarts == 1 && service(r, "wild").Health == "healthy"
	})
	if n := strings.Count(readFile(t, filepath.Join(b.dir, "state/supervise/journal.jsonl")), "lack of memory"); n == 0 {
		t.Errorf("the journal does not name the memory")
	}
	if c := b.containers()["calm"]; !c.Started.Equal(before["calm"].Started) {
		t.Error("calm was started again")
	}
	b.untouched(g, r)
}

// TestBudgetForks: a fork bomb ends at the service's own limit of processes.
func TestBudgetForks(t *testing.T) {
	b, g := wildBox(t)
	b.do("wild", "forks")
	b.logged("wild", "standin: refused after ")
	top := strings.Split(b.docker("top", b.project+"-wild-1"), "\n")
	if n := len(top) - 1; n < 10 || n > 40 {
		t.Errorf("wild has %d processes, want at most 40 and nearly so", n)
	}
	// Others may still make processes: their health checks do.
	b.docker("exec", b.project+"-calm-1", "/standin", "check")
	b.untouched(g, b.healthyButWild())
}

// TestBudgetFiles: a service that leaks open files meets its own limit.
func TestBudgetFiles(t *testing.T) {
	b, g := wildBox(t)
	b.do("wild", "fds")
	b.logged("wild", "standin: refused after 1")
	b.docker("exec", b.project+"-calm-1", "/standin", "check")
	b.untouched(g, b.healthyButWild())
}

// TestBudgetLogs: what a service prints stays within its log's size.
func TestBudgetLogs(t *testing.T) {
	b, g := wildBox(t)
	wild := b.containers()["wild"]
	log := b.docker("inspect", "--format", "{{.LogPath}}", wild.ID)
	b.do("wild", "logs")
	grown(t, log+".1", 900_000) // it has turned over at least once
	var total int64
	files, err := filepath.Glob(log + "*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no log files: %v", err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			total += st.Size()
		}
	}
	if total > 2_200_000 {
		t.Errorf("the log takes %d bytes of the 2 MB it may: %v", total, files)
	}
	b.untouched(g, b.healthyButWild())
}

// healthyButWild waits for a report in which calm is well and the daemon
// answers, whatever wild does.
func (b *box) healthyButWild() status.Report {
	b.t.Helper()
	return b.await("calm healthy", func(r status.Report) bool { return service(r, "calm").Health == "healthy" })
}
