// SPDX-License-Identifier: Apache-2.0

package stackimage

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/images/durable"
)

// Annotations under which a layout's index names an image: the first is the
// OCI one, the second is what containerd, and so docker load, goes by.
const (
	refName        = "org.opencontainers.image.ref.name"
	containerdName = "io.containerd.image.name"
)

var platform = v1.Platform{OS: "linux", Architecture: "amd64"}

// blobLayer is a finished layer in the cache.
type blobLayer struct {
	rec  *record
	file string
}

func (l blobLayer) Digest() (v1.Hash, error) {
	return v1.Hash{Algorithm: "sha256", Hex: l.rec.Digest}, nil
}
func (l blobLayer) DiffID() (v1.Hash, error) {
	return v1.Hash{Algorithm: "sha256", Hex: l.rec.DiffID}, nil
}
func (l blobLayer) Size() (int64, error)                { return l.rec.Size, nil }
func (l blobLayer) MediaType() (types.MediaType, error) { return types.OCILayerZStd, nil }
func (l blobLayer) Compressed() (io.ReadCloser, error)  { return os.Open(l.file) }

// layout puts the images together and the folder in its place.
func (w *work) layout(ctx context.Context, records map[string]*record) (*Result, error) {
	start := time.Now()
	images := slices.Clone(w.recipe.Images)
	slices.SortFunc(images, func(a, b Image) int { return strings.Compare(a.Ref, b.Ref) })
	r := &Result{Layout: w.Layout, Packages: w.set}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	blobs := map[string]int64{}
	for _, im := range images {
		img, err := w.image(im, records)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", im.Ref, err)
		}
		built, err := describe(im, img, records, blobs)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", im.Ref, err)
		}
		r.Images = append(r.Images, built)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform: &platform, Annotations: map[string]string{refName: im.Ref, containerdName: im.Ref}}})
	}
	for _, n := range blobs {
		r.Size += n
	}
	raw, err := index.RawManifest()
	if err != nil {
		return nil, err
	}
	if old, err := os.ReadFile(filepath.Join(w.Layout, "index.json")); err == nil && bytes.Equal(old, raw) && checkBlobs(w.Layout, blobs) == nil {
		r.Unchanged = true
	} else if err := w.place(ctx, index, blobs); err != nil {
		return nil, fmt.Errorf("layout %s: %w", w.Layout, err)
	}
	w.done(Piece{Name: "layout", Took: time.Since(start), Bytes: r.Size, Cached: r.Unchanged})
	return r, nil
}

// image joins layers and configuration.
func (w *work) image(im Image, records map[string]*record) (v1.Image, error) {
	created := v1.Time{Time: time.Unix(w.Epoch, 0).UTC()}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	var adds []mutate.Addendum
	for _, l := range im.Layers {
		layer, err := partial.CompressedToLayer(blobLayer{records[l], w.blob(records[l].Digest)})
		if err != nil {
			return nil, err
		}
		adds = append(adds, mutate.Addendum{Layer: layer, MediaType: types.OCILayerZStd,
			History: v1.History{Created: created, CreatedBy: "layer " + l}})
	}
	img, err := mutate.Append(img, adds...)
	if err != nil {
		return nil, err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.Architecture, cf.OS, cf.Created = platform.Architecture, platform.OS, created
	c := im.Config
	cf.Config = v1.Config{Entrypoint: c.Entrypoint, Cmd: c.Cmd, User: c.User, Env: c.Env, WorkingDir: c.Workdir,
		Labels: c.Labels, StopSignal: c.StopSignal}
	if len(c.Ports) > 0 {
		cf.Config.ExposedPorts = map[string]struct{}{}
		for _, p := range c.Ports {
			cf.Config.ExposedPorts[p] = struct{}{}
		}
	}
	return mutate.ConfigFile(img, cf)
}

// describe is the result of one image; its blobs are added to blobs, hex
// digest to bytes.
func describe(im Image, img v1.Image, records map[string]*record, blobs map[string]int64) (Built, error) {
	digest, err := img.Digest()
	if err != nil {
		return Built{}, err
	}
	size, err := img.Size()
	if err != nil {
		return Built{}, err
	}
	m, err := img.Manifest()
	if err != nil {
		return Built{}, err
	}
	b := Built{Ref: im.Ref, Digest: digest.String(), Size: size + m.Config.Size}
	blobs[digest.Hex], blobs[m.Config.Digest.Hex] = size, m.Config.Size
	for _, l := range m.Layers {
		b.Size += l.Size
		blobs[l.Digest.Hex] = l.Size
	}
	for _, l := range im.Layers {
		for _, p := range records[l].Packages {
			b.Packages = append(b.Packages, p.Package)
		}
	}
	slices.SortFunc(b.Packages, func(x, y Package) int { return strings.Compare(x.Name, y.Name) })
	return b, nil
}

// place writes the folder under a temporary name beside its own, checks every
// byte of it, and exchanges it with the old one in one step.
func (w *work) place(ctx context.Context, index v1.ImageIndex, blobs map[string]int64) error {
	if err := os.MkdirAll(filepath.Dir(w.Layout), 0o755); err != nil {
		return err
	}
	// One fixed name: what a killed build left there is removed by the next.
	tmp := filepath.Join(filepath.Dir(w.Layout), "."+filepath.Base(w.Layout)+".new")
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if _, err := layout.Write(tmp, index); err != nil {
		return err
	}
	if err := checkBlobs(tmp, blobs); err != nil {
		return err
	}
	if err := syncAll(tmp); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, err := os.Lstat(w.Layout); err != nil {
		return durable.Rename(tmp, w.Layout)
	}
	// Never a moment without the folder; the old one is removed above.
	if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, w.Layout, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(w.Layout))
}

// checkBlobs verifies size and hash of every blob of a layout folder.
func checkBlobs(dir string, blobs map[string]int64) error {
	for _, h := range sortedKeys(blobs) {
		file := filepath.Join(dir, "blobs", "sha256", h)
		if sizeOf(file) != blobs[h] {
			return fmt.Errorf("blob %s is missing or of the wrong size", h)
		}
		if got, err := hashFile(file); err != nil || got != h {
			return fmt.Errorf("blob %s is damaged (%v)", h, err)
		}
	}
	return nil
}

// syncAll makes a folder's files and names durable before it gets its name.
func syncAll(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return durable.SyncDir(p)
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	})
}
