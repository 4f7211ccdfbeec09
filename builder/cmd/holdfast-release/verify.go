// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/builder/show"
	"github.com/holdfast/holdfast/compose/depot"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/compose/trust"
)

type verifyOptions struct {
	root   string
	accept bool
	only   string
}

func verifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use: "verify REF", Short: "read every byte of what is published, and check it as a box would", Args: oneArg("a folder, a bundle, https:// or oci://"),
		Long: `Reads what a place offers as a box does that has this root sealed in its image
and has never seen a release: the chain of roots, the list with its expiry, and
then every byte of every release in it.

REF is a folder, a bundle file, https://HOST/FOLDER or oci://HOST/REPOSITORY.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := required(cmd, "root"); err != nil {
				return err
			}
			return verifyPlace(cmd.Context(), args[0], o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.root, "root", "", "the root of trust, root.json of any age")
	f.BoolVar(&o.accept, "accept-expired", false, "take what has expired, and say so; nothing else is waived")
	f.StringVar(&o.only, "release", "", "NAME-VERSION of one release (default all)")
	return cmd
}

func verifyPlace(ctx context.Context, ref string, o verifyOptions, answer, out io.Writer) error {
	root, err := readUpTo(o.root, trust.MaxRoot)
	if err != nil {
		return err
	}
	d, err := depot.Open(ctx, ref, depot.Options{Proxy: http.ProxyFromEnvironment})
	if err != nil {
		return err
	}
	defer d.Close()
	tmp, err := os.MkdirTemp("", "holdfast-verify-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	store, err := trust.Open(tmp, root)
	if err != nil {
		return fmt.Errorf("%s: %w", o.root, err)
	}
	list, err := store.Refresh(ctx, d, trust.Options{
		Now: time.Now(), AcceptExpired: o.accept, Offline: d.Offline(), Log: func(s string) { fmt.Fprintln(out, s) },
	})
	if err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	v := &verifier{from: d, done: map[string]bool{}, meter: newMeter(out, "read")}
	w := tabwriter.NewWriter(answer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "RELEASE\tEPOCH\tROLLOUT\tCHANNELS\tBYTES\tDIGEST")
	found := 0
	for _, t := range list {
		if o.only != "" && t.Path() != o.only {
			continue
		}
		// A bundle lists all releases and carries one.
		if d.Offline() && !v.has(ctx, t) {
			fmt.Fprintf(w, "%s\t%d\t%d%%\t%s\tnot in this bundle\t%s\n", t.Path(), t.Epoch, t.Rollout, strings.Join(t.Channels, ","), t.Digest)
			continue
		}
		n, err := v.target(ctx, t)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", ref, t.Path(), err)
		}
		found++
		fmt.Fprintf(w, "%s\t%d\t%d%%\t%s\t%s\t%s\n", t.Path(), t.Epoch, t.Rollout, strings.Join(t.Channels, ","), show.Bytes(n), t.Digest)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if found == 0 && (o.only != "" || d.Offline()) {
		return fmt.Errorf("%s: it does not have the release that it should: publish or bundle it again", ref)
	}
	fmt.Fprintf(out, "%s: every byte is as signed\n", ref)
	return nil
}

// verifier reads blobs, each once.
type verifier struct {
	from  depot.Depot
	done  map[string]bool
	meter *meter
	// read of total bytes, as far as manifests have said how many there are.
	read, total int64
}

func (v *verifier) has(ctx context.Context, t trust.Target) bool {
	rc, err := v.from.Blob(ctx, t.Digest, 0, t.Size)
	if err != nil {
		return false
	}
	rc.Close()
	return true
}

// target reads all of one release and says how many bytes that are.
func (v *verifier) target(ctx context.Context, t trust.Target) (int64, error) {
	if t.Size > release.MaxManifest {
		return 0, fmt.Errorf("its manifest has %d bytes", t.Size)
	}
	manifest, err := v.small(ctx, release.PartBlob{Digest: t.Digest, Size: t.Size})
	if err != nil {
		return 0, err
	}
	config, layers, err := release.ParseManifest(manifest)
	if err != nil {
		return 0, err
	}
	raw, err := v.small(ctx, config)
	if err != nil {
		return 0, err
	}
	desc, err := release.ParseDescription(raw)
	if err != nil {
		return 0, err
	}
	if err := desc.Matches(layers); err != nil {
		return 0, err
	}
	if desc.Name != t.Name || desc.Version != t.Version || desc.Epoch != t.Epoch {
		return 0, fmt.Errorf("the list says %s of epoch %d, its description %s-%s of epoch %d: sign it again", t.Path(), t.Epoch, desc.Name, desc.Version, desc.Epoch)
	}
	total := t.Size + config.Size
	for _, layer := range layers {
		total += layer.Size
	}
	for _, im := range desc.Images {
		total += im.Size
	}
	v.total += total
	for _, layer := range layers {
		if err := v.blob(ctx, layer.PartBlob, io.Discard); err != nil {
			return 0, err
		}
	}
	for _, im := range desc.Images {
		manifest, err := v.small(ctx, release.PartBlob{Digest: im.Digest, Size: im.Manifest})
		if err != nil {
			return 0, fmt.Errorf("the image %s: %w", im.Ref, err)
		}
		blobs, err := im.Blobs(manifest)
		if err != nil {
			return 0, fmt.Errorf("the image %s: %w", im.Ref, err)
		}
		for _, b := range blobs {
			if err := v.blob(ctx, release.PartBlob(b), io.Discard); err != nil {
				return 0, fmt.Errorf("the image %s: %w", im.Ref, err)
			}
		}
	}
	return total, nil
}

// small reads a blob into memory, however often it is named.
func (v *verifier) small(ctx context.Context, b release.PartBlob) ([]byte, error) {
	if b.Size > release.MaxManifest {
		return nil, fmt.Errorf("%s has %d bytes, too many for a manifest", b.Digest, b.Size)
	}
	var buf strings.Builder
	delete(v.done, b.Digest)
	err := v.blob(ctx, b, &buf)
	return []byte(buf.String()), err
}

func (v *verifier) blob(ctx context.Context, b release.PartBlob, w io.Writer) error {
	if v.done[b.Digest] {
		return nil
	}
	rc, err := v.from.Blob(ctx, b.Digest, 0, b.Size)
	if err != nil {
		return err
	}
	defer rc.Close()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(rc, b.Size+1))
	if err != nil {
		return fmt.Errorf("%s: %w", b.Digest, err)
	}
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); n != b.Size || got != b.Digest {
		return fmt.Errorf("%s is damaged: %d bytes that hash to %s; publish it again", b.Digest, n, got)
	}
	v.done[b.Digest] = true
	v.read += n
	v.meter.tick(v.read, max(v.total, v.read+1))
	return nil
}
