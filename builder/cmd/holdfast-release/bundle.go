// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/builder/show"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/compose/trust"
	"github.com/holdfast/holdfast/images/durable"
)

func bundleCommand() *cobra.Command {
	var o signing
	var of offering
	var out string
	cmd := &cobra.Command{
		Use: "bundle", Short: "put a release into one file, for boxes without a network", Args: noArgs,
		Long: `Signs a release (see sign) if it is not signed yet, and writes it with all that
boxes need to check it to one tar file: an OCI layout and the list of releases.
No timestamp is in it; the list is valid for 400 days by default.

The file appears whole or not at all, and equal inputs make equal bytes. On a
USB disk, put it into a folder named holdfast, with a name that ends in .bundle.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "keys", "release", "out"); err != nil {
				return err
			}
			r, err := o.open()
			if err != nil {
				return err
			}
			defer o.close()
			l, err := openLocal(of.release, of.layouts)
			if err != nil {
				return err
			}
			if err := of.offer(cmd, l, r); err != nil {
				return err
			}
			files, err := r.BundleFiles()
			if err != nil {
				return err
			}
			report(r, cmd.ErrOrStderr())
			if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
				return err
			}
			if err := durable.Write(out, 0o644, func(w io.Writer) error {
				return writeBundle(cmd.Context(), w, l, files, newMeter(cmd.ErrOrStderr(), l.name()))
			}); err != nil {
				return err
			}
			info, err := os.Stat(out)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s\t%s\n", out, show.Bytes(info.Size()))
			return nil
		},
	}
	o.flags(cmd, true)
	of.flags(cmd, "the folder of the release")
	cmd.Flags().StringVar(&out, "out", "", "the file to write")
	return cmd
}

// writeBundle writes the tar: what is small and says what follows first, then
// the blobs by their digests.
func writeBundle(ctx context.Context, w io.Writer, l *local, files []trust.File, m *meter) error {
	t := tar.NewWriter(w)
	plain := func(name string, data []byte) error {
		if err := t.WriteHeader(memberOf(name, int64(len(data)))); err != nil {
			return err
		}
		_, err := t.Write(data)
		return err
	}
	layout, err := readUpTo(filepath.Join(l.dir, "oci-layout"), 4096)
	if err != nil {
		return err
	}
	if err := plain("oci-layout", layout); err != nil {
		return err
	}
	if err := plain("index.json", l.index); err != nil {
		return err
	}
	for _, f := range files {
		if err := plain(trust.MetadataDir+"/"+f.Name, f.Data); err != nil {
			return err
		}
	}
	blobs := slices.Clone(l.blobs)
	slices.SortFunc(blobs, func(a, b release.PartBlob) int { return strings.Compare(a.Digest, b.Digest) })
	done, total := int64(0), int64(0)
	for _, b := range blobs {
		total += b.Size
	}
	for _, b := range blobs {
		if err := t.WriteHeader(memberOf(blobName(b.Digest), b.Size)); err != nil {
			return err
		}
		if err := l.copyBlob(ctx, t, b); err != nil {
			return err
		}
		done += b.Size
		m.tick(done, total)
	}
	return t.Close()
}

func memberOf(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, Format: tar.FormatUSTAR}
}
