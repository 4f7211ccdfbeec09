// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast/holdfast/builder/show"
	"github.com/holdfast/holdfast/compose/depot"
	"github.com/holdfast/holdfast/compose/trust"
	"github.com/holdfast/holdfast/images/durable"
)

func publishCommand() *cobra.Command {
	var o signing
	var of offering
	var to string
	var incomplete bool
	cmd := &cobra.Command{
		Use: "publish", Short: "sign a release and put it where boxes look", Args: noArgs,
		Long: `Signs a release (see sign), renews snapshot and timestamp, and copies all that
boxes fetch to a folder, which may be a web server's or on a USB disk, or to a
repository of an OCI registry. Blobs come first and timestamp.json last: a box
that looks meanwhile sees the old list or the new one. Interrupted, it goes on
where it was.

Without --release it publishes the list as it is: run it every week, because
the timestamp is valid for 14 days.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "keys", "to"); err != nil {
				return err
			}
			r, err := o.open()
			if err != nil {
				return err
			}
			defer o.close()
			var l *local
			if of.release != "" {
				if l, err = openLocal(of.release, of.layouts); err != nil {
					return err
				}
			}
			dest, err := openDest(cmd.Context(), to)
			if err != nil {
				return err
			}
			defer dest.close()
			// Before anything is signed: a place that is ahead of these keys
			// would make versions that were used already.
			if err := r.Fits(cmd.Context(), dest); err != nil {
				return fmt.Errorf("%s: %w", to, err)
			}
			if l != nil {
				if err := of.offer(cmd, l, r); err != nil {
					return err
				}
			}
			if err := r.Settle(cmd.Context(), trust.RoleSnapshot, trust.RoleTimestamp); err != nil {
				return err
			}
			report(r, cmd.ErrOrStderr())
			files, err := r.Files()
			if err != nil {
				return err
			}
			n := int64(0)
			if l != nil {
				if n, err = dest.release(cmd.Context(), l, cmd.ErrOrStderr()); err != nil {
					return fmt.Errorf("%s: %w", to, err)
				}
			}
			list, err := r.Releases()
			if err != nil {
				return err
			}
			if !incomplete {
				if err := complete(cmd.Context(), dest, list, to); err != nil {
					return err
				}
			}
			if err := dest.metadata(cmd.Context(), files); err != nil {
				return fmt.Errorf("%s: %w", to, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s has %s, %s were new\n", to, releases(len(list)), show.Bytes(n))
			return nil
		},
	}
	o.flags(cmd, true)
	of.flags(cmd, "the folder of the release")
	cmd.Flags().BoolVar(&incomplete, "incomplete", false, "publish the list although releases in it are not there, such as those of bundles")
	cmd.Flags().StringVar(&to, "to", "", "where to: a folder, or oci://HOST/REPOSITORY")
	return cmd
}

// complete checks that the place has each release of the list: a box would
// choose the newest, and fail to fetch it.
func complete(ctx context.Context, d dest, list []trust.Target, to string) error {
	for _, t := range list {
		rc, err := d.Blob(ctx, t.Digest, 0, t.Size)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the list has %s, and %s does not: publish it there with --release, withdraw it, or say --incomplete if it is for bundles alone", t.Path(), to)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", to, err)
		}
		if err := rc.Close(); err != nil {
			return err
		}
	}
	return nil
}

// dest is a place to publish to.
type dest interface {
	trust.Source
	Blob(ctx context.Context, digest string, offset, length int64) (io.ReadCloser, error)
	// release copies a release's blobs that are not there yet, and says how
	// many bytes that were.
	release(ctx context.Context, l *local, out io.Writer) (int64, error)
	// metadata writes the list, in order.
	metadata(ctx context.Context, files []trust.File) error
	close() error
}

func openDest(ctx context.Context, to string) (dest, error) {
	scheme, _, isURL := strings.Cut(to, "://")
	switch {
	case scheme == "oci" || scheme == "oci+http":
		return openRepo(ctx, to)
	case isURL:
		return nil, usageError{fmt.Errorf("--to: %s is no place that can be written to: name the web server's folder, or oci://HOST/REPOSITORY", to)}
	}
	if info, err := os.Stat(to); err == nil && !info.IsDir() {
		return nil, usageError{fmt.Errorf("--to: %s is a file; for a bundle see holdfast-release bundle", to)}
	}
	if err := os.MkdirAll(filepath.Join(to, "blobs/sha256"), 0o755); err != nil {
		return nil, err
	}
	d, err := depot.Open(ctx, to, depot.Options{})
	if err != nil {
		return nil, err
	}
	return &folderDest{Depot: d, dir: to}, nil
}

type folderDest struct {
	depot.Depot
	dir string
}

func (f *folderDest) close() error { return f.Close() }

func (f *folderDest) release(ctx context.Context, l *local, out io.Writer) (n int64, err error) {
	m := newMeter(out, l.name())
	total := int64(0)
	for _, b := range l.blobs {
		total += b.Size
	}
	done := int64(0)
	for _, b := range l.blobs {
		path := filepath.Join(f.dir, blobName(b.Digest))
		// A blob has its name only when it is whole.
		if info, err := os.Stat(path); err != nil || info.Size() != b.Size {
			if err := durable.Write(path, 0o644, func(w io.Writer) error { return l.copyBlob(ctx, w, b) }); err != nil {
				return n, err
			}
			n += b.Size
		}
		done += b.Size
		m.tick(done, total)
	}
	index, err := f.index(l)
	if err != nil {
		return n, err
	}
	layout, err := readUpTo(filepath.Join(l.dir, "oci-layout"), 4096)
	if err != nil {
		return n, err
	}
	if err := durable.WriteFile(filepath.Join(f.dir, "oci-layout"), layout, 0o644); err != nil {
		return n, err
	}
	return n, durable.WriteFile(filepath.Join(f.dir, "index.json"), index, 0o644)
}

// index joins what the folder lists with a release: boxes do not read it,
// tools for OCI layouts do.
func (f *folderDest) index(l *local) ([]byte, error) {
	type list struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
	}
	var all, add list
	old, err := readUpTo(filepath.Join(f.dir, "index.json"), maxIndexJSON)
	if err == nil {
		err = json.Unmarshal(old, &all)
	}
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("%s/index.json: %w", f.dir, err)
	}
	if err := json.Unmarshal(l.index, &add); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, m := range all.Manifests {
		seen[string(m)] = true
	}
	for _, m := range add.Manifests {
		if !seen[string(m)] {
			all.Manifests = append(all.Manifests, m)
		}
	}
	all.SchemaVersion, all.MediaType = add.SchemaVersion, add.MediaType
	return json.Marshal(all)
}

func (f *folderDest) metadata(_ context.Context, files []trust.File) error {
	dir := filepath.Join(f.dir, trust.MetadataDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, file := range files {
		path := filepath.Join(dir, file.Name)
		if old, err := os.ReadFile(path); err == nil && string(old) == string(file.Data) {
			continue
		}
		if err := durable.WriteFile(path, file.Data, fs.FileMode(0o644)); err != nil {
			return err
		}
	}
	return nil
}

func releases(n int) string {
	if n == 1 {
		return "1 release"
	}
	return fmt.Sprintf("%d releases", n)
}
