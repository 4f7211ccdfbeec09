// SPDX-License-Identifier: Apache-2.0

// Package dockerd starts a real Docker engine for tests: one of its own, with
// a data-root, a network and a process namespace of its own, so that no other
// engine of the machine sees it and nothing is left behind. It also builds the
// image that such tests run.
//
// It takes a tree with Debian 13's docker.io ("/" is the host's own, Docker 25
// or newer) and needs root. It refuses to start without either. A test's
// TestMain calls Init first.
package dockerd

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
)

// started counts the engines of this process.
var started atomic.Int32

// initName is argv[0] of the child that becomes the engine's init.
const initName = "holdfast-engine-init"

// Daemon is a running engine.
type Daemon struct {
	cmd *exec.Cmd
	log *os.File
	// Host is the engine's address, unix:///path/to/docker.sock.
	Host string
	// cgroup is the parent of the containers' groups, in every hierarchy.
	cgroup string
	done   chan struct{}
}

// starter is the thread that makes engines: one dies with the thread that
// made it, and a test's may end with the test.
var starter = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// Start starts an engine on base, which it shares with the host under
// the same path: sockets, stacks and data lie there, and a second engine on
// the same base goes on from them.
func Start(tools, base string) (*Daemon, error) {
	if _, err := os.Stat(filepath.Join(tools, "usr/sbin/dockerd")); err != nil {
		return nil, fmt.Errorf("%w: set HOLDFAST_TOOLS to a tree with Debian 13's docker.io, e.g. made by mmdebstrap --include=docker.io,iptables trixie", err)
	}
	if os.Getuid() != 0 {
		return nil, fmt.Errorf("an engine needs root: run the tests as root")
	}
	socket := filepath.Join(base, "docker.sock")
	config := filepath.Join(base, "daemon.json")
	if err := os.WriteFile(config, []byte(`{"features":{"containerd-snapshotter":true},"live-restore":true}`), 0o644); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(base, "containerd.toml"), []byte(`version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[plugins."io.containerd.internal.v1.opt"]
  path = "`+base+`/containerd/opt"
`), 0o644); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(base, "dockerd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	cgroup := fmt.Sprintf("holdfast-qa-%d-%d", os.Getpid(), started.Add(1))
	d := &Daemon{log: log, cgroup: cgroup, Host: "unix://" + socket, done: make(chan struct{})}
	d.cmd = &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{initName, tools, base, config, socket, cgroup},
		Stdout: d.log, Stderr: d.log,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
			Pdeathsig:  syscall.SIGKILL,
		},
	}
	started := make(chan error)
	starter() <- func() { started <- d.cmd.Start() }
	if err := <-started; err != nil {
		return nil, err
	}
	go func() { d.cmd.Wait(); close(d.done) }()
	return d, d.await()
}

// await waits until the engine answers.
func (d *Daemon) await() error {
	cli, err := engine.Open(d.Host)
	if err != nil {
		return err
	}
	defer cli.Close()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if err = cli.Ping(context.Background()); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-d.done:
			return fmt.Errorf("dockerd ended:\n%s", d.tail())
		case <-deadline.C:
			return fmt.Errorf("dockerd did not answer in 2 min (%v):\n%s", err, d.tail())
		}
	}
}

// Cgroup is the parent of the containers' control groups, in every hierarchy
// below /sys/fs/cgroup. Docker makes it with the first container.
func (d *Daemon) Cgroup() string { return d.cgroup }

// Log is the path of the engine's log.
func (d *Daemon) Log() string { return d.log.Name() }

// tail is the end of the engine's log.
func (d *Daemon) tail() string {
	b, err := os.ReadFile(d.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-8000):])
}

// Stop kills the engine's init, and with it every process it has.
func (d *Daemon) Stop() {
	d.cmd.Process.Kill()
	<-d.done
	d.log.Close()
	// Killed at once, nobody removed the containers' groups: version 2 has
	// one hierarchy, version 1 several.
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		dirs, _ := filepath.Glob(pattern + d.cgroup)
		for _, dir := range dirs {
			removeGroups(dir)
		}
	}
}

// removeGroups removes a control group and those in it, innermost first.
func removeGroups(dir string) {
	var dirs []string
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, d := range slices.Backward(dirs) {
		os.Remove(d)
	}
}
