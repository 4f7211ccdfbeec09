// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// The sizes of the bench.
const (
	manyServices = 50
	// warmup is what a crash loop or a steady state gets before it counts.
	warmup = 30 * time.Second
	// crashWindow is how long the crash loop is watched.
	crashWindow = 2 * time.Minute
	scrapeEvery = 15 * time.Second
	metricsPort = 9179
)

// fromNothing brings the stack of 26 up, in turns with docker compose.
func (r *rig) fromNothing(ctx context.Context, res *superviseResult) error {
	s, err := r.sourcegraph(ctx)
	if err != nil {
		return err
	}
	// One of each that is not counted: the engine unpacks images.
	for i := range r.c.runs + 1 {
		took, err := s.composed(ctx, "up", "--wait", "--detach")
		if err != nil {
			return err
		}
		if err := s.stop(ctx); err != nil {
			return err
		}
		began := time.Now()
		if err := s.start(r.d.Host); err != nil {
			return err
		}
		if err := s.await(ctx, "a healthy stack", isHealthy); err != nil {
			return err
		}
		ours := time.Since(began)
		if err := s.stop(ctx); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "stack of 26: compose %.1f s, holdfast %.1f s\n", took.Seconds(), ours.Seconds())
		if i > 0 {
			res.compose, res.ours = append(res.compose, took), append(res.ours, ours)
		}
	}
	return nil
}

// crashLoop runs 50 services that end at once.
func (r *rig) crashLoop(ctx context.Context, res *superviseResult) error {
	var y strings.Builder
	for i := range manyServices {
		fmt.Fprintf(&y, "  crash%02d: {image: IMAGE, command: [once, --code, \"3\"], restart: always}\n", i)
	}
	s, err := r.plain(ctx, "crash", y.String())
	if err != nil {
		return err
	}
	p, err := newProxy(r.d.Host, s.dir)
	if err != nil {
		return err
	}
	defer p.close()
	if err := s.start(p.host); err != nil {
		return err
	}
	err = s.await(ctx, "50 services restarted once", func(r status.Report) bool {
		for _, s := range r.Services {
			if s.Restarts < 1 {
				return false
			}
		}
		return len(r.Services) == manyServices
	})
	if err != nil {
		return err
	}
	calls, restarts := p.counts()
	cpu := cpuOf(s.cmd.Process.Pid)
	began := time.Now()
	if err := wait(ctx, crashWindow); err != nil {
		return err
	}
	res.crashCPU = (cpuOf(s.cmd.Process.Pid) - cpu).Seconds() / time.Since(began).Seconds()
	c, n := p.counts()
	res.crashRestarts = n - restarts
	res.crashCalls = float64(c-calls) / float64(max(1, n-restarts))
	return s.stop(ctx)
}

// reaction ends 50 services one after the other and looks when the restart is
// asked for at the engine's socket.
func (r *rig) reaction(ctx context.Context, res *superviseResult) error {
	var y strings.Builder
	for i := range manyServices {
		fmt.Fprintf(&y, "  svc%02d: {image: IMAGE, command: [serve], restart: always}\n", i)
	}
	s, err := r.plain(ctx, "reaction", y.String())
	if err != nil {
		return err
	}
	p, err := newProxy(r.d.Host, s.dir)
	if err != nil {
		return err
	}
	defer p.close()
	if err := s.start(p.host); err != nil {
		return err
	}
	if err := s.await(ctx, "a healthy stack", isHealthy); err != nil {
		return err
	}
	cs, err := r.cli.Containers(ctx, s.name)
	if err != nil {
		return err
	}
	events, errs := r.cli.Events(ctx, s.name)
	for _, c := range cs {
		if err := killContainer(ctx, r.d.Host, c.ID); err != nil {
			return err
		}
		var died time.Time
		limit := time.After(patience)
		for started := false; !started; {
			select {
			case e := <-events:
				switch {
				case e.Container == c.ID && e.Action == "die":
					died = e.Time
				case e.Container == c.ID && e.Action == "start":
					started = true
				}
			case err := <-errs:
				return err
			case <-limit:
				return fmt.Errorf("waited for %s to be started again", c.Name)
			}
		}
		if at := p.started(c.ID); at.After(died) {
			res.reactions = append(res.reactions, at.Sub(died))
		}
	}
	return s.stop(ctx)
}

// steady runs 50 services with checks and scrapes the daemon.
func (r *rig) steady(ctx context.Context, res *superviseResult) error {
	var y strings.Builder
	for i := range manyServices {
		if i%2 == 0 {
			fmt.Fprintf(&y, "  svc%02d: {image: IMAGE, command: [serve], mem_limit: 32m, restart: always, healthcheck: {test: [CMD, /standin, check], interval: 30s, start_interval: 1s, start_period: 30s}}\n", i)
			continue
		}
		fmt.Fprintf(&y, "  svc%02d: {image: IMAGE, command: [serve], mem_limit: 32m, restart: always, x-holdfast: {probes: [{http: {port: 8080, path: /healthz}, interval: 15s}]}}\n", i)
	}
	s, err := r.plain(ctx, "steady", y.String())
	if err != nil {
		return err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(metricsPort))
	if err := s.start(r.d.Host, "--metrics-listen", address); err != nil {
		return err
	}
	if err := s.await(ctx, "a healthy stack", isHealthy); err != nil {
		return err
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: r.d.Dial, DisableKeepAlives: true}}
	scrape := func() (time.Duration, int, error) {
		began := time.Now()
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
		if err != nil {
			return 0, 0, err
		}
		a, err := client.Do(q)
		if err != nil {
			return 0, 0, err
		}
		defer a.Body.Close()
		b, err := io.ReadAll(a.Body)
		if a.StatusCode != http.StatusOK {
			err = fmt.Errorf("/metrics answers %s: %.200s", a.Status, b)
		}
		return time.Since(began), len(b), err
	}
	if err := wait(ctx, warmup); err != nil {
		return err
	}
	pid := s.cmd.Process.Pid
	cpu, began := cpuOf(pid), time.Now()
	tick := time.NewTicker(scrapeEvery)
	defer tick.Stop()
	for time.Since(began) < r.c.steady {
		took, size, err := scrape()
		if err != nil {
			return err
		}
		res.scrapes, res.scrapeBytes = append(res.scrapes, took), size
		res.rss = max(res.rss, rssOf(pid))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	res.steadyFor = time.Since(began)
	res.steadyCPU = (cpuOf(pid) - cpu).Seconds() / res.steadyFor.Seconds()
	return s.stop(ctx)
}

// wait lets the subject run; the time is what is measured.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// cpuOf is the processor time a process has used: fields 14 and 15 of
// /proc/PID/stat, in hundredths of a second.
func cpuOf(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// rssOf is the resident memory of a process in bytes.
func rssOf(pid int) int64 {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}
