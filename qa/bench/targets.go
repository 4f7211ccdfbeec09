// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast/holdfast/builder/tools"
	"github.com/holdfast/holdfast/compose/lock"
)

// benchTargets measures the encoders of the target formats beside the usual
// tools on the same disk.raw.
func benchTargets(ctx context.Context, c config, cache, dir string) (missed bool, err error) {
	release := c.name + "-" + c.version
	l, err := lock.Read(filepath.Join(c.root, "build", release+".lock"))
	if err != nil {
		return false, fmt.Errorf("%w: run `make image` first", err)
	}
	tree, ok := tools.Find(filepath.Join(cache, "tools"), l.Tools)
	if !ok {
		return false, fmt.Errorf("the tools tree is not in the cache %s: run `make image` first", cache)
	}
	raw := filepath.Join(c.root, "dist", release, "disk.raw")
	v, err := benchVMDK(ctx, tree.Dir, raw, dir, c.runs)
	if err != nil {
		return false, err
	}
	g, err := benchGCETar(ctx, tree.Dir, raw, dir, c.runs)
	if err != nil {
		return false, err
	}
	text := fmt.Sprintf("# Bench: target formats\n\nMade on %s by `go run ./qa/bench %s` on %s (load average at the end %s), medians of %d.\n\n%s\n%s",
		time.Now().UTC().Format(time.DateOnly), strings.Join(os.Args[1:], " "), cpuModel(), loadAverage(), c.runs, v.markdown(), g.markdown())
	fmt.Print(text)
	return v.missed() || g.missed(), os.WriteFile(filepath.Join(c.root, "docs/results/bench-targets.md"), []byte(text), 0o644)
}
