// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/appliance/supervise"
	"github.com/holdfast/holdfast/compose/release"
)

// ImagesDir is the store of the stacks' images on state: an OCI layout's blobs.
func ImagesDir(state string) string { return filepath.Join(state, imagesDir) }

// manifests brings the manifests of all images, so that what is missing of them
// is known before the first large byte, and gives the blobs they name, each
// once.
func (r *run) manifests(ctx context.Context) ([]release.PartBlob, error) {
	var out []release.PartBlob
	seen := map[string]bool{}
	for _, im := range r.desc.Images {
		if seen[im.Digest] {
			continue
		}
		seen[im.Digest] = true
		what := "the manifest of image " + im.Ref
		// Always to the store, so that it says which blobs are in use.
		b := release.PartBlob{Digest: im.Digest, Size: im.Manifest}
		raw, err := r.read(ctx, what, b, blobIn(ImagesDir(r.q.State), b.Digest), append(r.contents[:len(r.contents):len(r.contents)], r.q.Layouts...))
		if err != nil {
			return nil, err
		}
		blobs, err := im.Blobs(raw)
		if err != nil {
			return nil, &RefusedError{what, "can't be used: " + err.Error()}
		}
		for _, b := range blobs {
			if !seen[b.Digest] {
				seen[b.Digest] = true
				out = append(out, release.PartBlob(b))
			}
		}
	}
	return out, nil
}

// images brings blobs into the store.
func (r *run) images(ctx context.Context, blobs []release.PartBlob) error {
	var all int64
	for _, b := range blobs {
		all += b.Size
	}
	r.meter.step("images", "the stack's images", all)
	for _, b := range blobs {
		if err := r.image(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) image(ctx context.Context, b release.PartBlob) error {
	path := blobIn(ImagesDir(r.q.State), b.Digest)
	if !whole(path, b.Size) {
		for _, dir := range r.q.Layouts {
			if right, err := r.fileIs(ctx, blobIn(dir, b.Digest), b); err != nil {
				return err
			} else if right {
				r.meter.done(b.Size, true)
				return nil
			}
		}
	}
	return r.bring(ctx, "image layer "+b.Digest, b, path)
}

// Images is the source of a release's images: blobs from the store on state,
// then from layouts ("the factory"). A copy in the store that went bad is let
// go of: another Run fetches it anew.
func Images(state string, rel *release.Release, layouts ...string) supervise.Source {
	s := &store{dir: ImagesDir(state), layouts: layouts}
	return &images{s, rel.WithBlobs(s)}
}

type images struct {
	store *store
	rel   *release.Release
}

func (s *images) WriteImage(ctx context.Context, w io.Writer, digest string, progress func(done, total int64)) error {
	err := s.rel.WriteImage(ctx, w, digest, progress)
	var bad *release.CorruptError
	if !errors.As(err, &bad) || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	path := blobIn(s.store.dir, bad.Blob)
	if _, there := os.Lstat(path); there != nil {
		return err // a layout's: the factory is damaged
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return fmt.Errorf("%w: blob %s: %v", supervise.ErrCopyDamaged, bad.Blob, bad.Err)
}

// store is a file system of blobs: those of the store, then those of layouts.
type store struct {
	dir     string
	layouts []string
}

// Open implements fs.FS for names like "blobs/sha256/<hex>".
func (s *store) Open(name string) (fs.File, error) {
	hex, ok := strings.CutPrefix(name, blobDir+"/")
	if !ok || !digestForm.MatchString("sha256:"+hex) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	for _, dir := range append([]string{s.dir}, s.layouts...) {
		f, err := os.OpenFile(filepath.Join(dir, blobDir, hex), os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			return f, nil
		}
		f.Close()
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}
