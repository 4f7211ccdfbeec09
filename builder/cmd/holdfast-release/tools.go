// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/builder/debian"
	"github.com/holdfast/holdfast/builder/tools"
	"github.com/holdfast/holdfast/compose/lock"
)

type toolsOptions struct{ lock, cache, archive, mirror string }

func toolsCommand() *cobra.Command {
	var o toolsOptions
	cmd := &cobra.Command{
		Use: "tools", Short: "print the folder of a lock's tools tree, made if absent", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "lock"); err != nil {
				return err
			}
			l, err := lock.Read(o.lock)
			if err != nil {
				return err
			}
			tree, err := toolsTree(cmd.Context(), l, o, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), tree.Dir)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.lock, "lock", "", "the lock that pins the tools")
	f.StringVar(&o.archive, "from-archive", "", "a folder made by lock --archive, searched before the mirror")
	f.StringVar(&o.mirror, "mirror", "", "a Debian mirror to use in place of Debian's own")
	f.StringVar(&o.cache, "cache", "", "the folder for slow work (default $HOLDFAST_CACHE, else holdfast in the user's cache folder)")
	return cmd
}

// toolsTree finds the tree of a lock in the cache, or makes it.
func toolsTree(ctx context.Context, l *lock.Lock, o toolsOptions, out io.Writer) (*tools.Tree, error) {
	cache, err := cacheDir(o.cache)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "tools")
	if tree, ok := tools.Find(dir, l.Tools); ok {
		return tree, nil
	}
	debs := &debian.Cache{Dir: filepath.Join(cache, "debs"), Archive: o.archive, Mirror: o.mirror}
	fmt.Fprintln(out, "Making the tools tree of this lock, once")
	if err := debs.Fetch(ctx, newMeter(out, "packages").tick, l.Tools); err != nil {
		return nil, err
	}
	tree, _, err := tools.Ensure(ctx, dir, debs, l.Tools)
	return tree, err
}
