// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast/holdfast/appliance/boot"
	"github.com/holdfast/holdfast/appliance/slot"
)

const (
	// deadline is a trial's where its record cannot be read: the default of
	// the health gate.
	deadline = 15 * time.Minute
	// grace is for the supervisor to go back in order, once it has decided to:
	// the stack has 300 s to stop.
	grace = 6 * time.Minute
	// maxRestarts of the supervisor in one trial.
	maxRestarts = 20
)

// ErrDeadline is returned by Deadline for a trial that is to be rebooted.
var ErrDeadline = errors.New("the trial has failed")

// Clock is what Expired decides by.
type Clock struct {
	// Uptime since the kernel started, Boot this boot's id.
	Uptime time.Duration
	Boot   string
	// Restarts of the supervisor in this boot.
	Restarts int
}

// Deadline is ErrDeadline where this boot is to end, nil where it may go on:
// the committed generation runs, or a trial that has time left. Where the
// record cannot be read the ESP says whether this boot is a trial. Any other
// error says nothing of a trial: a committed box must not be rebooted for it.
func Deadline(ctx context.Context, env Env) error {
	r, err := slot.Running(env.Root)
	if err != nil {
		return err
	}
	c, err := clock(env)
	if err != nil {
		return err
	}
	rec, err := slot.Load(env.Root)
	if err == nil && rec.Trial == nil && rec.Committed.RootHash == r.Hash {
		return nil
	}
	if err == nil && rec.Trial != nil && rec.Trial.RootHash == r.Hash {
		if c.Restarts, err = restarts(ctx, env); err != nil {
			env.say("how often the supervisor was restarted is not known: %v", err)
		}
		return Expired(rec, c)
	}
	if c.Uptime < deadline {
		return nil
	}
	if err == nil {
		err = slot.ErrForeignRoot
	}
	trial, terr := counted(ctx, env, r.Hash)
	switch {
	case terr != nil:
		return fmt.Errorf("%w: neither the record nor the ESP says what runs, after %s: %w; %w", ErrDeadline, c.Uptime.Round(time.Second), err, terr)
	case trial:
		return fmt.Errorf("%w: it cannot say that it is committed, after %s: %w", ErrDeadline, c.Uptime.Round(time.Second), err)
	}
	return nil
}

// Expired says whether the trial in a record, whose root runs, is past its
// time. It is pure.
func Expired(rec slot.Record, c Clock) error {
	t := rec.Trial
	limit := time.Duration(t.Deadline) * time.Second
	if limit <= 0 {
		limit = deadline
	}
	past := func(limit time.Duration, why string) error {
		if c.Uptime <= limit {
			return nil
		}
		return fmt.Errorf("%w: generation %d %s, %s after the kernel started", ErrDeadline, t.Number, why, c.Uptime.Round(time.Second))
	}
	switch {
	case !t.Reboot:
		// The committed root runs. The supervisor switches the stack back by
		// itself; this is for one that hangs.
		if t.Boot != c.Boot || t.Since == 0 || t.Kind == slot.Rollback && t.Failed == "" {
			return nil // a rollback is held, as below
		}
		return past(time.Duration(t.Since)*time.Second+limit+grace, "was neither committed nor given up")
	case t.Failed != "":
		return past(limit+grace, "failed and still runs")
	case t.Kind == slot.Rollback && t.Boot == c.Boot:
		// It has booted, and nobody goes back from a rollback: it is held.
		return nil
	case t.Kind != slot.Rollback && c.Restarts > maxRestarts:
		return fmt.Errorf("%w: generation %d has a supervisor that was restarted %d times", ErrDeadline, t.Number, c.Restarts)
	}
	return past(limit+time.Minute, "was not committed in time")
}

// counted says whether firmware counts the boots of the image that runs: then
// it is a trial, and the next boot is another's.
func counted(ctx context.Context, env Env, hash string) (bool, error) {
	esp, err := boot.Open(ctx, boot.Env{Root: env.Root})
	if err != nil {
		return false, err
	}
	list, err := esp.Entries()
	if err = errors.Join(err, esp.Close()); err != nil {
		return false, err
	}
	return trialOnly(list, hash), nil
}

// trialOnly says whether a root is booted by a spent image, and by no
// committed one; and whether there is another to go back to.
func trialOnly(list []boot.Entry, hash string) bool {
	spent, other := false, false
	for _, e := range list {
		switch {
		case e.Place != boot.Linux:
		case e.RootHash == hash && !e.Counted():
			return false
		case e.RootHash == hash && e.Spent():
			spent = true
		case !e.Counted() && e.RootHash != "":
			other = true
		}
	}
	return spent && other
}

// Emergency is for a boot that has failed: it reboots a trial, by the ESP
// alone, as state may be what failed. It says whether it did.
func Emergency(ctx context.Context, env Env) (rebooting bool, err error) {
	r, err := slot.Running(env.Root)
	if err != nil {
		return false, err
	}
	if rec, err := slot.Load(env.Root); err == nil && rec.Committed.RootHash == r.Hash {
		return false, nil // committed, whatever its image is still called
	}
	trial, err := counted(ctx, env, r.Hash)
	if err != nil || !trial {
		return false, err
	}
	env.say("this boot was a trial and has failed; going back to the committed generation")
	_, err = env.run(ctx, "systemctl", "reboot", "--force", "--no-wall")
	return err == nil, err
}

func clock(env Env) (Clock, error) {
	b, err := os.ReadFile(env.path("proc/uptime"))
	if err != nil {
		return Clock{}, err
	}
	first, _, _ := strings.Cut(string(b), " ")
	s, err := strconv.ParseFloat(first, 64)
	if err != nil || s < 0 || s > 1<<40 {
		return Clock{}, fmt.Errorf("/proc/uptime says %q", b)
	}
	id, err := bootID(env)
	return Clock{Uptime: time.Duration(s * float64(time.Second)), Boot: id}, err
}

// restarts are those of the supervisor in this boot.
func restarts(ctx context.Context, env Env) (int, error) {
	out, err := env.run(ctx, "systemctl", "show", "--property=NRestarts", "--value", "holdfast.service")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(out)))
}
