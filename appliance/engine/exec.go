// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

// execOutput is how much of a command's output is kept, in bytes; the rest is
// read and dropped, or the command would hang on a full pipe.
const execOutput = 4 << 10

// ErrExecTimeout means that a command in a container did not end in time. The
// engine cannot end it: it may run on, see ExecRuns.
var ErrExecTimeout = errors.New("the command did not end in time")

// ExecResult is how a command in a container ended.
type ExecResult struct {
	// ID is the engine's, "" where the engine did not take the command.
	ID string
	// ExitCode is the command's; 126 or 127 where it cannot be run at all.
	ExitCode int
	// Output holds the first 4 KiB of what it printed.
	Output string
}

// Exec runs a command in a running container and waits for its end until ctx
// does. A command that does not end in time is ErrExecTimeout, an engine that
// does not take it ErrUnreachable, a container that is gone or does not run
// ErrNotFound.
func (d *Docker) Exec(ctx context.Context, id string, command []string) (ExecResult, error) {
	return d.ExecCommand(ctx, id, Command{Argv: command})
}

// Command is a command for a running container. What is empty is the
// container's own.
type Command struct {
	Argv []string
	// Env holds "KEY=value", on top of the container's.
	Env              []string
	User, WorkingDir string
	// Privileged gives the command every capability of the engine.
	Privileged bool
}

// ExecCommand is Exec for a command with an environment of its own.
func (d *Docker) ExecCommand(ctx context.Context, id string, c Command) (ExecResult, error) {
	var out ExecResult
	made, err := d.cli.ExecCreate(ctx, id, client.ExecCreateOptions{AttachStdout: true, AttachStderr: true,
		Cmd: c.Argv, Env: c.Env, User: c.User, WorkingDir: c.WorkingDir, Privileged: c.Privileged})
	if err != nil {
		return out, execError("exec", err)
	}
	out.ID = made.ID
	at, err := d.cli.ExecAttach(ctx, made.ID, client.ExecAttachOptions{})
	if err != nil {
		return out, execError("exec", err)
	}
	defer at.Close()
	// A hijacked connection does not end with ctx.
	defer context.AfterFunc(ctx, at.Close)()
	kept := &head{}
	_, err = stdcopy.StdCopy(kept, kept, at.Reader)
	out.Output = kept.b.String()
	if ctx.Err() != nil {
		return out, fmt.Errorf("%w (exec)", ErrExecTimeout)
	}
	if err != nil {
		return out, execError("read the output of exec", err)
	}
	out.ExitCode, err = d.execEnd(ctx, made.ID)
	return out, err
}

// execEnd waits for a command's end: it closes its output a moment before
// the engine hears that it is over.
func (d *Docker) execEnd(ctx context.Context, exec string) (code int, err error) {
	for pause := 5 * time.Millisecond; ; pause *= 2 {
		in, err := d.cli.ExecInspect(ctx, exec, client.ExecInspectOptions{})
		switch {
		case err != nil && ctx.Err() == nil:
			return 0, execError("inspect exec", err)
		case err == nil && !in.Running:
			return in.ExitCode, nil
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return 0, fmt.Errorf("%w: it closed its output and runs on", ErrExecTimeout)
		}
	}
}

// ExecRuns reports whether a command that Exec began still runs; one that the
// engine no longer knows does not.
func (d *Docker) ExecRuns(ctx context.Context, exec string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	in, err := d.cli.ExecInspect(ctx, exec, client.ExecInspectOptions{})
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil && in.Running, wrap("inspect exec", err)
}

// execError is wrap, for calls that a container may be in the wrong state for.
func execError(what string, err error) error {
	if errdefs.IsConflict(err) {
		return fmt.Errorf("%s: %w: %v", what, ErrNotFound, err)
	}
	return wrap(what, err)
}

// head keeps the first bytes that are written to it.
type head struct{ b bytes.Buffer }

func (h *head) Write(p []byte) (int, error) {
	h.b.Write(p[:min(len(p), execOutput-h.b.Len())])
	return len(p), nil
}
