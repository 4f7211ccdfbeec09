// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/holdfast/holdfast/appliance/prepare"
)

// writeSpeed is how long a root of size bytes takes to be on the disk.
type writeSpeed struct {
	size     int64
	dd, ours time.Duration
}

// ratio is our speed of dd's.
func (w writeSpeed) ratio() float64 { return w.dd.Seconds() / w.ours.Seconds() }

// measureWrite writes a root into a file by dd and by prepare, in turns.
func measureWrite(ctx context.Context, dir string, b *baked, runs int) (w writeSpeed, err error) {
	work, err := os.MkdirTemp(dir, "write-")
	if err != nil {
		return w, err
	}
	defer os.RemoveAll(work)
	w.size = b.rootSize
	slot := filepath.Join(work, "slot")
	var dd, ours []time.Duration
	for n := range max(runs, 1) {
		for _, f := range []func() (time.Duration, error){
			func() (time.Duration, error) {
				start := time.Now()
				out, err := exec.CommandContext(ctx, "dd", "if="+b.blob(b.root), "of="+slot, "bs=1M", "conv=fsync,notrunc", "status=none").CombinedOutput()
				if err != nil {
					return 0, fmt.Errorf("dd: %w: %s", err, out)
				}
				return time.Since(start), nil
			},
			func() (time.Duration, error) {
				res, _, err := prepareIn(ctx, prepare.Request{
					Ref: b.layout, Digest: b.digest, ManifestSize: b.manifestSize,
					State: filepath.Join(work, fmt.Sprint("state-", n)), Target: slot, Layouts: []string{b.layout},
				})
				return time.Duration(res.Parts["root"].Seconds * float64(time.Second)), err
			},
		} {
			if err := os.RemoveAll(slot); err != nil {
				return w, err
			}
			if err := emptyFile(slot, b.desc.Verity.Bytes); err != nil {
				return w, err
			}
			syscall.Sync() // nobody pays for what another left unwritten
			took, err := f()
			if err != nil {
				return w, err
			}
			if len(dd) == len(ours) {
				dd = append(dd, took)
			} else {
				ours = append(ours, took)
			}
		}
	}
	w.dd, w.ours = middle(dd), middle(ours)
	return w, nil
}

func middle(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
