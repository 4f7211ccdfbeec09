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

// TestBudgets lets one service do what it can and looks each time whether it
// stays in its budget and its neighbour notices. One stack serves all.
func TestBudgets(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.stack(neighbours)
	b.start()
	b.healthy()
	before := b.containers()["calm"]
	for _, part := range []struct {
		name string
		run  func(*box)
	}{
		{"forks", (*box).forkBomb}, {"files", (*box).fileLeak}, {"logs", (*box).logFlood}, {"memory", (*box).noMemory},
	} {
		t.Run(part.name, func(t *testing.T) {
			inner := *b
			inner.t = t
			g := inner.visit("calm")
			part.run(&inner)
			// Others may still make processes: health checks do.
			inner.docker("exec", b.project+"-calm-1", "/standin", "check")
			g.wellServed()
			r := inner.await("calm healthy", func(r status.Report) bool { return service(r, "calm").Health == "healthy" })
			if c := inner.containers()["calm"]; !c.Up() || c.OOMKilled || !c.Started.Equal(before.Started) || service(r, "calm").Restarts != 0 {
				t.Errorf("calm was touched: %+v %+v", c, service(r, "calm"))
			}
		})
	}
}

// forkBomb ends at the service's own limit of processes.
func (b *box) forkBomb() {
	b.do("wild", "forks")
	b.logged("wild", "standin: refused after ")
	top := strings.Split(b.docker("top", b.project+"-wild-1"), "\n")
	// The limit counts threads, of which each process has some.
	if n := len(top) - 1; n < 2 || n > 40 {
		b.t.Errorf("wild has %d processes, want more than one and at most 40", n)
	}
	b.heal()
}

// fileLeak ends at the service's own limit of open files.
func (b *box) fileLeak() {
	b.do("wild", "fds")
	b.logged("wild", "standin: refused after 1")
	b.heal()
}

// heal starts wild anew: with no process or file left it could not obey.
func (b *box) heal() {
	b.t.Helper()
	was := b.containers()["wild"].Started
	b.docker("kill", b.project+"-wild-1")
	b.await("wild back", func(r status.Report) bool {
		return service(r, "wild").Health == "healthy" && b.containers()["wild"].Started.After(was)
	})
}

// logFlood stays within the log's size.
func (b *box) logFlood() {
	wild := b.containers()["wild"]
	log := b.docker("inspect", "--format", "{{.LogPath}}", wild.ID)
	b.do("wild", "logs")
	grown(b.t, log+".1", 900_000) // it has turned over at least once
	var total int64
	files, err := filepath.Glob(log + "*")
	if err != nil || len(files) == 0 {
		b.t.Fatalf("no log files: %v", err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			total += st.Size()
		}
	}
	if total > 2_200_000 {
		b.t.Errorf("the log takes %d bytes of the 2 MB it may: %v", total, files)
	}
	b.heal()
}

// noMemory: a service that takes all it can is ended by the kernel, and
// started again.
func (b *box) noMemory() {
	was := b.containers()["wild"].Started
	b.do("wild", "oom")
	b.await("wild ended for lack of memory and back", func(r status.Report) bool {
		return service(r, "wild").Health == "healthy" && b.containers()["wild"].Started.After(was)
	})
	// The engine hears of the kernel's act beside the end itself, and on a slow
	// machine after it.
	journal := filepath.Join(b.dir, "state/supervise/journal.jsonl")
	b.holds("the journal", "lack of memory", func() string { return readFile(b.t, journal) })
}
