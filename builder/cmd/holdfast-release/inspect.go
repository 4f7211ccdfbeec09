// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/show"
	"github.com/holdfast/holdfast/builder/target/look"
)

type inspectOptions struct{ verify, roots, json bool }

func inspectCommand() *cobra.Command {
	var o inspectOptions
	cmd := &cobra.Command{
		Use: "inspect [DIST | FILE]", Short: "show what a bake made, and check it", Args: upToOne,
		Long: `Shows an output folder of a bake (the newest below dist/ by default): release,
root hash, partitions, files, the parts of the release that boxes upgrade to,
and how long each step took. --verify reads every
file and compares its hash with the manifest. --roots reads the root hash out of
the own bytes of every disk image in the folder, side by side, and checks each
block of those roots.

FILE is one disk image (` + look.Kinds + `): its partitions and the
root hash are read from its own bytes, and every block of the root is checked.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && look.IsFile(args[0]) {
				return inspectImage(cmd.Context(), cmd.OutOrStdout(), args[0])
			}
			dist, err := findDist(args)
			if err != nil {
				return err
			}
			m, err := builder.ReadManifest(dist)
			if err != nil {
				return err
			}
			if o.verify {
				if err := errors.Join(verifyFiles(cmd.Context(), dist, m), verifyRelease(cmd.Context(), dist, m)); err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: every file is what manifest.json says\n", dist)
			}
			if o.roots {
				return compareRoots(cmd.Context(), cmd.OutOrStdout(), dist, m)
			}
			if o.json {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(m)
			}
			return printManifest(cmd.OutOrStdout(), dist, m)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.verify, "verify", false, "compare every file with its hash")
	f.BoolVar(&o.roots, "roots", false, "print the root hash that each disk image boots")
	f.BoolVar(&o.json, "json", false, "print the manifest as JSON")
	return cmd
}

func printManifest(out io.Writer, dist string, m *builder.Manifest) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "release\t%s %s\nos\t%s\nroot hash\t%s\nfactory\t%s\nfolder\t%s\n", m.Name, m.Version, m.OSVersion, m.RootHash, factoryOf(m), dist)
	if len(m.Sizes) > 0 { // a bake of before had none
		var names []string
		for _, s := range m.Sizes {
			names = append(names, s.Name)
		}
		fmt.Fprintf(w, "fits\t%s\n", strings.Join(names, ", "))
	}
	fmt.Fprintln(w, "\nPARTITION\tOFFSET\tSIZE\tUUID")
	for _, p := range m.Partitions {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Label, show.Bytes(p.Offset), show.Bytes(p.Bytes), p.UUID)
	}
	fmt.Fprintln(w, "\nFILE\tSIZE\tSHA256")
	for _, f := range m.Files {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Name, show.Bytes(f.Bytes), f.SHA256)
	}
	if err := printRelease(w, dist, m); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nSTEP\tSECONDS\tSIZE\t")
	for _, s := range m.Steps {
		cached := ""
		if s.Cached {
			cached = "cached"
		}
		fmt.Fprintf(w, "%s\t%.1f\t%s\t%s\n", s.Name, s.Seconds, sizeOf(s.Bytes), cached)
	}
	return w.Flush()
}

// inspectImage shows one disk image by its own bytes.
func inspectImage(ctx context.Context, out io.Writer, file string) error {
	s, err := look.File(ctx, file, nil)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "disk        %s\nroot hash   %s, every block checked\n\n", show.Bytes(s.Bytes), s.RootHash)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PARTITION\tOFFSET\tSIZE\tUUID")
	for _, p := range s.Table.Parts {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Label, show.Bytes(p.Offset), show.Bytes(p.Size), p.UUID)
	}
	return w.Flush()
}

// compareRoots looks into every disk image of an output folder: all must boot
// the root of the manifest.
func compareRoots(ctx context.Context, out io.Writer, dist string, m *builder.Manifest) error {
	names, err := os.ReadDir(dist)
	if err != nil {
		return err
	}
	for _, n := range names {
		if !n.Type().IsRegular() || n.Name()[0] == '.' || !look.IsFile(n.Name()) {
			continue
		}
		file := filepath.Join(dist, n.Name())
		s, err := look.File(ctx, file, nil)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%-40s root hash %s\n", n.Name(), s.RootHash)
		if s.RootHash != m.RootHash {
			return fmt.Errorf("%s boots another root than %s of manifest.json: make it again", file, m.RootHash)
		}
	}
	return nil
}

// factoryOf says where the images are, of older manifests too.
func factoryOf(m *builder.Manifest) string {
	if m.Factory == builder.Seed {
		return builder.Seed + " (boxes fetch the images at first boot)"
	}
	return cmp.Or(m.Factory, builder.Embedded)
}

// verifyFiles reads all files, and lists every one that differs.
func verifyFiles(ctx context.Context, dist string, m *builder.Manifest) error {
	var bad []error
	for _, want := range m.Files {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if filepath.Base(want.Name) != want.Name {
			return fmt.Errorf("%s: manifest.json names a file outside its folder, %q: bake it again", dist, want.Name)
		}
		sum, n, err := hashOf(ctx, filepath.Join(dist, want.Name))
		switch {
		case err != nil:
			bad = append(bad, err)
		case n != want.Bytes || sum != want.SHA256:
			bad = append(bad, fmt.Errorf("%s is not what manifest.json says (%d bytes, sha256 %s): bake it again", filepath.Join(dist, want.Name), n, sum))
		}
	}
	return errors.Join(bad...)
}

func hashOf(ctx context.Context, path string) (sum string, n int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	// Closing the file ends a read that is under way.
	defer context.AfterFunc(ctx, func() { f.Close() })()
	h := sha256.New()
	n, err = io.Copy(h, f)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return hex.EncodeToString(h.Sum(nil)), n, err
}

// sizeOf leaves out the size of a step that makes no file.
func sizeOf(n int64) string {
	if n == 0 {
		return ""
	}
	return show.Bytes(n)
}
