// SPDX-License-Identifier: Apache-2.0

// Package setup makes a checkout ready to bake: the Debian packages the host
// lacks, a Packer that is new enough, and the project's own programs with the
// plugin installed for this checkout only. Everything is done once; a second
// run only looks. It changes nothing of the host but the Debian packages it
// names, and refuses to install those without root.
package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Options of a set-up.
type Options struct {
	// Dir is the root of the checkout.
	Dir string
	// Cache is where the built Packer is kept, for all checkouts.
	Cache string
	// Out hears what is being done.
	Out io.Writer
}

// Run sets up everything a bake needs.
func Run(ctx context.Context, o Options) error {
	mod, err := os.ReadFile(filepath.Join(o.Dir, "go.mod"))
	if err != nil || !strings.HasPrefix(string(mod), "module github.com/holdfast/holdfast\n") {
		return errors.New("this is not the root of a Holdfast checkout: change to the folder with Makefile and go.mod")
	}
	unlock, err := lock(filepath.Join(o.Dir, "build"))
	if err != nil {
		return err
	}
	defer unlock()
	for _, step := range []struct {
		name string
		run  func(context.Context, Options) error
	}{
		{"Debian packages of the host", hostPackages},
		{"Packer", packer},
		{"programs", programs},
		{"plugin", plugin},
	} {
		if err := step.run(ctx, o); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// bin is a path in the checkout's folder of programs.
func (o Options) bin(name string) string { return filepath.Join(o.Dir, "build", "bin", name) }

func (o Options) say(format string, args ...any) { fmt.Fprintf(o.Out, format+"\n", args...) }

// lock makes a second set-up of this checkout wait for the first.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}
