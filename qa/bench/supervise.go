// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/builder/tools"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/compose/stack"
	"github.com/holdfast/holdfast/qa/dockerd"
	"github.com/holdfast/holdfast/qa/standin/image"
)

// patience bounds every wait of the supervisor's bench.
const patience = 5 * time.Minute

// rig is a Docker engine of the bench's own, with the programs.
type rig struct {
	c       config
	d       *dockerd.Daemon
	cli     *engine.Docker
	dir     string
	program string
	standin string
	compose string
	bytes   int64 // length of program
}

// benchSupervise measures the supervisor: a stack from nothing to healthy
// beside docker compose, a crash loop, how fast it reacts, and a quiet day.
func benchSupervise(ctx context.Context, c config, cache string) (missed bool, err error) {
	r, err := newRig(ctx, c, cache)
	if err != nil {
		return false, err
	}
	defer r.close()
	var s superviseResult
	s.bytes = r.bytes
	for _, part := range []struct {
		name string
		run  func(context.Context, *superviseResult) error
	}{{"nothing", r.fromNothing}, {"crash", r.crashLoop}, {"reaction", r.reaction}, {"steady", r.steady}} {
		if c.only != "" && c.only != part.name {
			continue
		}
		if err := part.run(ctx, &s); err != nil {
			return false, err
		}
	}
	if c.only != "" {
		fmt.Print(s.markdown(false))
		return false, nil
	}
	text := fmt.Sprintf("# Bench: the supervisor\n\nMade on %s by `go run ./qa/bench %s` on %s (load average at the end %s), Docker 26.1, cgroup v%d.\n\n%s",
		time.Now().UTC().Format(time.DateOnly), strings.Join(os.Args[1:], " "), cpuModel(), loadAverage(), cgroupVersion(), s.markdown(true))
	fmt.Print(text)
	return s.missed(), os.WriteFile(filepath.Join(c.root, "docs/results/bench-supervise.md"), []byte(text), 0o644)
}

func cgroupVersion() int {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return 2
	}
	return 1
}

func newRig(ctx context.Context, c config, cache string) (r *rig, err error) {
	l, err := lock.Read(filepath.Join(c.root, "build", c.name+"-"+c.version+".lock"))
	if err != nil {
		return nil, fmt.Errorf("%w: run `make image` first", err)
	}
	tree, ok := tools.Find(filepath.Join(cache, "tools"), l.Tools)
	if !ok {
		return nil, fmt.Errorf("the tools tree is not in the cache %s: run `make image` first", cache)
	}
	if err := os.Chdir(c.root); err != nil {
		return nil, err
	}
	r = &rig{c: c, compose: filepath.Join(c.root, "build/peers/docker-compose")}
	if _, err := os.Stat(r.compose); err != nil {
		return nil, fmt.Errorf("%w: run `make peers` first", err)
	}
	if r.dir, err = os.MkdirTemp("/var/tmp", "holdfast-bench-"); err != nil {
		return nil, err
	}
	half := r
	defer func() {
		if err != nil {
			half.close()
		}
	}()
	r.program, r.standin = filepath.Join(r.dir, "holdfast"), filepath.Join(r.dir, "standin")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", r.program, "./appliance/cmd/holdfast")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build holdfast: %w\n%s", err, out)
	}
	st, err := os.Stat(r.program)
	if err != nil {
		return nil, err
	}
	r.bytes = st.Size()
	if err := image.Build(r.standin); err != nil {
		return nil, err
	}
	if r.d, err = dockerd.Start(tree.Dir, r.dir); err != nil {
		return nil, err
	}
	r.cli, err = engine.Open(r.d.Host)
	return r, err
}

func (r *rig) close() {
	if r.cli != nil {
		r.cli.Close()
	}
	if r.d != nil {
		r.d.Stop()
	}
	os.RemoveAll(r.dir)
}

// subject is a stack on the rig, with a daemon that runs it or none.
type subject struct {
	r      *rig
	name   string
	dir    string
	args   []string
	client *api.Client
	cmd    *exec.Cmd
	exit   chan error
	log    *os.File
}

// plain writes a stack whose services all are the one stand-in.
func (r *rig) plain(ctx context.Context, name, services string) (*subject, error) {
	const ref = "holdfast.test/standin:1.0.0"
	set, err := image.Make(r.standin, map[string]image.Role{ref: {}})
	if err != nil {
		return nil, err
	}
	s := &subject{r: r, name: name, dir: filepath.Join(r.dir, name)}
	if err := os.MkdirAll(filepath.Join(s.dir, "stack"), 0o755); err != nil {
		return nil, err
	}
	text := "name: " + name + "\nservices:\n" + strings.ReplaceAll(services, "IMAGE", ref+"@"+set.Digests()[ref])
	if err := os.WriteFile(filepath.Join(s.dir, "stack/compose.yaml"), []byte(text), 0o644); err != nil {
		return nil, err
	}
	return s, s.load(ctx, set)
}

