// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/images/durable"
)

// box is the state of one disk between runs.
type box struct {
	dir, overlay, vars string
	unlock             func()
}

// prepare finds or makes the state of the disk: an overlay, and the firmware's
// variables. A state is bound to the disk's hash, because an overlay over any
// other disk would be garbage; that of an earlier bake in the same folder is
// removed, for its disk is gone.
func prepare(ctx context.Context, o Options) (*box, error) {
	disk, err := filepath.Abs(filepath.Join(o.Dist, "disk.raw"))
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(disk)
	if err != nil {
		return nil, fmt.Errorf("%s has no disk to boot: bake it again (%w)", o.Dist, err)
	}
	hash := ""
	for _, f := range o.Manifest.Files {
		if f.Name == "disk.raw" {
			hash = f.SHA256
		}
	}
	if len(hash) != 64 || strings.ContainsAny(hash, "/.") {
		return nil, fmt.Errorf("%s: manifest.json names no disk.raw: bake it again", o.Dist)
	}
	if err := dropStale(o, disk, hash); err != nil {
		return nil, err
	}
	dir := filepath.Join(o.State, hash[:16])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	b := &box{dir: dir, overlay: filepath.Join(dir, "disk.qcow2"), vars: filepath.Join(dir, "vars.fd"), unlock: unlock}
	if err := b.fill(ctx, o, disk, max(o.DiskSize, info.Size())); err != nil {
		unlock()
		return nil, err
	}
	return b, nil
}

// fill makes what is not there. The overlay comes last and by rename, so a
// state with an overlay is whole.
func (b *box) fill(ctx context.Context, o Options, disk string, size int64) error {
	if o.Fresh {
		if err := errors.Join(remove(b.overlay), remove(b.vars)); err != nil {
			return err
		}
	}
	if _, err := os.Stat(b.overlay); err == nil {
		return nil
	}
	vars, err := os.ReadFile(filepath.Join(o.Tree, "usr/share/OVMF/OVMF_VARS_4M.fd"))
	if err != nil {
		return fmt.Errorf("the tools tree has no firmware (Debian package ovmf): %w", err)
	}
	if err := durable.WriteFile(b.vars, vars, 0o600); err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(b.dir, "disk"), []byte(disk), 0o644); err != nil {
		return err
	}
	tmp := b.overlay + ".making"
	if err := remove(tmp); err != nil {
		return err
	}
	if err := runTool(ctx, overlayArgs(o.Tree, disk, tmp, size)); err != nil {
		return err
	}
	return durable.Rename(tmp, b.overlay)
}

// dropStale removes states whose disk was at this path but had another hash.
func dropStale(o Options, disk, hash string) error {
	files, err := filepath.Glob(filepath.Join(o.State, "*", "disk"))
	if err != nil {
		return err
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		path, err := os.ReadFile(file)
		if err != nil || string(path) != disk || filepath.Base(dir) == hash[:16] {
			continue
		}
		unlock, err := lockDir(dir)
		if err != nil {
			return err
		}
		fmt.Fprintf(o.Out, "%s was baked anew: the state of the earlier disk is dropped.\n", o.Dist)
		err = os.RemoveAll(dir)
		unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// lockDir makes this process the only one that runs from dir; the kernel lets
// go when the process ends.
func lockDir(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.New("this box is running already: stop that run first")
		}
		return nil, err
	}
	return func() { d.Close() }, nil
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
