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
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
)

// initName is argv[0] of the child that becomes the engine's init.
const initName = "holdfast-engine-init"

// dockerd is a running engine.
type dockerd struct {
	cmd  *exec.Cmd
	log  *os.File
	host string
	done chan struct{}
}

// startDockerd starts an engine on base, which it shares with the host under
// the same path: sockets, stacks and data lie there. The calling thread must
// be locked and live on: the engine dies with it.
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
	log, err := os.Create(filepath.Join(base, "dockerd.log"))
	if err != nil {
		return nil, err
	}
	d := &dockerd{log: log, host: "unix://" + socket, done: make(chan struct{})}
	d.cmd = &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{initName, tools, base, config, socket},
		Stdout: d.log, Stderr: d.log,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
			Pdeathsig:  syscall.SIGKILL,
		},
	}
	if err := d.cmd.Start(); err != nil {
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
}

// becomeInit runs in the child: it makes a root of the tools tree with a
// writable layer in memory and becomes docker-init with dockerd.
func becomeInit(args []string) error {
	tools, base, config, socket := args[0], args[1], args[2], args[3]
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
	if out, err := exec.Command("/usr/sbin/ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	return syscall.Exec("/usr/bin/docker-init", []string{
		"docker-init", "-g", "--", "/usr/sbin/dockerd", "--config-file", config, "--data-root", base + "/docker",
		"--exec-root", "/run/docker", "--pidfile", "/run/dockerd.pid", "-H", "unix://" + socket, "--cgroup-parent", "/holdfast-qa",
	}, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
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
