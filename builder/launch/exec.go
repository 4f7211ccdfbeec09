// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// runTool runs a short program of the tools tree to its end.
func runTool(ctx context.Context, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(argv[3]), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// process is a running QEMU.
type process struct {
	// ended is closed when it is over; err is then why.
	ended chan struct{}
	err   error
	kill  func()
}

// startQEMU starts argv with file descriptor 3 as the machine protocol and its
// console and messages going to console. It has a process group of its own,
// because Ctrl-C is ours to turn into an orderly power-off, and dies with this
// process.
func startQEMU(tree string, argv []string, qmp *os.File, console, messages io.Writer) (*process, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "QEMU_MODULE_DIR="+filepath.Join(tree, "usr/lib/x86_64-linux-gnu/qemu"))
	cmd.ExtraFiles = []*os.File{qmp}
	cmd.Stdout, cmd.Stderr = console, messages
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &process{ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The death signal follows the thread that forks: it must live on.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.kill = func() { cmd.Process.Kill() }
		started <- nil
		p.err = cmd.Wait()
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}
