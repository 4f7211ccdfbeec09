// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/show"
	"github.com/holdfast/holdfast/compose/release"
)

// printRelease shows what the release in an output folder is made of; nothing
// for a bake of before, which has none.
func printRelease(w io.Writer, dist string, m *builder.Manifest) error {
	if m.Release == "" {
		return nil
	}
	r, err := release.OpenInstalled(os.DirFS(filepath.Join(dist, builder.ReleaseName)), m.Release)
	if err != nil {
		return fmt.Errorf("%s: %w: bake it again", dist, err)
	}
	d := r.Description()
	fmt.Fprintf(w, "\nRELEASE\t%s\n", m.Release)
	from := "any version"
	if d.MinFrom != "" {
		from = d.MinFrom + " or newer"
	}
	fmt.Fprintf(w, "upgrades from\t%s\nepoch\t%d\nengine\t%s\nneeds\t%s of memory, %.2f cpus, %s for data\n", from, d.Epoch, d.Engine,
		show.Bytes(d.Requirements.Memory), float64(d.Requirements.CPUs)/1000, show.Bytes(d.Requirements.Data))
	fmt.Fprintln(w, "\nPART\tSIZE\tDIGEST")
	var images int64
	for _, im := range d.Images {
		images += im.Size
	}
	fmt.Fprintf(w, "stack\t%s\t%s\n", show.Bytes(int64(len(r.StackTar()))), d.Stack)
	if p := d.Parts; p != nil {
		for _, part := range []struct {
			name string
			blob release.PartBlob
		}{{"uki", p.UKI}, {"uki chunks", p.UKIChunks}, {"root", p.Root}, {"root chunks", p.RootChunks}, {"systemd-boot", p.Boot}, {"sbom", p.SBOM}} {
			fmt.Fprintf(w, "%s\t%s\t%s\n", part.name, show.Bytes(part.blob.Size), part.blob.Digest)
		}
	}
	fmt.Fprintf(w, "images\t%s\t%d by digest\n", show.Bytes(images), len(d.Images))
	return nil
}

// verifyRelease reads every blob of the release and compares it with its name.
func verifyRelease(ctx context.Context, dist string, m *builder.Manifest) error {
	if m.Release == "" {
		return nil
	}
	dir := filepath.Join(dist, builder.ReleaseName)
	if _, err := release.OpenInstalled(os.DirFS(dir), m.Release); err != nil {
		return fmt.Errorf("%s: %w: bake it again", dist, err)
	}
	blobs := filepath.Join(dir, "blobs", "sha256")
	names, err := os.ReadDir(blobs)
	if err != nil {
		return err
	}
	var bad []error
	for _, n := range names {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		path := filepath.Join(blobs, n.Name())
		sum, _, err := hashOf(ctx, path)
		switch {
		case err != nil:
			bad = append(bad, err)
		case sum != n.Name():
			bad = append(bad, fmt.Errorf("%s is sha256:%s: bake it again", path, sum))
		}
	}
	return errors.Join(bad...)
}
