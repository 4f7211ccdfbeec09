// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
)

// lockFile keeps Data, Adopt and Accept from working at the same time.
const lockFile = "/run/holdfast/data.lock"

// Data finds the home of the data, or makes it at the very first boot, mounts
// the data volume of the committed generation and puts its volumes where
// Docker keeps named and anonymous ones. On a box without a generation record
// it writes the first. A root that the record does not name gets no data.
// DataFile says afterwards what was done, or why nothing was.
func Data(ctx context.Context, env Env) error {
	unlock, err := lockData(env)
	if err != nil {
		return err
	}
	defer unlock()
	before, beforeErr := ReadData(env.Root)
	// The first look decides for good: what the kernel has found by now is
	// to be known by its name. What comes later starts this unit again.
	if _, err := env.run(ctx, "udevadm", "settle", "--timeout=60"); err != nil {
		env.say("devices are still being set up, going on with those there are: %v", err)
	}
	v, p, err := seek(ctx, env, false)
	if err == nil {
		err = useHome(ctx, env, v, p)
	}
	out := tell(v, p, err)
	if werr := writeDataFile(env, DataFile, out); werr != nil {
		return errors.Join(err, werr)
	}
	if err != nil {
		return err
	}
	if p.Home.Disk != nil && !sameDisk(v.Last, out) {
		// Only for a sentence to a person on the day the disk is missing.
		if err := writeDataFile(env, lastFile, out); err != nil {
			return err
		}
	}
	if beforeErr == nil && before.Held != nil {
		// The supervisor of this boot is there and holds the stack.
		_, err := env.run(ctx, "systemctl", "restart", "--no-block", "holdfast.service")
		return err
	}
	return nil
}

func sameDisk(last *status.DataDisk, now status.DataDisk) bool {
	return last != nil && last.Disk != nil && *last.Disk == *now.Disk
}

// seek observes and acts until the home is there and active. The plan it gives
// has no steps left; the view is the last one, also with an error.
func seek(ctx context.Context, env Env, asked bool) (View, Plan, error) {
	last := ""
	for range rounds {
		v, err := observeHome(ctx, env, asked)
		if err != nil {
			return v, Plan{}, err
		}
		p, err := PlanHome(v)
		if err != nil || len(p.Steps) == 0 {
			return v, p, err
		}
		if err := env.act(ctx, p.Steps); err != nil {
			return v, Plan{}, fmt.Errorf("the data is not ready: %w", err)
		}
		last = p.Steps[len(p.Steps)-1].String()
	}
	return View{}, Plan{}, unrest("the data", "holdfast-data", last)
}

// observeHome looks at all that PlanHome decides by.
func observeHome(ctx context.Context, env Env, asked bool) (View, error) {
	v := View{Asked: asked}
	var err error
	if v.Running, err = slot.Running(env.Root); err != nil {
		return v, err
	}
	rec, err := slot.Load(env.Root)
	switch {
	case err == nil:
		_, trial, err := slot.Choose(rec, v.Running)
		if err != nil {
			return v, err
		}
		if v.Record = &rec; trial {
			v.Trial = rec.Trial
			if v.Boot, err = bootID(env); err != nil {
				return v, err
			}
		}
	case !slot.Missing(err):
		return v, err
	}
	if v.Box, err = readID(env.path(etcID)); err != nil {
		return v, err
	}
	state, err := observeState(ctx, env)
	if err != nil {
		return v, err
	}
	if state.Group == nil {
		return v, fmt.Errorf("partition %s (state) has no volume group; see systemctl status holdfast-storage", state.Name)
	}
	v.System = *state.Group
	if v.Disks, err = observeDisks(ctx, env, v.Running); err != nil {
		return v, err
	}
	if env.Wish != nil {
		v.Wish = env.Wish()
	}
	if d := v.Wish.Disk; d != "" && d != wishAuto && d != wishNone {
		if v.Named, err = resolve(env, d); err != nil {
			v.NamedError = err.Error()
		}
	}
	if last, err := readDataFile(env.path(lastFile)); err == nil {
		v.Last = &last
	}
	v.NewPV, err = newPV(rand.Reader)
	return v, err
}

