// SPDX-License-Identifier: Apache-2.0

// Package sandbox runs one program in mount, process and IPC namespaces of its
// own, optionally with another root: whatever it mounts or starts is gone when
// it ends, and when this process is killed the kernel ends it at once. It is
// no security boundary; it keeps the host as it was.
//
// Go cannot set up mounts between fork and exec, so the running program starts
// itself once more as the first process of the namespaces: Child must be the
// first call in main of every program (and TestMain of every test) that uses
// Run.
package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

// Bind makes the host's path Host visible at Tree below the new root; a file
// may be bound on a file, a folder on a folder, missing ones are made in the
// namespace's own tmpfs only below /run, /tmp and /work.
type Bind struct {
	Host, Tree string
	ReadOnly   bool
}

// Cmd is one run.
type Cmd struct {
	// Args is the program, looked up in PATH of Env, and its arguments.
	Args []string
	// Env is the whole environment.
	Env []string
	// Dir is the working folder inside the new root; empty means "/".
	Dir string
	// Root is the new root's folder; empty means the host's root.
	Root  string
	Binds []Bind
	Stdin io.Reader
	// Stdout and Stderr may be nil.
	Stdout, Stderr io.Writer
}

// ExitError is a program that ran and failed.
type ExitError struct {
	Program string
	Code    int
	// Tail is the end of its standard error when Cmd.Stderr was nil.
	Tail string
}

func (e *ExitError) Error() string {
	s := fmt.Sprintf("%s ended with status %d", e.Program, e.Code)
	if e.Tail != "" {
		s += ": " + e.Tail
	}
	return s
}

const childName = "holdfast-sandbox-child"

// spec is what the child reads from file descriptor 3.
type spec struct {
	Args, Env []string
	Dir, Root string
	Binds     []Bind
}

// setupFailed is the child's status when the namespace could not be set up; it
// prints why as its last line.
const setupFailed = 125

// Run runs c and waits. When ctx ends, the program and all it started are
// killed.
func Run(ctx context.Context, c Cmd) error {
	if len(c.Args) == 0 {
		return errors.New("sandbox: nothing to run")
	}
	if os.Geteuid() != 0 {
		return errors.New("this needs root: run as root or with sudo")
	}
	b, err := json.Marshal(spec{c.Args, c.Env, c.Dir, c.Root, c.Binds})
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{childName}
	cmd.Env = []string{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	var tail tailWriter
	if cmd.Stderr == nil {
		cmd.Stderr = &tail
	}
	cmd.ExtraFiles = []*os.File{r}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
		// A Ctrl-C is for whoever runs the bake, which then ends this one.
		Setpgid: true,
	}
	// The death signal is bound to the thread that forks: keep it for as long
	// as the child lives.
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			w.Close()
			done <- err
			return
		}
		_, werr := w.Write(b)
		w.Close()
		err := cmd.Wait()
		if err == nil {
			err = werr
		}
		done <- err
	}()
	err = <-done
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		return &ExitError{Program: c.Args[0], Code: ee.ExitCode(), Tail: tail.String()}
	}
	return err
}

// tailWriter keeps the last 4 KiB of what is written.
type tailWriter struct{ b []byte }

func (t *tailWriter) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > 8192 {
		t.b = append(t.b[:0], t.b[len(t.b)-4096:]...)
	}
	return len(p), nil
}

func (t *tailWriter) String() string {
	l := strings.Split(strings.TrimSpace(string(t.b)), "\n")
	return strings.Join(l[max(0, len(l)-8):], "\n")
}
