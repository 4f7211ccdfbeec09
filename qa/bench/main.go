// SPDX-License-Identifier: Apache-2.0

// Command bench measures bakes beside mkosi on this host, and the first boot
// of the baked disk, and writes the result as a table. Both sides start from
// the same Debian packages, already downloaded, and end with a disk that boots
// a signed kernel image into a verity root; nothing else is cached in the cold
// rows. Runs of both sides take turns, so that a busy host is unfair to both.
//
// It needs root and the products of `make image`. Exit status 1 means that it
// could not measure, 2 that a limit was missed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/sandbox"
	"github.com/holdfast/holdfast/builder/tools"
	"github.com/holdfast/holdfast/qa/dockerd"
)

// config is what the command line says.
type config struct {
	runs    int
	out     string
	root    string
	name    string
	version string
	boots   int
	targets bool
	verbose bool
	// supervise measures the supervisor, its steady state for so long.
	supervise bool
	steady    time.Duration
	only      string
	// upgrade counts the bytes of upgrades, archive keeps their packages.
	upgrade bool
	archive string
}

func main() {
	sandbox.Child()
	dockerd.Init()
	prepareChild()
	var c config
	flag.IntVar(&c.runs, "n", 3, "runs of each kind; the table shows medians")
	flag.StringVar(&c.out, "o", "docs/results/bench.md", "the file to write")
	flag.StringVar(&c.root, "C", ".", "the root of the checkout")
	flag.StringVar(&c.name, "name", "demo", "name of the release to bake")
	flag.StringVar(&c.version, "version", "1.0.0", "version of the release to bake")
	flag.IntVar(&c.boots, "boots", 3, "first boots to measure; 0 for none")
	flag.BoolVar(&c.targets, "targets", false, "measure the target formats instead, into docs/results/bench-targets.md")
	flag.BoolVar(&c.supervise, "supervise", false, "measure the supervisor instead, into docs/results/bench-supervise.md")
	flag.DurationVar(&c.steady, "steady", 10*time.Minute, "with -supervise: how long to watch the steady state")
	flag.StringVar(&c.only, "only", "", "with -supervise: one part (nothing, crash, reaction or steady), printed and not written")
	flag.BoolVar(&c.upgrade, "upgrade", false, "count the bytes of upgrades instead, into docs/results/bench-upgrade.md")
	flag.StringVar(&c.archive, "archive", "", "with -upgrade: the folder that the packages are kept in (default in the cache)")
	flag.BoolVar(&c.verbose, "v", false, "show what mkosi and Packer print")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	missed, err := bench(ctx, c)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if missed {
		os.Exit(2)
	}
}

func bench(ctx context.Context, c config) (missed bool, err error) {
	if os.Geteuid() != 0 {
		return false, fmt.Errorf("bakes need root: run as root or with sudo")
	}
	if c.root, err = filepath.Abs(c.root); err != nil {
		return false, err
	}
	cache, err := builder.CacheDir()
	if err != nil {
		return false, err
	}
	dir := filepath.Join(cache, "bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	unlock, err := tools.Lock(filepath.Join(dir, ".lock")) // two at once would measure each other
	if err != nil {
		return false, err
	}
	defer unlock()
	switch {
	case c.targets:
		return benchTargets(ctx, c, cache, dir)
	case c.upgrade:
		return benchUpgrade(ctx, c, cache, dir)
	case c.supervise:
		return benchSupervise(ctx, c, cache)
	}
	log := io.Discard
	if c.verbose {
		log = os.Stderr
	}
	release := c.name + "-" + c.version
	o := &ours{
		root: c.root, dir: filepath.Join(dir, "holdfast"), name: c.name, version: c.version, log: log,
		lock: filepath.Join(c.root, "build", release+".lock"), layout: filepath.Join(c.root, "build", release+".images"),
		stack: filepath.Join(c.root, "compose/stacks/demo", c.version, "compose.yaml"),
	}
	o.key, o.cert = filepath.Join(o.dir, "key.pem"), filepath.Join(o.dir, "cert.pem")
	r, err := measure(ctx, c, o, dir)
	if err != nil {
		return false, err
	}
	text := r.markdown(c)
	if err := os.MkdirAll(filepath.Dir(filepath.Join(c.root, c.out)), 0o755); err != nil {
		return false, err
	}
	fmt.Print(text)
	return r.missed(), os.WriteFile(filepath.Join(c.root, c.out), []byte(text), 0o644)
}
