// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
)

// dockerUnits are the engine's.
var dockerUnits = []string{"docker.socket", "docker.service"}

// Switch unmounts the data and mounts that of the generation that the record
// says shall run: the trial's where it needs no boot and has not failed, as a
// fresh snapshot of its origin, else the committed one's. The label follows.
// A snapshot of this boot is used as it is. A container that runs makes it
// fail. On the way to a trial on a copy of what is mounted the engine goes on, as
// it finds the same volumes; else, and on the way back, it is restarted, as it
// knows others. The record is the caller's to write.
func Switch(ctx context.Context, env Env, rec slot.Record) error {
	unlock, err := lockData(env)
	if err != nil {
		return err
	}
	defer unlock()
	var t *slot.Trial
	if rec.Trial != nil && !rec.Trial.Reboot && rec.Trial.Failed == "" {
		t = rec.Trial
	}
	boot, err := bootID(env)
	if err != nil {
		return err
	}
	d, where, err := atBoot(env)
	if err != nil {
		return err
	}
	want := rec.Committed.Data
	if t != nil {
		want = t.Data
	}
	now, err := mountedVolume(env, d.Group)
	if err != nil {
		return err
	}
	if now != want || d.Volume != want {
		// Before anything of the volumes changes: a cut from here on is a
		// boot into the committed generation.
		if err := away(ctx, env, t == nil || t.Origin != now); err != nil {
			return err
		}
	}
	g, err := settle(ctx, env, d, func(g Group) ([]Step, error) {
		steps, _, err := PlanSwitch(g, rec.Committed, t, boot, where)
		return steps, err
	})
	if err != nil {
		return err
	}
	if err := mountData(ctx, env, device(g.Name, want)); err != nil {
		return err
	}
	d.Volume, d.Mapper = want, mapperName(g.Name, want)
	if l, err := ParseLabel(g.Tags); err == nil {
		d.Label = l.describe()
	}
	if err := writeDataFile(env, DataFile, d); err != nil {
		return err
	}
	_, err = env.run(ctx, append([]string{"systemctl", "start"}, dockerUnits...)...)
	return err
}

// away unmounts the data; with stop, or where it is in use, without the engine.
func away(ctx context.Context, env Env, stop bool) error {
	at, err := mounted(env)
	if err != nil || !at[dataPlace] && !at[volumesPlace] {
		return err
	}
	if !stop {
		err := unmount(ctx, env, at)
		if _, busy := errors.AsType[*CommandError](err); !busy {
			return err
		}
		if at, err = mounted(env); err != nil {
			return err
		}
	}
	if _, err := env.run(ctx, append([]string{"systemctl", "stop"}, dockerUnits...)...); err != nil {
		return err
	}
	if err := unmount(ctx, env, at); err != nil {
		return fmt.Errorf("the data is in use and cannot be switched: %w", err)
	}
	return nil
}

func unmount(ctx context.Context, env Env, at map[string]bool) error {
	for _, place := range []string{volumesPlace, dataPlace} {
		if !at[place] {
			continue
		}
		if _, err := env.run(ctx, "umount", place); err != nil {
			return err
		}
	}
	return nil
}

// Settle sets the label to the committed generation and drops the volumes of
// data that the record does not name. It fails while the record has a trial.
func Settle(ctx context.Context, env Env, rec slot.Record) error {
	unlock, err := lockData(env)
	if err != nil {
		return err
	}
	defer unlock()
	d, where, err := atBoot(env)
	if err != nil {
		return err
	}
	now, err := mountedVolume(env, d.Group)
	if err != nil {
		return err
	}
	g, err := settle(ctx, env, d, func(g Group) ([]Step, error) { return PlanSettle(g, rec, now, where) })
	if err != nil {
		return err
	}
	l, err := ParseLabel(g.Tags)
	if err != nil {
		return err
	}
	d.Label = l.describe()
	return writeDataFile(env, DataFile, d)
}

// settle observes the group of the data and acts, until a plan has no steps.
func settle(ctx context.Context, env Env, d status.DataDisk, plan func(Group) ([]Step, error)) (Group, error) {
	last := ""
	for range rounds {
		dev, err := observeDevice(ctx, env, filepath.Base(d.Device), d.Group)
		if err != nil {
			return Group{}, err
		}
		if dev.Group == nil || dev.Group.Broken != "" || dev.Group.ID != d.GroupID {
			return Group{}, fmt.Errorf("volume group %s on %s is not what it was at boot; systemctl status holdfast-data", d.Group, d.Device)
		}
		steps, err := plan(*dev.Group)
		if err != nil || len(steps) == 0 {
			return *dev.Group, err
		}
		if err := env.act(ctx, steps); err != nil {
			return Group{}, err
		}
		last = steps[len(steps)-1].String()
	}
	return Group{}, unrest("the data", "holdfast", last)
}

// atBoot is what Data put in use at this boot, and how to speak of it.
func atBoot(env Env) (d status.DataDisk, where string, err error) {
	if d, err = ReadData(env.Root); err != nil {
		return d, "", err
	}
	if d.Held != nil {
		return d, "", &Held{*d.Held}
	}
	if where = "the system disk"; d.Place == onDisk {
		where = "the data disk " + d.Device
	}
	return d, where, nil
}

// Mounted is the volume of the home of the data that is mounted as the data,
// "data-N"; "" for none.
func Mounted(env Env) (string, error) {
	d, _, err := atBoot(env)
	if err != nil {
		return "", err
	}
	return mountedVolume(env, d.Group)
}

func mountedVolume(env Env, group string) (string, error) {
	m, err := readMounts(env.path("proc/self/mountinfo"))
	if err != nil {
		return "", err
	}
	at, ok := m[dataPlace]
	if !ok {
		return "", nil
	}
	b, err := os.ReadFile(env.path("sys/dev/block/" + at.dev + "/dm/name"))
	if err != nil {
		return "", fmt.Errorf("%s is device %s, no logical volume: %w", dataPlace, at.dev, err)
	}
	name, ok := strings.CutPrefix(strings.TrimSpace(string(b)), mapperName(group, ""))
	if !ok {
		return "", fmt.Errorf("%s is %s, no volume of the group %s", dataPlace, strings.TrimSpace(string(b)), group)
	}
	return strings.ReplaceAll(name, "--", "-"), nil
}

var bootShape = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// bootID is the id of this boot.
func bootID(env Env) (string, error) {
	name := env.path("proc/sys/kernel/random/boot_id")
	b, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(b))
	if !bootShape.MatchString(id) {
		return "", fmt.Errorf("%s says %q, which is no boot id", name, id)
	}
	return id, nil
}
