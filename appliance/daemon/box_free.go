// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/appliance/prepare"
	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/compose/release"
)

// vouch puts the trust metadata beside a release that was prepared: what it is
// held against whenever it is opened.
func (b *upgradeBox) vouch(digest string) error {
	sealed, err := os.ReadFile(b.u.Root)
	if err != nil {
		return err
	}
	store, err := openTrust(b.d.c.State, sealed)
	if err != nil {
		return err
	}
	return store.Export(filepath.Join(releaseDir(b.d.c.State, digest), "tuf"), digest)
}

// generations are all that the record names.
func generations(rec slot.Record) []slot.Generation {
	out := []slot.Generation{rec.Committed}
	if rec.Kept != nil {
		out = append(out, *rec.Kept)
	}
	if rec.Trial != nil {
		out = append(out, rec.Trial.Generation)
	}
	return out
}

// Free implements upgrade.Releases.
func (b *upgradeBox) Free(ctx context.Context, rec slot.Record, also []string) error {
	keep := slices.Clone(also)
	for _, g := range generations(rec) {
		if g.Digest != "" && !slices.Contains(keep, g.Digest) {
			keep = append(keep, g.Digest)
		}
	}
	var images []release.Image
	if d, err := b.Installed(ctx, ""); err == nil {
		images = d.Images
	}
	return errors.Join(prepare.Sweep(b.d.c.State, keep, images...), b.freeEngines(rec), b.freeStacks(ctx, keep))
}

// freeEngines removes the stores of engines that no generation uses.
func (b *upgradeBox) freeEngines(rec slot.Record) error {
	dir := filepath.Join(b.d.c.State, "engines")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	keep := []string{b.engine()}
	for _, g := range generations(rec) {
		if g.Engine == "" {
			return nil // whose store that is can't be told
		}
		keep = append(keep, g.Engine)
	}
	if keep[0] == "" {
		return nil
	}
	var errs []error
	for _, e := range entries {
		if !slices.Contains(keep, e.Name()) {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// freeStacks removes unpacked stacks of releases that are gone.
func (b *upgradeBox) freeStacks(ctx context.Context, digests []string) error {
	var keep []string
	for _, digest := range append(slices.Clone(digests), "") {
		d, err := b.Installed(ctx, digest)
		if err != nil {
			if digest == "" {
				continue // a factory that can't be read has its stack unpacked again
			}
			return nil // none is removed while one can't be told
		}
		keep = append(keep, strings.TrimPrefix(d.Stack, "sha256:"))
	}
	entries, err := os.ReadDir(filepath.Join(b.d.c.State, "stacks"))
	if err != nil {
		return nil
	}
	var errs []error
	for _, e := range entries {
		if !slices.Contains(keep, e.Name()) {
			errs = append(errs, os.RemoveAll(filepath.Join(b.d.c.State, "stacks", e.Name())))
		}
	}
	return errors.Join(errs...)
}

// stickPlace is where a removable disk is mounted.
const stickPlace = "/run/holdfast/usb"

// mountStick mounts the first removable disk that has a folder "holdfast",
// read-only and without programs, devices or other rights of it.
func (b *upgradeBox) mountStick(ctx context.Context) (dir string, release func() error, err error) {
	run := b.d.commands()
	text, err := run.Run(ctx, "lsblk", "--json", "--list", "--paths", "--output", "NAME,FSTYPE,RM,HOTPLUG,TRAN,MOUNTPOINT")
	if err != nil {
		return "", nil, err
	}
	var list struct {
		Blockdevices []struct {
			Name, Fstype, Tran, Mountpoint string
			Rm, Hotplug                    bool
		} `json:"blockdevices"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return "", nil, fmt.Errorf("lsblk: %w", err)
	}
	if err := os.MkdirAll(b.path(stickPlace), 0o700); err != nil {
		return "", nil, err
	}
	run.Run(ctx, "umount", stickPlace) // what a crash has left
	var why []error
	for _, d := range list.Blockdevices {
		if !d.Rm && !d.Hotplug || d.Fstype == "" || d.Mountpoint != "" && d.Mountpoint != stickPlace || d.Fstype == "LVM2_member" {
			continue
		}
		if _, err := run.Run(ctx, "mount", "-o", "ro,nosuid,nodev,noexec", d.Name, stickPlace); err != nil {
			why = append(why, err)
			continue
		}
		if st, err := os.Stat(filepath.Join(b.path(stickPlace), "holdfast")); err == nil && st.IsDir() {
			return b.path(stickPlace), func() error {
				_, err := run.Run(context.WithoutCancel(ctx), "umount", stickPlace)
				return err
			}, nil
		}
		if _, err := run.Run(ctx, "umount", stickPlace); err != nil {
			return "", nil, err
		}
	}
	return "", nil, errors.Join(append([]error{errors.New("no removable disk with a folder \"holdfast\" is plugged in")}, why...)...)
}
