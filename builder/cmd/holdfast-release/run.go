// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/launch"
	"github.com/holdfast/holdfast/compose/lock"
)

type runOptions struct {
	launch launch.Options
	tools  toolsOptions
	diskGB int64
}

func runCommand() *cobra.Command {
	var o runOptions
	l := &o.launch
	cmd := &cobra.Command{
		Use: "run [DIST]", Short: "boot a baked disk in QEMU, with its port forwarded", Args: upToOne,
		Long: `Boots a baked disk (the newest below dist/ by default) in QEMU from the tools
tree of its lock. disk.raw is never written: what the box writes is kept in an
overlay in the cache, so its data survives from run to run until the disk is
baked anew. Ctrl-C presses the power button, a second one cuts the power.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			l.Answer, l.Out = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return runBox(cmd.Context(), o, args)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&l.Fresh, "fresh", false, "forget what earlier runs wrote: a first boot again")
	f.IntVar(&l.Port, "port", 8080, "the port on 127.0.0.1 that leads to port 80 of the box")
	f.IntVar(&l.CPUs, "cpus", 2, "virtual processors")
	f.IntVar(&l.MemoryMB, "memory", 2048, "memory in MiB")
	f.Int64Var(&o.diskGB, "disk", 8, "size of the box's disk in GiB, for a first boot")
	f.BoolVar(&l.AllConsole, "console", false, "show the whole serial console")
	f.StringVar(&o.tools.cache, "cache", "", "the folder for slow work (default $HOLDFAST_CACHE, else holdfast in the user's cache folder)")
	return cmd
}

func runBox(ctx context.Context, o runOptions, args []string) error {
	dist, err := findDist(args)
	if err != nil {
		return err
	}
	manifest, err := builder.ReadManifest(dist)
	if err != nil {
		return err
	}
	pins, err := lock.Read(filepath.Join(dist, builder.LockName))
	if err != nil {
		return err
	}
	l := o.launch
	tree, err := toolsTree(ctx, pins, o.tools, l.Out)
	if err != nil {
		return err
	}
	cache, err := cacheDir(o.tools.cache)
	if err != nil {
		return err
	}
	l.Dist, l.Manifest, l.Tree, l.State = dist, *manifest, tree.Dir, filepath.Join(cache, "run")
	l.DiskSize = o.diskGB << 30
	l.Label = manifest.Name
	if manifest.Name == "demo" {
		l.Label = "Guest book"
	}
	// From here on a signal is the power button, not an end of all work.
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(stop)
	l.Stop = stop
	return launch.Run(context.WithoutCancel(ctx), l)
}
