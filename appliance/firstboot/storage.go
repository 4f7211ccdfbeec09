// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/appliance/slot"
)

// rounds bounds how often Storage and Data observe: claim, resize, pool,
// volumes, label, and one to see that nothing is left. More means the tools
// do not do as told.
const rounds = 10

// Storage brings the state partition of the root's own disk to its shape:
// group, pool and the state volume made, grown, active and formatted. On a box
// that is already so it only activates it. Errors are one sentence for the
// console.
func Storage(ctx context.Context, env Env) error {
	last := ""
	for range rounds {
		d, err := observeState(ctx, env)
		if err != nil {
			return err
		}
		steps, err := PlanStorage(d)
		if err != nil {
			return err
		}
		if len(steps) == 0 {
			return nil
		}
		if err := env.act(ctx, steps); err != nil {
			return fmt.Errorf("state is not ready: %w", err)
		}
		last = steps[len(steps)-1].String()
	}
	return unrest("state", "holdfast-storage", last)
}

// unrest is the error of a plan that never ends.
func unrest(what, unit, last string) error {
	return fmt.Errorf("%s does not come to rest after %d rounds, the last step was %q; send the journal of %s.service to the vendor", what, rounds, last, unit)
}

func observeState(ctx context.Context, env Env) (Device, error) {
	root, err := slot.Running(env.Root)
	if err != nil {
		return Device{}, err
	}
	part, err := root.Sibling(env.Root, "state")
	if err != nil {
		return Device{}, err
	}
	if part == "" {
		return Device{}, fmt.Errorf("disk %s has no state partition and systemd-repart could not make one: it needs 1 GiB of free room; give the machine a larger disk and boot again", root.Disk)
	}
	return observeDevice(ctx, env, part, group)
}

// observeDevice looks at a partition or disk by its kernel name. Of a volume
// group it reads more than the name only where that is want.
func observeDevice(ctx context.Context, env Env, kernel, want string) (Device, error) {
	d := Device{Name: "/dev/" + kernel}
	var err error
	if d.Bytes, err = sectors(env, kernel); err != nil {
		return Device{}, err
	}
	if d.Holds, err = holds(ctx, env, d.Name); err != nil {
		return Device{}, err
	}
	if d.Holds == lvmMember {
		err = observeGroup(ctx, env, &d, want)
	}
	return d, err
}

// sectors reads a device's size; sysfs counts 512-byte sectors always.
func sectors(env Env, kernel string) (int64, error) {
	name := env.path(filepath.Join("sys/class/block", kernel, "size"))
	data, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil || n < 0 || n > 1<<53 {
		return 0, fmt.Errorf("%s: %q is not a size in sectors", name, data)
	}
	return n * 512, nil
}
