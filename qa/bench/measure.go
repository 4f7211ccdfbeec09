// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/images/sign"
)

// result is all that was measured.
type result struct {
	rows  []row // the first is mkosi
	apart []row // no part of the comparison
	// steps of the cold bake, and of the one with only the stack changed.
	steps, stackSteps []stepRow
	boots             []bootSample
	took              time.Time
	cpu               string
	bytes             int64
	pkgs              int
	loaded            string
}

// stepRow is one step of the bake over all cold runs.
type stepRow struct {
	name string
	row
	bytes  int64
	cached bool
}

// Rows of result.rows and result.apart.
const (
	rowMkosi = iota
	rowCold
	rowSame
	rowStack
)

// measure runs everything; each side once before, to fill its package cache.
func measure(ctx context.Context, c config, o *ours, dir string) (*result, error) {
	r := &result{took: time.Now(), cpu: cpuModel(), rows: []row{
		rowMkosi: {name: "mkosi 25.3, cold"},
		rowCold:  {name: "Holdfast, cold", limit: 0.65},
		rowSame:  {name: "Holdfast, nothing changed", limit: 0.03},
		rowStack: {name: "Holdfast, only the stack changed", limit: 0.08},
	}, apart: []row{
		{name: "Holdfast, cold, and the tools tree made too"},
		{name: "the demo stack's own images, cold"},
	}}
	l, err := lock.Read(o.lock)
	if err != nil {
		return nil, fmt.Errorf("%w: run `make image` first", err)
	}
	r.pkgs = len(l.OS.Packages)
	if err := os.MkdirAll(o.cache(), 0o755); err != nil {
		return nil, err
	}
	if _, err := os.Stat(o.key); err != nil {
		if err := sign.MakePair(o.key, o.cert, "Holdfast bench", time.Now()); err != nil {
			return nil, err
		}
	}
	p, err := makePeer(ctx, dir, o.key, o.cert, l.OS.Wanted, o.log)
	if err != nil {
		return nil, err
	}
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	say("warming up: each side once")
	if err := p.build(ctx, false); err != nil {
		return nil, err
	}
	if _, _, err := o.bake(ctx, o.stack, o.lock); err != nil {
		return nil, err
	}
	if _, err := o.images(ctx); err != nil {
		return nil, err
	}
	for n := 1; n <= c.runs; n++ {
		say("run %d of %d", n, c.runs)
		if err := r.round(ctx, o, p, n); err != nil {
			return nil, err
		}
	}
	r.loaded = loadAverage()
	if err := r.aside(ctx, o); err != nil {
		return nil, err
	}
	if c.boots == 0 {
		return r, nil
	}
	say("booting the disk %d times", c.boots)
	r.boots, err = boots(ctx, o, c.boots)
	return r, err
}

// round measures one run of each kind.
func (r *result) round(ctx context.Context, o *ours, p *peer, n int) error {
	if err := p.clean(); err != nil {
		return err
	}
	syscall.Sync() // nobody pays for what another left unwritten
	s, err := measured(func() error { return p.build(ctx, true) })
	if err != nil {
		return err
	}
	add(&r.rows[rowMkosi], s)

	if err := o.chill("debs", "tools", "stackimage"); err != nil {
		return err
	}
	s, m, err := o.bake(ctx, o.stack, o.lock)
	if err != nil {
		return err
	}
	add(&r.rows[rowCold], s)
	for _, f := range m.Files {
		if f.Name == "disk.raw" {
			r.bytes = f.Bytes
		}
	}
	r.steps = addSteps(r.steps, m)

	if s, _, err = o.bake(ctx, o.stack, o.lock); err != nil {
		return err
	}
	add(&r.rows[rowSame], s)

	stack, locked, err := o.changedStack(ctx, n)
	if err != nil {
		return err
	}
	if s, m, err = o.bake(ctx, stack, locked); err != nil {
		return err
	}
	add(&r.rows[rowStack], s)
	r.stackSteps = addSteps(r.stackSteps, m)
	return nil
}

// aside measures once what is no part of the comparison.
func (r *result) aside(ctx context.Context, o *ours) error {
	if err := o.chill("debs", "stackimage"); err != nil {
		return err
	}
	s, _, err := o.bake(ctx, o.stack, o.lock)
	if err != nil {
		return err
	}
	add(&r.apart[0], s)
	if s, err = o.images(ctx); err != nil {
		return err
	}
	add(&r.apart[1], s)
	return nil
}

func add(r *row, s sample) { r.samples = append(r.samples, s) }

// addSteps adds one bake's steps as samples.
func addSteps(rows []stepRow, m *builder.Manifest) []stepRow {
	for _, s := range m.Steps {
		i := slices.IndexFunc(rows, func(r stepRow) bool { return r.name == s.Name })
		if i < 0 {
			i = len(rows)
			rows = append(rows, stepRow{name: s.Name})
		}
		add(&rows[i].row, sample{wall: time.Duration(s.Seconds * float64(time.Second))})
		rows[i].bytes, rows[i].cached = s.Bytes, s.Cached
	}
	return rows
}

func (r *result) missed() bool {
	for _, row := range r.rows {
		if row.missed(r.rows[rowMkosi]) {
			return true
		}
	}
	return false
}

// measured times f in this process and its children.
func measured(f func() error) (sample, error) {
	before := childTime()
	start := time.Now()
	err := f()
	return sample{wall: time.Since(start), cpu: childTime() - before}, err
}

func childTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func cpuModel() string {
	data, _ := os.ReadFile("/proc/cpuinfo") // the name is for people only
	for line := range bytes.Lines(data) {
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && strings.TrimSpace(string(name)) == "model name" {
			return fmt.Sprintf("%d x %s", runtime.NumCPU(), bytes.TrimSpace(value))
		}
	}
	return fmt.Sprintf("%d processors", runtime.NumCPU())
}

func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(data))[:3], " ")
}
