// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Commands runs the box's own programs: a fixed environment, no input.
type Commands struct{}

// Run implements Runner.
func (Commands) Run(ctx context.Context, argv ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin", "LC_ALL=C", "LVM_SUPPRESS_FD_WARNINGS=1"}
	var out, text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &text
	err := cmd.Run()
	if err == nil {
		return out.Bytes(), nil
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.Bytes(), &CommandError{Argv: argv, Code: exit.ExitCode(), Text: text.String()}
	}
	return nil, &CommandError{Argv: argv, Code: -1, Text: err.Error()}
}

// Pipe runs a command with an input, and has read take its standard output
// while it comes; what read leaves is thrown away. It ends with ctx, and with
// this process. The error is read's, with a
// *CommandError where the command failed as well.
func (Commands) Pipe(ctx context.Context, input []byte, read func(io.Reader) error, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin", "LC_ALL=C"}
	cmd.Stdin = bytes.NewReader(input)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.WaitDelay = pipeDelay
	text := &lastWords{}
	cmd.Stderr = text
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return &CommandError{Argv: argv, Code: -1, Text: err.Error()}
	}
	told := read(out)
	io.Copy(io.Discard, out)
	err = cmd.Wait()
	if err == nil {
		return told
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return errors.Join(told, &CommandError{Argv: argv, Code: exit.ExitCode(), Text: text.String()})
	}
	return errors.Join(told, &CommandError{Argv: argv, Code: -1, Text: err.Error()})
}

const (
	// pipeDelay is how long a command's children may hold its output open
	// after it ended.
	pipeDelay = 10 * time.Second
	// maxWords bounds what is kept of its standard error, in bytes.
	maxWords = 4 << 10
)

// lastWords keeps the end of what is written to it.
type lastWords struct{ b []byte }

func (t *lastWords) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if n := len(t.b) - maxWords; n > 0 {
		t.b = append([]byte(nil), t.b[n:]...)
	}
	return len(p), nil
}

func (t *lastWords) String() string { return strings.ToValidUTF8(string(t.b), "") }
