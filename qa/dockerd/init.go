// SPDX-License-Identifier: Apache-2.0

package dockerd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Init turns the child that Start makes into the engine's init, and returns
// at once in every other process. It comes first in TestMain.
func Init() {
	if os.Args[0] == initName {
		fmt.Fprintln(os.Stderr, becomeInit(os.Args[1:]))
		os.Exit(1)
	}
}

// becomeInit runs in the child: it makes a root of the tools tree with a
// writable layer in memory and keeps containerd and dockerd running in it, as
// systemd does on a box.
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
	return keep([][]string{
		{"/usr/bin/containerd", "--config", base + "/containerd.toml", "--root", base + "/containerd", "--state", "/run/containerd",
			"--address", containerdSocket},
		{"/usr/sbin/dockerd", "--config-file", config, "--data-root", base + "/docker", "--containerd", containerdSocket,
			"--exec-root", "/run/docker", "--pidfile", "/run/dockerd.pid", "-H", "unix://" + socket, "--cgroup-parent", "/" + cgroup},
	})
}

const containerdSocket = "/run/containerd/containerd.sock"

// keep runs programs for ever, and reaps what they leave behind. One that a
// signal ends is started again; one that ends by itself ends the engine.
func keep(programs [][]string) error {
	running := map[int][]string{}
	start := func(argv []string) error {
		pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
			Env:   []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
			Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true},
		})
		if err != nil {
			return fmt.Errorf("%s: %w", argv[0], err)
		}
		running[pid] = argv
		return nil
	}
	for _, argv := range programs {
		if err := start(argv); err != nil {
			return err
		}
	}
	for {
		var st syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &st, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait: %w", err)
		}
		argv := running[pid]
		if argv == nil {
			continue
		}
		delete(running, pid)
		if !st.Signaled() {
			return fmt.Errorf("%s ended with exit code %d", argv[0], st.ExitStatus())
		}
		if err := start(argv); err != nil {
			return err
		}
	}
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
