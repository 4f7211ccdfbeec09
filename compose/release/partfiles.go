// SPDX-License-Identifier: Apache-2.0

package release

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// PartFiles are the files of a release's parts, by path.
type PartFiles struct {
	UKI, UKIChunks, Root, RootChunks, Boot, SBOM string
	// Link makes the parts hard links of these files where the file system
	// allows it, which then must not be written to again.
	Link bool
	// Keep, unless empty, is a folder that image layers are kept in under the
	// hex of their digest: one that is there is verified and linked to, so
	// that a later release of the same images copies nothing. One writer at a
	// time.
	Keep string
}

// parts puts the files of the parts under their digests. want, which may be
// nil, is what they must come to.
func (w *writer) parts(ctx context.Context, files PartFiles, want *Parts) (*Parts, error) {
	var p Parts
	for i, f := range []struct {
		path string
		blob *PartBlob
	}{{files.UKI, &p.UKI}, {files.UKIChunks, &p.UKIChunks}, {files.Root, &p.Root}, {files.RootChunks, &p.RootChunks}, {files.Boot, &p.Boot}, {files.SBOM, &p.SBOM}} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		part := p.layers()[i]
		var err error
		if *f.blob, err = hashFile(f.path, part.limit); err != nil {
			return nil, fmt.Errorf("release: parts.%s: %w", part.name, err)
		}
		if want != nil && want.layers()[i].PartBlob != *f.blob {
			return nil, fmt.Errorf("release: parts.%s is %s, the description says %s", part.name, f.blob.Digest, want.layers()[i].Digest)
		}
		if err := w.place(f.path, *f.blob, files.Link); err != nil {
			return nil, fmt.Errorf("release: parts.%s: %w", part.name, err)
		}
	}
	return &p, nil
}

// hashFile is the blob that a file of at most limit bytes is.
func hashFile(path string, limit int64) (PartBlob, error) {
	f, err := os.Open(path)
	if err != nil {
		return PartBlob{}, err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(f, limit+1))
	if err != nil {
		return PartBlob{}, err
	}
	if n == 0 || n > limit {
		return PartBlob{}, fmt.Errorf("%s must have 1 to %d bytes", path, limit)
	}
	return PartBlob{Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Size: n}, nil
}

// place makes the file at path the blob b, by a link where it may.
func (w *writer) place(path string, b PartBlob, link bool) error {
	if w.done[b.Digest] {
		return nil
	}
	// A link may not be possible: another file system, too many links.
	if link && os.Link(path, w.path(b.Digest)) == nil {
		w.done[b.Digest] = true
		return nil
	}
	h, err := v1.NewHash(b.Digest)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return w.blob(h, b.Size, f)
}

// layer writes one layer of an image, from the folder of kept ones where it
// is there whole, and into it where it is not.
func (w *writer) layer(h v1.Hash, size int64, open func() (io.ReadCloser, error)) error {
	if w.keep == "" {
		rc, err := open()
		if err != nil {
			return err
		}
		return w.blob(h, size, rc)
	}
	if !digestForm.MatchString(h.String()) {
		return fmt.Errorf("blob %s: only sha256 digests are taken", h)
	}
	want, kept := PartBlob{h.String(), size}, filepath.Join(w.keep, h.Hex)
	if got, err := hashFile(kept, size); err != nil || got != want {
		if err := keepLayer(kept, h, size, open); err != nil {
			return err
		}
	}
	return w.place(kept, want, true)
}

// keepLayer gives a layer its name in the folder of kept ones once it is
// whole; if power is lost on the way, its digest tells.
func keepLayer(path string, h v1.Hash, size int64, open func() (io.ReadCloser, error)) (err error) {
	rc, err := open()
	if err != nil {
		return err
	}
	defer rc.Close()
	f, err := os.CreateTemp(filepath.Dir(path), ".writing-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := errors.Join(copyBlob(f, h, size, rc), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