// useHome writes down and mounts a home that is ready.
func useHome(ctx context.Context, env Env, v View, p Plan) error {
	if err := makeFolder(env.path("/var/lib/holdfast"), 0o755); err != nil {
		return err
	}
	if p.Record != nil {
		// The record is written before data is mounted: a cut between them
		// leaves a record of data that was not used, never data without one.
		if err := saveRecord(env, v.Record != nil, *p.Record); err != nil {
			return err
		}
	}
	if p.Home.Disk != nil {
		// State may have the room that data does not need now.
		if err := Storage(ctx, env); err != nil {
			return err
		}
	}
	return mountData(ctx, env, device(p.Home.Group.Name, p.Home.Volume))
}

// saveRecord writes a record in the place of the one that was read, or the
// first one.
func saveRecord(env Env, there bool, rec slot.Record) error {
	if !there {
		return slot.Save(env.Root, rec)
	}
	_, err := slot.Update(env.Root, func(now *slot.Record) error { *now = rec; return nil })
	return err
}

// mountData mounts a volume as the data, and what belongs to it.
func mountData(ctx context.Context, env Env, dev string) error {
	m := Mounts{Data: dev}
	var err error
	if m.Mounted, err = mounted(env); err != nil {
		return err
	}
	if m.Engine, err = engine(env); err != nil {
		return err
	}
	if m.Mounted[dataPlace] {
		to, err := os.Readlink(env.path(volumesNotes))
		m.Linked = err == nil && to == volumesKept
	}
	for _, place := range []struct{ dev, place string }{{device(group, stateName), "/var"}, {m.Data, dataPlace}} {
		short, err := shorter(env, place.dev)
		if err != nil {
			return err
		}
		if short {
			m.Grown = append(m.Grown, place.place)
		}
	}
	return env.act(ctx, PlanData(m))
}

// tell is what DataFile says.
func tell(v View, p Plan, err error) status.DataDisk {
	out := status.DataDisk{Conditions: []status.Condition{}, Others: v.others(p.Home)}
	if err == nil {
		d := p.Home.describe()
		d.Others, d.Conditions = out.Others, v.notes(p.Home)
		return d
	}
	held, ok := errors.AsType[*Held](err)
	if !ok {
		held = &Held{status.Condition{Code: "data-failed", Severity: "critical", Text: err.Error(),
			Remedy: "journalctl -u holdfast-data; mend the cause, then " + retry}}
	}
	out.Held = &held.Condition
	return out
}

// Adopt makes the data disk that holds the stack this box's own, and gives a
// sentence about it. Mounting it is Data's; the caller starts its unit.
func Adopt(ctx context.Context, env Env) (string, error) {
	unlock, err := lockData(env)
	if err != nil {
		return "", err
	}
	defer unlock()
	now, err := ReadData(env.Root)
	switch {
	case err != nil:
		return "", fmt.Errorf("%w; systemctl status holdfast-data", err)
	case now.Held == nil:
		return "", fmt.Errorf("nothing is to be adopted: the data of this box is in use on the %s", now.Place)
	}
	_, p, err := seek(ctx, env, true)
	if held, ok := errors.AsType[*Held](err); ok {
		return "", fmt.Errorf("%s; %s", held.Text, held.Remedy)
	}
	if err != nil {
		return "", err
	}
	if p.Home.Disk == nil {
		return "", errors.New("nothing is to be adopted: no disk with volumes of Holdfast is attached")
	}
	return fmt.Sprintf("the data disk %s belongs to this box now, at generation %d", p.Home.Disk, p.Home.Label.Generation), nil
}

// StartData starts the unit that mounts the data, after Adopt.
func StartData(ctx context.Context, env Env) error {
	_, err := env.run(ctx, "systemctl", "start", "holdfast-data.service")
	return err
}

// lockData waits until no other of these works.
func lockData(env Env) (unlock func(), err error) {
	name := env.path(lockFile)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return func() { f.Close() }, nil
}
