// SPDX-License-Identifier: Apache-2.0

package stackimage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Go is how Go programs are built.
type Go struct {
	// Command is the go command; "" means "go" from PATH.
	Command string
	// Source is the root folder of the module that recipes name paths in.
	Source string
	// Cache is GOCACHE; "" leaves it as the environment has it.
	Cache string
}

// maxControl bounds a package's control stanza.
const maxControl = 256 << 10

// debControl is the control stanza of a .deb file.
func debControl(ctx context.Context, file string) (string, error) {
	var out bytes.Buffer
	err := run(ctx, []string{"dpkg-deb", "--field", file}, "", nil, func(r io.Reader) error {
		b, err := readBounded(r, maxControl)
		out.Write(b)
		return err
	})
	return out.String(), err
}

// debFiles hands the uncompressed file system tar of a .deb file to use.
func debFiles(ctx context.Context, file string, use func(io.Reader) error) error {
	return run(ctx, []string{"dpkg-deb", "--fsys-tarfile", file}, "", nil, use)
}

// build makes the binary of a program at out. Everything that could make two
// hosts differ is set here: no cgo, no paths, no VCS stamp, no build ID, the
// toolchain that runs it.
func (g Go) build(ctx context.Context, p Program, out string) error {
	err := run(ctx, g.args(p, out), g.Source, g.env(os.Environ()), nil)
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("building %s: %w; install Go", p.Import, err)
	}
	if err != nil {
		return fmt.Errorf("building %s: %w", p.Import, err)
	}
	return nil
}

func (g Go) args(p Program, out string) []string {
	command := g.Command
	if command == "" {
		command = "go"
	}
	flags := []string{"-s", "-w", "-buildid="}
	for _, k := range sortedKeys(p.Set) {
		flags = append(flags, "-X", k+"="+p.Set[k])
	}
	return []string{command, "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags=" + strings.Join(flags, " "), "-o", out, p.Import}
}

func (g Go) env(host []string) []string {
	fixed := []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=", "GOEXPERIMENT=", "GODEBUG=", "GOFIPS140=off", "GOWORK=off", "GOTOOLCHAIN=local"}
	if g.Cache != "" {
		fixed = append(fixed, "GOCACHE="+g.Cache)
	}
	env := slices.DeleteFunc(slices.Clone(host), func(e string) bool {
		k, _, _ := strings.Cut(e, "=")
		return slices.ContainsFunc(fixed, func(f string) bool { return strings.HasPrefix(f, k+"=") })
	})
	return append(env, fixed...)
}

// run starts a program that dies with this process and with ctx, and hands its
// standard output to use when that is not nil. Its error carries the end of
// what the program said.
func run(ctx context.Context, args []string, dir string, env []string, use func(io.Reader) error) error {
	// The parent-death signal follows the thread that forked, so that thread
	// must live as long as the program.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// SIGINT lets the go command end the compilers it runs.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	said := &tail{}
	cmd.Stderr = said
	var useErr error
	if use == nil {
		cmd.Stdout = said
		if err := cmd.Start(); err != nil {
			return err
		}
	} else {
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		if useErr = use(pipe); useErr == nil {
			// What follows the end of a tar is padding; the program must not
			// die of a closed pipe on it.
			_, useErr = io.Copy(io.Discard, pipe)
		} else {
			pipe.Close()
		}
	}
	err := cmd.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if useErr != nil {
		return useErr
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", args[0], err, strings.TrimSpace(string(said.b)))
	}
	return nil
}

// tail keeps the last bytes written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	const most = 4 << 10
	t.b = append(t.b, p...)
	if len(t.b) > most {
		t.b = slices.Clone(t.b[len(t.b)-most:])
	}
	return len(p), nil
}
