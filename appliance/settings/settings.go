// SPDX-License-Identifier: Apache-2.0

// Package settings brings a box's configuration to effect: host name, network,
// name servers, clock, proxy, TLS pair, admin access. Its input is a
// config.Effective, its output files below /run that systemd's daemons, sshd
// and the supervisor read; /etc is sealed. It also tells what became of it
// (Look), for status and console.
//
// NewPlan is pure, Apply observes, plans and acts. It is run twice at each
// boot and does no harm when it is run again: only what changed is written,
// and only whom a change concerns is reloaded. It refuses values that would
// not fit on the line they belong to; it never judges whether a configuration
// is wise.
package settings

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/appliance/config"
	"github.com/holdfast/holdfast/images/durable"
)

// Env is what comes in from outside.
type Env struct {
	// Root goes before every path; "" on a box.
	Root string
	// Run runs udevadm, systemctl and systemd-networkd-wait-online.
	Run Runner
	// Out hears one line per effect; nil means nobody.
	Out io.Writer
}

// Runner runs one command to its end and gives its standard output
// (appliance/firstboot has the real one).
type Runner interface {
	Run(ctx context.Context, argv ...string) ([]byte, error)
}

func (e Env) path(name string) string { return filepath.Join("/", e.Root, name) }

func (e Env) say(format string, args ...any) {
	if e.Out != nil {
		fmt.Fprintf(e.Out, "holdfast: "+format+"\n", args...)
	}
}

// Apply brings a configuration to effect. What fails does not keep the rest
// from being done; the error then says all of it.
func Apply(ctx context.Context, env Env, e config.Effective) error {
	if needsCards(e.Config.Network) {
		// The address goes on the first card: let the drivers come first. On
		// the way out of a limit the plan takes what there is.
		if _, err := env.Run.Run(ctx, "udevadm", "settle", "--timeout=20"); err != nil {
			env.say("looking for network cards: %v", err)
		}
	}
	p, err := NewPlan(e, Cards(env.Root))
	if err != nil {
		return err
	}
	var errs []error
	var units []string
	for _, f := range p.Files {
		if f.Unit == sshUnit && f.Data != nil {
			if err := ensureHostKey(env); err != nil {
				errs = append(errs, fmt.Errorf("admin access stays off: %w", err))
				f.Data = nil
			}
		}
		changed, err := put(env.path(f.Path), f)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !changed {
			continue
		}
		if f.Says != "" {
			env.say("%s", f.Says)
		}
		if f.Unit != "" && !slices.Contains(units, f.Unit) {
			units = append(units, f.Unit)
		}
	}
	if p.Hostname != "" {
		errs = append(errs, setHostname(env, p.Hostname))
	}
	for _, u := range units {
		_, err := env.Run.Run(ctx, tell(env, u)...)
		errs = append(errs, err)
	}
	return Join(errs...)
}

// Join is errors.Join on one line.
func Join(errs ...error) error {
	var texts []string
	for _, err := range errs {
		if err != nil {
			texts = append(texts, err.Error())
		}
	}
	if texts == nil {
		return nil
	}
	return errors.New(strings.Join(texts, "; "))
}

// WaitNetwork returns once one network card has its addresses, or with an
// error after a minute: then there is none to wait for. systemd-networkd must
// run.
func WaitNetwork(ctx context.Context, env Env) error {
	_, err := env.Run.Run(ctx, "/usr/lib/systemd/systemd-networkd-wait-online", "--any", "--timeout=60")
	if err != nil {
		return fmt.Errorf("no network card got an address within 60 s; networkctl shows each: %w", err)
	}
	return nil
}

// tell is the command that makes a unit take note of a change. Nobody waits
// for it: at boot the units start after this one has ended, and a job of
// theirs that is queued already must not be waited for. A unit that does not
// run is left alone, it will read the files when it starts.
func tell(env Env, unit string) []string {
	argv := []string{"systemctl", "--no-block"}
	if unit != sshUnit {
		return append(argv, "try-reload-or-restart", unit)
	}
	// sshd reads the keys at each login.
	if _, err := os.Lstat(env.path(keysPath)); err == nil {
		return append(argv, "start", unit)
	}
	return append(argv, "stop", unit)
}

// put makes a file as the plan has it, and says whether it was another before.
func put(name string, f File) (changed bool, err error) {
	old, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	there := err == nil
	if f.Data == nil {
		if !there {
			return false, nil
		}
		return true, os.Remove(name)
	}
	if there && bytes.Equal(old, f.Data) {
		return false, nil
	}
	if err := makeDir(filepath.Dir(name), f.DirMode()); err != nil {
		return false, err
	}
	return true, durable.WriteFile(name, f.Data, f.Mode)
}

// makeDir sets the mode of the folder itself; its parents are for all.
func makeDir(name string, mode fs.FileMode) error {
	if err := os.MkdirAll(name, 0o755); err != nil {
		return err
	}
	if mode == 0o755 {
		return nil
	}
	return os.Chmod(name, mode)
}

// setHostname sets the kernel's, which all programs ask for.
func setHostname(env Env, name string) error {
	const kernel = "/proc/sys/kernel/hostname"
	now, err := os.ReadFile(env.path(kernel))
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(now)) == name {
		return nil
	}
	f, err := os.OpenFile(env.path(kernel), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(name + "\n")
	return errors.Join(err, f.Close())
}
