// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/builder/tools"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/qa/vm"
)

// bootSample is what one box said about its first boot.
type bootSample struct{ status.Timings }

// boots boots the last bake several times, each time on a fresh disk.
func boots(ctx context.Context, o *ours, n int) ([]bootSample, error) {
	if _, _, err := o.bake(ctx, o.stack, o.lock); err != nil {
		return nil, err
	}
	l, err := lock.Read(o.lock)
	if err != nil {
		return nil, err
	}
	found, ok := tools.Find(filepath.Join(o.cache(), "tools"), l.Tools)
	if !ok {
		return nil, errors.New("the bake left no tools tree in its cache")
	}
	tree, err := vm.OpenTree(found.Dir)
	if err != nil {
		return nil, err
	}
	img, err := vm.OpenImage(o.output())
	if err != nil {
		return nil, err
	}
	var all []bootSample
	for range n {
		s, err := boot(ctx, tree, img)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// boot is one first boot, to the end of boot-complete.target.
func boot(ctx context.Context, tree *vm.Tree, img *vm.Image) (s bootSample, err error) {
	dir, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return s, err
	}
	defer os.RemoveAll(dir)
	o := vm.Options{Tree: tree, Log: io.Discard}
	if o.Disk, err = vm.Overlay(ctx, tree, img, dir, "disk", 10<<30); err != nil {
		return s, err
	}
	if o.Vars, err = vm.Vars(ctx, tree, dir, "vars", ""); err != nil {
		return s, err
	}
	const long = 15 * time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, long, errors.New("a first boot took longer than "+long.String()))
	defer cancel()
	m, err := vm.Start(ctx, o)
	if err != nil {
		return s, err
	}
	defer m.Kill()
	if _, err := m.Console.Wait(ctx, `Reached target .*boot-complete`); err != nil {
		return s, err
	}
	out, code, err := m.Shell.Run(ctx, "holdfast status --json")
	if err != nil {
		return s, err
	}
	var r status.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return s, fmt.Errorf("holdfast status ended with %d: %w: %s", code, err, out)
	}
	s.Timings = r.Timings
	return s, nil
}
