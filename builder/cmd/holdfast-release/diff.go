// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/builder/show"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/images/chunk"
)

// difference is one part of a release against another's.
type difference struct {
	Part string `json:"part"`
	// Bytes of the part in B, and how many of them a box on A fetches.
	Bytes   int64 `json:"bytes"`
	Fetched int64 `json:"fetched"`
}

type differences struct {
	From string `json:"from"`
	To   string `json:"to"`
	// SameSystem is true where only the stack changes: there is no reboot.
	SameSystem bool         `json:"same_system"`
	Parts      []difference `json:"parts"`
	Bytes      int64        `json:"bytes"`
	Fetched    int64        `json:"fetched"`
}

func diffCommand() *cobra.Command {
	var asJSON bool
	var layouts []string
	cmd := &cobra.Command{
		Use: "diff A B", Short: "show what a box on release A would fetch for release B",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{fmt.Errorf("diff takes two releases: see %s --help", cmd.CommandPath())}
			}
			return nil
		},
		Long: `Compares two releases, folders that a bake made: for each part its bytes in B,
and how many of them a box that runs A would fetch. Root and kernel image go by
content-defined chunks, images by layer. Requests and metadata are not counted;
runs of missing chunks are fetched with small gaps between them, which is.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := openLocal(args[0], layouts)
			if err != nil {
				return err
			}
			b, err := openLocal(args[1], layouts)
			if err != nil {
				return err
			}
			d, err := compare(a, b)
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(d)
			}
			return printDiff(cmd.OutOrStdout(), d)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	cmd.Flags().StringArrayVar(&layouts, "layout", nil, "an OCI layout that has images which a release leaves out; may be given again")
	return cmd
}

func compare(a, b *local) (differences, error) {
	d := differences{From: a.name(), To: b.name(), SameSystem: a.desc.OS.RootHash == b.desc.OS.RootHash}
	add := func(part string, bytes, fetched int64) {
		d.Parts = append(d.Parts, difference{part, bytes, fetched})
		d.Bytes += bytes
		d.Fetched += fetched
	}
	p := b.desc.Parts
	whole := map[string]release.PartBlob{}
	for _, blob := range b.blobs {
		whole[blob.Digest] = blob
	}
	// What is small comes anew with each release, into a folder of its own.
	config, _, err := release.ParseManifest(b.manifest)
	if err != nil {
		return d, err
	}
	description := int64(len(b.manifest)) + config.Size
	add("description", description, description)
	stack := whole[b.desc.Stack].Size
	add("stack", stack, stack)
	for _, part := range []struct {
		name             string
		blob, index, old release.PartBlob
	}{{"uki", p.UKI, p.UKIChunks, a.desc.Parts.UKIChunks}, {"root", p.Root, p.RootChunks, a.desc.Parts.RootChunks}} {
		fetched := int64(0)
		if !d.SameSystem {
			if fetched, err = missingBytes(a, b, part.old, part.index, part.blob.Size); err != nil {
				return d, err
			}
		}
		add(part.name, part.blob.Size, fetched)
	}
	indexes := p.UKIChunks.Size + p.RootChunks.Size
	add("chunk indexes", indexes, indexes)
	boot := p.Boot.Size
	if d.SameSystem {
		boot = 0
	}
	add("boot loader", p.Boot.Size, boot)
	add("sbom", p.SBOM.Size, p.SBOM.Size)

	seen := map[string]bool{}
	for _, im := range b.desc.Images {
		bytes, fetched := int64(0), int64(0)
		for _, blob := range append(b.images[im.Digest], release.Blob{Digest: im.Digest, Size: im.Manifest}) {
			if seen[blob.Digest] {
				continue
			}
			seen[blob.Digest] = true
			bytes += blob.Size
			if a.paths[blob.Digest] == "" {
				fetched += blob.Size
			}
		}
		add("image "+im.Ref, bytes, fetched)
	}
	return d, nil
}

// How a box joins requests for missing chunks (appliance/prepare).
const (
	maxRun   = 1 << 20
	smallGap = 2 << 10
	gapShare = 16
)

// missingBytes are the bytes of B's file whose chunks A's does not have, with
// the gaps that a box fetches along.
func missingBytes(a, b *local, oldIndex, newIndex release.PartBlob, size int64) (int64, error) {
	read := func(l *local, p release.PartBlob, limit int64) (chunk.Index, error) {
		data, err := l.part(p)
		if err != nil {
			return chunk.Index{}, err
		}
		return chunk.Decode(data, limit)
	}
	old, err := read(a, oldIndex, 1<<40)
	if err != nil {
		return 0, err
	}
	now, err := read(b, newIndex, size)
	if err != nil {
		return 0, err
	}
	have := map[chunk.Sum]bool{}
	for _, c := range old.Chunks {
		have[c.Sum] = true
	}
	var fetched, at, start, run int64
	for _, c := range now.Chunks {
		n := int64(c.Len)
		if !have[c.Sum] {
			have[c.Sum] = true // the second of two equal chunks is copied
			gap := at - (start + run)
			if run > 0 && (gap <= smallGap || gap <= run/gapShare) && at+n-start <= maxRun {
				run = at + n - start
			} else {
				fetched += run
				start, run = at, n
			}
		}
		at += n
	}
	return fetched + run, nil
}

func printDiff(out io.Writer, d differences) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PART\tBYTES\tFETCHED\tSHARE")
	share := func(part, of int64) string {
		if of == 0 {
			return "-"
		}
		return fmt.Sprintf("%.1f%%", 100*float64(part)/float64(of))
	}
	for _, p := range d.Parts {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Part, show.Bytes(p.Bytes), show.Bytes(p.Fetched), share(p.Fetched, p.Bytes))
	}
	fmt.Fprintf(w, "all\t%s\t%s\t%s\n", show.Bytes(d.Bytes), show.Bytes(d.Fetched), share(d.Fetched, d.Bytes))
	if err := w.Flush(); err != nil {
		return err
	}
	kind := "a new system: boxes reboot once"
	if d.SameSystem {
		kind = "the system is the same: boxes do not reboot"
	}
	fmt.Fprintf(out, "\n%s -> %s: %s\n", d.From, d.To, kind)
	return nil
}
