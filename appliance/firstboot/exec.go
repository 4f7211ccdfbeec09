// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
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