// sourcegraph copies the public deployment's 26 services with stand-ins, scaled
// as in the tests of that stack: what both sides wait for is the same there.
func (r *rig) sourcegraph(ctx context.Context) (*subject, error) {
	st, err := stack.Load(ctx, filepath.Join(r.c.root, "qa/sourcegraph/testdata/public/compose.yaml"), stack.Options{})
	if err != nil {
		return nil, err
	}
	s := &subject{r: r, name: st.Name, dir: filepath.Join(r.dir, st.Name)}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	set, err := image.Stack(st, r.standin, filepath.Join(s.dir, "stack"), image.RoleOf)
	if err != nil {
		return nil, err
	}
	scale := image.Scale{Memory: 16, CPU: 4, Disk: 1024, Size: "XS", Confined: image.Confined()}
	if err := scale.Apply(filepath.Join(s.dir, "stack/compose.yaml")); err != nil {
		return nil, err
	}
	return s, s.load(ctx, set)
}

func (s *subject) load(ctx context.Context, set image.Set) error {
	for ref, digest := range set.Digests() {
		s.args = append(s.args, "--images", ref+"="+digest)
	}
	return set.Load(ctx, s.dir, func(ctx context.Context, r io.Reader) error { return s.r.cli.LoadImage(ctx, r, patience) })
}

// start starts a daemon on the stack, with nothing known of it.
func (s *subject) start(host string, more ...string) error {
	for _, d := range []string{"state", "run"} {
		if err := os.RemoveAll(filepath.Join(s.dir, d)); err != nil {
			return err
		}
	}
	socket := filepath.Join(s.dir, "api.sock")
	s.client = api.NewClient(socket)
	args := append([]string{"daemon", "--engine", host, "--socket", socket, "--state", filepath.Join(s.dir, "state"),
		"--run", filepath.Join(s.dir, "run"), "--stack", filepath.Join(s.dir, "stack/compose.yaml")}, s.args...)
	var err error
	if s.log, err = os.Create(filepath.Join(s.dir, "daemon.log")); err != nil {
		return err
	}
	s.cmd = exec.Command(s.r.program, append(args, more...)...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.r.d.Launch(s.cmd); err != nil {
		return err
	}
	cmd, exit := s.cmd, make(chan error, 1)
	s.exit = exit
	go func() { exit <- cmd.Wait() }()
	return nil
}

// await follows the daemon's reports until ok.
func (s *subject) await(ctx context.Context, what string, ok func(status.Report) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("waited for "+what))
	defer cancel()
	var last status.Report
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		done := false
		err := s.client.Watch(ctx, func(r status.Report) bool { last, done = r, ok(r); return !done })
		if done {
			return nil
		}
		if ctx.Err() != nil || !errors.Is(err, api.ErrNoDaemon) {
			log, _ := os.ReadFile(s.log.Name())
			return fmt.Errorf("%s: waited for %s: %w %v\n%+v\n%s", s.name, what, err, context.Cause(ctx), last, log[max(0, len(log)-4000):])
		}
		select {
		case <-tick.C:
		case err := <-s.exit:
			log, _ := os.ReadFile(s.log.Name())
			return fmt.Errorf("%s: the daemon ended: %v\n%s", s.name, err, log)
		}
	}
}

func isHealthy(r status.Report) bool { return r.Stack == "healthy" }

// stop ends the daemon and removes all there is of the stack.
func (s *subject) stop(ctx context.Context) error {
	if s.cmd != nil {
		s.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.exit:
		case <-time.After(patience):
			return fmt.Errorf("%s: waited for the daemon to end", s.name)
		}
		s.cmd = nil
		s.log.Close()
	}
	_, err := s.composed(ctx, "down", "--volumes", "--timeout", "1", "--remove-orphans")
	return err
}

// composed runs docker compose on the stack.
func (s *subject) composed(ctx context.Context, args ...string) (time.Duration, error) {
	args = append([]string{"--project-name", s.name, "--file", filepath.Join(s.dir, "stack/compose.yaml"), "--progress", "quiet"}, args...)
	cmd := exec.CommandContext(ctx, s.r.compose, args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+s.r.d.Host)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("docker compose %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return time.Since(began), nil
}

func medianOf(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}
