// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast/holdfast/appliance/firstboot"
	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/images/durable"
)

const (
	// fillRate is the most, in bytes per second, that is reckoned to be
	// written to the pool; the pool is looked at before it can be full.
	fillRate = 500 << 20
	// Bounds of the time between two looks.
	soonest, latest = time.Second, 30 * time.Second
)

// relieve keeps the thin pool from filling up because of a kept generation.
func (d *Daemon) relieve(ctx context.Context) {
	env := firstboot.Env{Root: d.c.Root, Run: d.c.Commands, Out: d.c.Console}
	note := filepath.Join(d.c.State, "upgrade", "kept-dropped")
	left := false // a volume that nothing names any more
	for {
		wait, did, err := d.look(ctx, env, note, left)
		left = did && err != nil
		if err != nil && ctx.Err() == nil {
			d.setOther("pool", []status.Condition{{Code: "pool-unknown", Severity: "warning",
				Text: "it is not known how full the pool of data is: " + err.Error(), Remedy: "journalctl -u holdfast; it is looked at again"}})
		} else if err == nil {
			d.setOther("pool", dropped(note))
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// look drops the kept generation where the pool is short, and says when to
// look again. With left it only drops what an earlier one could not.
func (d *Daemon) look(ctx context.Context, env firstboot.Env, note string, left bool) (wait time.Duration, did bool, err error) {
	rec, err := slot.Load(d.c.Root)
	if err == nil && left && rec.Trial == nil {
		return soonest, true, firstboot.Settle(ctx, env, rec)
	}
	if slot.Missing(err) || err == nil && (rec.Kept == nil || rec.Trial != nil) {
		if err == nil && rec.Trial != nil {
			// What is kept after it is another.
			if err := os.Remove(note); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return latest, false, err
			}
		}
		return latest, false, nil
	} else if err != nil {
		return latest, false, err
	}
	p, err := firstboot.Room(ctx, env, rec)
	if err != nil {
		return latest, false, err
	}
	if !p.Short() {
		return min(max(time.Duration(p.Spare()/fillRate)*time.Second, soonest), latest), false, nil
	}
	text := fmt.Sprintf("the pool of data ran short, so the kept generation %d (%s) was dropped: holdfast rollback has nothing to go back to", rec.Kept.Number, rec.Kept.Release)
	if did, err = firstboot.Relieve(ctx, env); !did {
		return soonest, false, err
	}
	d.say.line("%s", text)
	return soonest, true, errors.Join(err, durable.WriteFile(note, []byte(text+"\n"), 0o644))
}

// dropped is the condition for as long as nothing else is kept.
func dropped(note string) []status.Condition {
	text, err := os.ReadFile(note)
	if err != nil || len(text) == 0 || len(text) > 4<<10 {
		return nil
	}
	return []status.Condition{{Code: "kept-dropped", Severity: "warning", Text: string(text[:len(text)-1]),
		Remedy: "none needed; the next upgrade keeps a generation again. Where it comes back, give the box a larger disk"}}
}
