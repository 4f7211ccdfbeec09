// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast/holdfast/builder"
)

// tufKeys makes the vendor's keys and root of trust, where they are not there.
func (v *Vendor) tufKeys(ctx context.Context) (err error) {
	v.tuf, err = os.ReadFile(v.trustRoot())
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.RemoveAll(v.Keys()); err != nil {
			return err
		}
		if err := v.tool(ctx, "keys", "init", v.Keys(), "--expires", "root=3650"); err != nil {
			return err
		}
		v.tuf, err = os.ReadFile(v.trustRoot())
	}
	return err
}

// Keys is the vendor's folder of keys and metadata as `keys init` made it.
// Nothing is ever signed in it: a version has one content for ever, and test
// releases are made again with other ones. Publish signs in a copy.
func (v *Vendor) Keys() string { return filepath.Join(v.home, "keys") }

// trustRoot is the file that boxes of this vendor are baked with.
func (v *Vendor) trustRoot() string { return filepath.Join(v.Keys(), "root.json") }

// tool runs the vendor's command line, which `make setup` builds: the one in
// HOLDFAST_RELEASE or in build/bin.
func (v *Vendor) tool(ctx context.Context, args ...string) error {
	program := cmp.Or(os.Getenv("HOLDFAST_RELEASE"), filepath.Join(v.root, "build/bin/holdfast-release"))
	cmd := exec.CommandContext(ctx, program, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("holdfast-release %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	return nil
}

// describe puts into the bake what goes into the release's description, and
// the root of trust.
func (v *Vendor) describe(c *builder.Config, s Spec) {
	c.Epoch, c.MinFrom, c.TrustRoot = s.Epoch, s.MinFrom, v.trustRoot()
	c.GateDeadline, c.GateWindow = time.Duration(s.Gate.Deadline)*time.Second, time.Duration(s.Gate.Window)*time.Second
}

// Publish signs releases and puts them into a depot, a folder as a web server
// serves it. What it signs with is kept beside it, DEPOT.keys, so that more can
// follow.
func (v *Vendor) Publish(ctx context.Context, depot string, releases ...*builder.Result) error {
	keys := depot + ".keys"
	if _, err := os.Stat(keys); errors.Is(err, fs.ErrNotExist) {
		if err := copyKeys(v.Keys(), keys); err != nil {
			return err
		}
	}
	for _, r := range releases {
		if err := v.tool(ctx, "publish", "--keys", keys, "--release", Release(r), "--to", depot); err != nil {
			return err
		}
	}
	return nil
}

// copyKeys copies a folder of keys with the modes of its files: a private key
// that others may read is refused.
func copyKeys(from, to string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		return os.Chmod(filepath.Join(to, rel), info.Mode().Perm())
	})
}

// Bundle makes one file of a release in a depot.
func (v *Vendor) Bundle(ctx context.Context, depot, file string, r *builder.Result) error {
	return v.tool(ctx, "bundle", "--keys", depot+".keys", "--release", Release(r), "--to", file)
}
