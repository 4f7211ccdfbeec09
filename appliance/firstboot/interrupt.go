// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"errors"
	"strings"

	"github.com/holdfast/holdfast/appliance/boot"
	"github.com/holdfast/holdfast/appliance/slot"
)

// Interrupt is for an orderly shutdown: where a trial runs that is undecided,
// the next boot starts it over, and this was no failed try. While the system
// is not stopping it does nothing. It says whether there was such a trial.
func Interrupt(ctx context.Context, env Env) (bool, error) {
	// The answer comes with a code other than 0 for all but "running".
	out, err := env.run(ctx, "systemctl", "is-system-running")
	if failed, ok := errors.AsType[*CommandError](err); err != nil && (!ok || failed.Code < 0) {
		return false, err
	}
	if strings.TrimSpace(string(out)) != "stopping" {
		return false, nil
	}
	return interrupt(ctx, env, func(ctx context.Context, number int) error {
		esp, err := boot.Open(ctx, boot.Env{Root: env.Root})
		if err != nil {
			return err
		}
		return errors.Join(esp.Rearm(number), esp.Close())
	})
}

// interrupt gives the image its try back before the record says so: a cut
// between them boots the trial again, which starts it over all the same. The
// other way round the image would be spent, and the trial look like one that
// hung.
func interrupt(ctx context.Context, env Env, rearm func(context.Context, int) error) (bool, error) {
	rec, err := slot.Load(env.Root)
	if err != nil || !undecided(rec) {
		return false, err
	}
	id, err := bootID(env)
	if err != nil || rec.Trial.Boot != id {
		return false, err
	}
	if rec.Trial.Reboot {
		if err := rearm(ctx, uki(rec.Trial.Generation)); err != nil {
			return false, err
		}
	}
	rec, err = slot.Update(env.Root, func(r *slot.Record) error {
		if undecided(*r) {
			r.Trial.Again = true
		}
		return nil
	})
	return err == nil && undecided(rec), err
}

func undecided(rec slot.Record) bool { return rec.Trial != nil && rec.Trial.Failed == "" }

// uki is the number in the name of a generation's kernel image.
func uki(g slot.Generation) int {
	if g.UKI > 0 {
		return g.UKI
	}
	return g.Number
}
