// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
)

// Exit codes of the holdfast command. This is the one table; they are a
// contract.
const (
	// ExitOK: it was done, or the answer is good.
	ExitOK = 0
	// ExitFailed: it was not done; stderr says why and what to do next.
	ExitFailed = 1
	// ExitUsage: the command line is wrong.
	ExitUsage = 2
	// ExitNoDaemon: the daemon does not answer on its socket.
	ExitNoDaemon = 3
	// ExitNotHealthy: the stack is not healthy (status --check, or
	// wait-healthy whose time ran out).
	ExitNotHealthy = 4
	// ExitCorrupt: doctor found a block that is not what was sealed.
	ExitCorrupt = 5
	// ExitRefused: the box refuses what was asked for; nothing was changed.
	ExitRefused = 6
	// ExitRolledBack: an upgrade was tried, and the box went back.
	ExitRolledBack = 7
	// ExitInterrupted: ended by a signal (128 + SIGINT).
	ExitInterrupted = 130
)

// ExitHelp is the table for people.
const ExitHelp = `Exit codes:
  0    done, or the answer is good
  1    not done; stderr says why and what to do next
  2    the command line is wrong
  3    the daemon does not answer
  4    the stack is not healthy
  5    a block of the root is not what was sealed
  6    refused; nothing was changed
  7    it was tried and rolled back
  130  interrupted`

// codeError is an error with an exit code of its own.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string { return e.err.Error() }
func (e *codeError) Unwrap() error { return e.err }

func exit(code int, format string, args ...any) error {
	return &codeError{code, fmt.Errorf(format, args...)}
}

// Code is the exit code of an error of Execute.
func Code(err error) int {
	var c *codeError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &c):
		return c.code
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	}
	return ExitFailed
}
