// SPDX-License-Identifier: Apache-2.0

//go:build engine

// Package engine tests the supervisor against a real Docker engine: one of
// its own, with a data-root, a network and a process namespace of its own, so
// that no other engine of the machine sees it and nothing is left behind.
//
// It needs root and a tree with Debian 13's docker.io, named by
// HOLDFAST_TOOLS ("/" uses the host's own, Docker 25 or newer).
package engine

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
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/appliance/engine"
)

// initName is argv[0] of the child that becomes the engine's init.
const initName = "holdfast-engine-init"

// dockerd is a running engine.
type dockerd struct {
	cmd  *exec.Cmd
	log  *os.File
	host string
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

// startDockerd starts an engine on base, which it shares with the host under
// the same path: sockets, stacks and data lie there, and a second engine on
// the same base goes on from them.
func startDockerd(tools, base string) (*dockerd, error) {
	if _, err := os.Stat(filepath.Join(tools, "usr/sbin/dockerd")); err != nil {
		return nil, fmt.Errorf("%w: set HOLDFAST_TOOLS to a tree with Debian 13's docker.io, e.g. made by mmdebstrap --include=docker.io,iptables trixie", err)
	}
	if os.Getuid() != 0 {
		return nil, fmt.Errorf("an engine needs root: run the tests as root")
	}
	socket := filepath.Join(base, "docker.sock")
	config := filepath.Join(base, "daemon.json")
	if err := os.WriteFile(config, []byte(`{"features":{"containerd-snapshotter":true},"live-restore":false}`), 0o644); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(base, "dockerd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	cgroup := fmt.Sprintf("holdfast-qa-%d", os.Getpid())
	d := &dockerd{log: log, cgroup: cgroup, host: "unix://" + socket, done: make(chan struct{})}
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
func (d *dockerd) await() error {
	cli, err := engine.Open(d.host)
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

// tail is the end of the engine's log.
func (d *dockerd) tail() string {
	b, err := os.ReadFile(d.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-8000):])
}

// stop kills the engine's init, and with it every process it has.
func (d *dockerd) stop() {
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

// becomeInit runs in the child: it makes a root of the tools tree with a
// writable layer in memory and becomes docker-init with dockerd.
func becomeInit(args []string) error {
	tools, base, config, socket, cgroup := args[0], args[1], args[2], args[3], args[4]
	scratch := filepath.Join(base, "scratch")
	root := filepath.Join(scratch, "root")
	m := &mounter{}
	m.mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	m.mkdir(scratch)
	m.mount("tmpfs", scratch, "tmpfs", 0, "")
	for _, p := range []string{root, scratch + "/up", scratch + "/work"} {
		m.mkdir(p)
	}
	m.mount("overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s/up,workdir=%s/work", tools, scratch, scratch))
	m.mount("proc", root+"/proc", "proc", 0, "")
	m.mount("sysfs", root+"/sys", "sysfs", 0, "")
	m.mount("/sys/fs/cgroup", root+"/sys/fs/cgroup", "", syscall.MS_BIND|syscall.MS_REC, "")
	m.mount("/dev", root+"/dev", "", syscall.MS_BIND|syscall.MS_REC, "")
	m.mount("tmpfs", root+"/run", "tmpfs", 0, "")
	m.mount("tmpfs", root+"/tmp", "tmpfs", 0, "")
	m.mkdir(root + base)
	m.mount(base, root+base, "", syscall.MS_BIND, "")
	if m.err != nil {
		return m.err
	}
	// A chroot would not do: what joins a container's mount namespace (exec,
	// hence every health check) lands in the namespace's root.
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := syscall.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := syscall.Unmount(".", syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return syscall.Exec("/usr/bin/docker-init", []string{
		"docker-init", "-g", "--", "/usr/sbin/dockerd", "--config-file", config, "--data-root", base + "/docker",
		"--exec-root", "/run/docker", "--pidfile", "/run/dockerd.pid", "-H", "unix://" + socket, "--cgroup-parent", "/" + cgroup,
	}, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
}

// loopbackUp is `ip link set lo up`.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// mounter does a list of mounts and keeps the first error.
type mounter struct{ err error }

func (m *mounter) mount(source, target, fstype string, flags uintptr, data string) {
	if m.err == nil {
		if err := syscall.Mount(source, target, fstype, flags, data); err != nil {
			m.err = fmt.Errorf("mount %s at %s: %w", source, target, err)
		}
	}
}

func (m *mounter) mkdir(path string) {
	if m.err == nil {
		m.err = os.MkdirAll(path, 0o755)
	}
}
