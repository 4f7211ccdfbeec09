// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/debian"
	"github.com/holdfast/holdfast/builder/supervisorbin"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/images/durable"
)

type lockOptions struct {
	config        builder.Config
	from          string
	export        string
	relock        bool
	relockMissing bool
}

func lockCommand() *cobra.Command {
	var o lockOptions
	c := &o.config
	cmd := &cobra.Command{
		Use: "lock", Short: "pin a stack: image digests, Debian packages, tools", Args: noArgs,
		Long: `Pins every image of a stack to its digest, and every Debian package of the box
and of the tools to name, version and hash, in one readable file. What the file
already pins is kept where it is still wanted: locking twice changes nothing.
Packages are asked of the mirror anew only with --relock. A release that changes
the stack alone keeps its root when its new lock starts --from the last one.

Mirrors drop old packages. The cache keeps what a lock names; --archive exports
it to a folder that serves any later bake of this lock.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "stack"); err != nil {
				return err
			}
			return makeLock(cmd.Context(), o, cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.Stack, "stack", "", "the Compose file")
	f.StringVar(&c.Lock, "lock", "", "the lock to write (default holdfast.lock beside the Compose file)")
	f.StringArrayVar(&c.Layouts, "layout", nil, "an OCI layout folder to search for images before any registry; may be given again")
	f.StringArrayVar(&c.ExtraPackages, "package", nil, "a Debian package beyond those the box needs, as in extra_packages; may be given again")
	f.StringVar(&o.from, "from", "", "the lock of an earlier release, whose Debian packages a new lock takes over")
	f.StringVar(&o.export, "archive", "", "export every package of the lock to this folder")
	f.StringVar(&c.Archive, "from-archive", "", "a folder made by --archive, searched before the mirror")
	f.StringVar(&c.Mirror, "mirror", "", "a Debian mirror to use in place of Debian's own")
	f.StringVar(&c.Cache, "cache", "", "the folder for slow work (default $HOLDFAST_CACHE, else holdfast in the user's cache folder)")
	f.BoolVar(&o.relock, "relock", false, "pin the Debian packages anew")
	f.BoolVar(&o.relockMissing, "relock-missing", false, "pin them anew if one can no longer be had, instead of failing")
	return cmd
}

func makeLock(ctx context.Context, o lockOptions, out io.Writer) error {
	c := o.config
	if c.Lock == "" {
		c.Lock = filepath.Join(filepath.Dir(c.Stack), "holdfast.lock")
	}
	supervisor, err := supervisorbin.Binary()
	if err != nil {
		return err
	}
	c.OS = operatingSystem()
	c.OS.Supervisor = supervisor
	old, err := builder.ReadLock(c.Lock)
	if err != nil {
		return err
	}
	if old == nil && o.from != "" {
		// A release that changes the stack alone must keep its root, to the bit.
		if old, err = lock.Read(o.from); err != nil {
			return err
		}
	}
	l, cache, err := lockAndFetch(ctx, c, old, o.relock, out)
	var missing *debian.MissingError
	if errors.As(err, &missing) && o.relockMissing {
		fmt.Fprintf(out, "%s: %d packages can no longer be had, so all are pinned anew.\n", c.Lock, len(missing.Packages))
		l, cache, err = lockAndFetch(ctx, c, nil, true, out)
	}
	if err != nil {
		return err
	}
	state, err := writeLock(c.Lock, l)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s %s: %d images, %d packages, %d tools\n", c.Lock, state, len(l.Images), len(l.OS.Packages), len(l.Tools.Packages))
	if o.export == "" {
		return nil
	}
	if err := cache.Export(o.export, l.OS, l.Tools); err != nil {
		return fmt.Errorf("archive %s: %w", o.export, err)
	}
	fmt.Fprintf(out, "%s serves this lock without a mirror\n", o.export)
	return nil
}

func lockAndFetch(ctx context.Context, c builder.Config, old *lock.Lock, relock bool, out io.Writer) (*lock.Lock, *debian.Cache, error) {
	if old == nil || relock {
		fmt.Fprintln(out, "Asking the Debian mirror for packages")
	}
	l, err := builder.MakeLock(ctx, c, old, relock, time.Now())
	if err != nil {
		return nil, nil, err
	}
	cache, err := builder.FetchLocked(ctx, c, l, newMeter(out, "packages").tick)
	return l, cache, err
}

// writeLock writes a lock unless the file says the same already.
func writeLock(path string, l *lock.Lock) (state string, err error) {
	text := l.Marshal()
	now, err := os.ReadFile(path)
	if err == nil && bytes.Equal(now, text) {
		return "unchanged", nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return "written", durable.WriteFile(path, text, 0o644)
}
