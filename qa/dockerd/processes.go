// SPDX-License-Identifier: Apache-2.0

package dockerd

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Pids returns the processes of this engine whose name is name ("dockerd",
// "containerd", "containerd-shim"), by the numbers the tests see.
func (d *Daemon) Pids(name string) []int {
	ours, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", d.cmd.Process.Pid))
	if err != nil {
		return nil
	}
	var out []int
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		// The kernel cuts names off after 15 characters.
		if comm, err := os.ReadFile(p + "/comm"); err != nil || strings.TrimSpace(string(comm)) != name[:min(len(name), 15)] {
			continue
		}
		if ns, err := os.Readlink(p + "/ns/pid"); err != nil || ns != ours {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(p)); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// Launch starts a command in the engine's network, so that it reaches the
// containers by their addresses, as a daemon on the engine's machine does.
func (d *Daemon) Launch(cmd *exec.Cmd) error {
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", d.cmd.Process.Pid))
	if err != nil {
		return err
	}
	defer there.Close()
	done := make(chan error)
	starter() <- func() { done <- launch(cmd, int(there.Fd())) }
	return <-done
}

// launch runs on the starter's own thread, whose network it changes for the
// time of the fork.
func launch(cmd *exec.Cmd, there int) error {
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer here.Close()
	if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the engine's network: %w", err)
	}
	err = cmd.Start()
	if back := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); back != nil {
		// Every later engine would start in the wrong network.
		panic(fmt.Sprintf("leave the engine's network: %v", back))
	}
	return err
}

// Dial connects from inside the engine's network, to a container's address.
func (d *Daemon) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", d.cmd.Process.Pid))
	if err != nil {
		return nil, err
	}
	defer there.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread ends with the goroutine, and with it
		// the strange network.
		runtime.LockOSThread()
		if err = unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err == nil {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		}
	}()
	<-done
	return conn, err
}
