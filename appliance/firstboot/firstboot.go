// SPDX-License-Identifier: Apache-2.0

// Package firstboot makes a box's state at first boot and finds it again at
// every later one: the LVM thin pool and file systems on the state partition
// (Storage), the mounts of the committed generation's data (Data), the
// factory partition (Factory) and the machine's identity (Identity). Data also
// decides where the data lives, on the system disk or on a disk of its own,
// and keeps that disk's label; Accept holds a release to the label. In a boot
// that is a trial the data is a fresh snapshot; Switch does the same without a
// boot, Settle what follows from a commit or a way back, Relieve keeps the
// thin pool from filling up. Deadline and Emergency say when a trial is to be
// rebooted.
//
// Each observes, decides with a pure function and acts; Storage and Data do so
// over and over until there is nothing left to do. The power may fail between any
// two steps: the next boot observes what is there and goes on. It refuses to touch a
// partition or disk that holds anything it did not make, activates nothing of
// another box's, and never formats a volume that was ever mounted.
package firstboot

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Env is what comes in from outside.
type Env struct {
	// Root goes before every path; "" on a box.
	Root string
	// Run runs commands; nil means Commands{}, the real ones.
	Run Runner
	// Out hears one line per act; nil means nobody.
	Out io.Writer
	// Wish reads what the configuration says about the data disk; nil means
	// that it says nothing.
	Wish func() Wish
}

// Runner runs one command to its end and gives its standard output. A command
// that ends with a code other than 0 gives a *CommandError.
type Runner interface {
	Run(ctx context.Context, argv ...string) ([]byte, error)
}

// CommandError is a command that failed.
type CommandError struct {
	Argv []string
	// Code is the exit code, -1 when it did not start or was killed.
	Code int
	// Text is what it wrote to standard error, or why it did not start.
	Text string
}

func (e *CommandError) Error() string {
	text := strings.Join(strings.Fields(e.Text), " ")
	if text == "" {
		text = fmt.Sprintf("exit code %d", e.Code)
	}
	return fmt.Sprintf("%s: %s", strings.Join(e.Argv, " "), text)
}

func (e Env) path(name string) string { return filepath.Join("/", e.Root, name) }

func (e Env) run(ctx context.Context, argv ...string) ([]byte, error) {
	if e.Run == nil {
		return Commands{}.Run(ctx, argv...)
	}
	return e.Run.Run(ctx, argv...)
}

func (e Env) say(format string, args ...any) {
	if e.Out != nil {
		fmt.Fprintf(e.Out, "holdfast: "+format+"\n", args...)
	}
}

// Step is one act of a plan.
type Step struct {
	// Text says what it does, for the console.
	Text string
	// Folder is made with Mode where it is not empty; else Argv is run.
	Folder string
	Mode   os.FileMode
	Argv   []string
}

// String is the step as tests and logs show it.
func (s Step) String() string {
	if s.Folder != "" {
		return fmt.Sprintf("mkdir %04o %s", s.Mode, s.Folder)
	}
	return strings.Join(s.Argv, " ")
}

func (e Env) act(ctx context.Context, steps []Step) error {
	for _, s := range steps {
		if s.Text != "" {
			e.say("%s", s.Text)
		}
		if s.Folder != "" {
			if err := makeFolder(e.path(s.Folder), s.Mode); err != nil {
				return err
			}
			continue
		}
		if _, err := e.run(ctx, s.Argv...); err != nil {
			return err
		}
	}
	return nil
}

// makeFolder sets the mode again on a folder that a crash left half made.
func makeFolder(name string, mode os.FileMode) error {
	if err := os.MkdirAll(name, mode); err != nil {
		return err
	}
	return os.Chmod(name, mode)
}

// size writes bytes for people.
func size(bytes int64) string {
	if bytes >= 10<<30 {
		return fmt.Sprintf("%d GiB", bytes>>30)
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}
