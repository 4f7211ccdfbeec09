// SPDX-License-Identifier: Apache-2.0

package mend

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Runner runs one command to its end and gives its standard output;
// firstboot.Commands is the real one.
type Runner interface {
	Run(ctx context.Context, argv ...string) ([]byte, error)
}

// Systemd is the Units of a machine that runs systemd. systemctl talks to
// systemd over a socket of its own, so this works while the bus is down.
type Systemd struct{ Run Runner }

// Booted reports whether the machine below root runs systemd, as sd_booted
// does.
func Booted(root string) bool {
	st, err := os.Stat(root + "/run/systemd/system")
	return err == nil && st.IsDir()
}

// State implements Units.
func (s Systemd) State(ctx context.Context, unit string) (State, error) {
	out, err := s.Run.Run(ctx, "systemctl", "show", "--property=LoadState,ActiveState,StateChangeTimestampMonotonic", unit)
	if err != nil {
		return State{}, err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return State{}, err
	}
	return parseShow(out, time.Duration(now.Nano()))
}

// parseShow reads `systemctl show`; now is the machine's monotonic clock.
func parseShow(out []byte, now time.Duration) (State, error) {
	v := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), "="); ok {
			v[key] = value
		}
	}
	if v["LoadState"] == "" || v["ActiveState"] == "" {
		return State{}, fmt.Errorf("systemctl show says neither LoadState nor ActiveState")
	}
	if v["LoadState"] == "not-found" {
		return State{}, nil
	}
	st := State{Active: v["ActiveState"]}
	// Microseconds; 0 or nothing while the state never changed.
	if us, err := strconv.ParseInt(v["StateChangeTimestampMonotonic"], 10, 64); err == nil && us > 0 && us < int64(now/time.Microsecond) {
		st.Since = now - time.Duration(us)*time.Microsecond
	}
	return st, nil
}

// Trace implements Units: dockerd and containerd write the stacks of their
// goroutines on SIGUSR1 and go on.
func (s Systemd) Trace(ctx context.Context, unit string) error {
	_, err := s.Run.Run(ctx, "systemctl", "kill", "--kill-who=main", "--signal=SIGUSR1", unit)
	return err
}

// Restart implements Units. The kill comes first: a process that hangs would
// take systemd's whole stop timeout to end.
func (s Systemd) Restart(ctx context.Context, unit string) error {
	// No error of these counts: a unit that failed has no process, and one
	// that did not has nothing to reset.
	s.Run.Run(ctx, "systemctl", "kill", "--kill-who=main", "--signal=SIGKILL", unit)
	s.Run.Run(ctx, "systemctl", "reset-failed", unit)
	_, err := s.Run.Run(ctx, "systemctl", "restart", unit)
	return err
}
