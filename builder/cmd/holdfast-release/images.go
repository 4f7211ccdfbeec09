// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/debian"
	"github.com/holdfast/holdfast/builder/debset"
	"github.com/holdfast/holdfast/builder/show"
	"github.com/holdfast/holdfast/builder/stackimage"
)

type imagesOptions struct {
	recipe, version, layout, pins, source string
	mirror, archive, cache                string
	anew                                  bool
}

func imagesCommand() *cobra.Command {
	var o imagesOptions
	cmd := &cobra.Command{
		Use: "images", Short: "make a stack's own images from a recipe into an OCI layout", Args: noArgs,
		Long: `Makes the images of a recipe (images.yaml) from Debian packages and Go programs
into an OCI layout folder, which lock and bake then read. The Debian packages
are pinned in a file beside the layout: the same pins give the same digests.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "recipe", "layout"); err != nil {
				return err
			}
			return makeImages(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.recipe, "recipe", "", "the recipe to make images from, images.yaml")
	f.StringVar(&o.version, "version", "1.0.0", "what ${version} means in the recipe")
	f.StringVar(&o.layout, "layout", "", "the OCI layout folder to make")
	f.StringVar(&o.pins, "pins", "", "the file of package pins (default LAYOUT.packages.json)")
	f.StringVar(&o.source, "source", "", "the folder Go programs are named from (default the Go module that the recipe lies in)")
	f.BoolVar(&o.anew, "repin", false, "pin the Debian packages anew")
	f.StringVar(&o.mirror, "mirror", "", "a Debian mirror to use in place of Debian's own")
	f.StringVar(&o.archive, "archive", "", "a folder of packages to search before the mirror")
	f.StringVar(&o.cache, "cache", "", "the folder for slow work (default $HOLDFAST_CACHE, else holdfast in the user's cache folder)")
	return cmd
}

func makeImages(ctx context.Context, o imagesOptions, answer, out io.Writer) error {
	cache, err := cacheDir(o.cache)
	if err != nil {
		return err
	}
	if o.pins == "" {
		o.pins = filepath.Clean(o.layout) + ".packages.json"
	}
	if o.source == "" {
		o.source = moduleOf(o.recipe)
	}
	keeper := &debset.Keeper{
		File: o.pins, Anew: o.anew,
		Cache:    &debian.Cache{Dir: filepath.Join(cache, "debs"), Archive: o.archive, Mirror: o.mirror},
		Say:      func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) },
		Progress: newMeter(out, "packages").tick,
	}
	result, err := stackimage.Build(ctx, stackimage.Options{
		Recipe: o.recipe, Version: o.version, Layout: o.layout, Cache: filepath.Join(cache, "stackimage"),
		Packages: keeper.Packages, Go: stackimage.Go{Source: o.source},
		Progress: func(p stackimage.Piece) {
			fmt.Fprintln(out, show.Step(builder.StepTime{Name: p.Name, Seconds: p.Took.Seconds(), Bytes: p.Bytes, Cached: p.Cached}))
		},
	})
	if err != nil {
		return err
	}
	for _, im := range result.Images {
		fmt.Fprintf(answer, "%s@%s\n", im.Ref, im.Digest)
	}
	state := "made"
	if result.Unchanged {
		state = "unchanged"
	}
	fmt.Fprintf(out, "%s: %d images, %s, %s\n", result.Layout, len(result.Images), show.Bytes(result.Size), state)
	return nil
}

// cacheDir is the folder a flag names, or the one everything shares.
func cacheDir(flag string) (string, error) {
	if flag != "" {
		return filepath.Abs(flag)
	}
	return builder.CacheDir()
}

// moduleOf is the nearest folder above a file that holds a go.mod, or the
// file's own.
func moduleOf(file string) string {
	abs, err := filepath.Abs(file)
	if err != nil {
		return filepath.Dir(file)
	}
	for dir := filepath.Dir(abs); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return filepath.Dir(abs)
		}
	}
}
