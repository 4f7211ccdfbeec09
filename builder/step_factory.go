// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/holdfast/holdfast/builder/sandbox"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/compose/release"
)

// factoryVersion rises when stepFactory makes something else of the same
// input.
const factoryVersion = 2

// stepImages opens every image of the lock where it can be had, or names all
// that cannot be; the bytes of an embedded one are read, and checked, when the
// factory is made.
func stepImages(ctx context.Context, w *work) (made, error) {
	images := make(map[string]v1.Image, len(w.lock.Images))
	var total int64
	var missing []error
	for _, i := range w.lock.Images {
		img, err := lock.Open(ctx, i, w.cfg.Layouts, lock.RegistryOptions{})
		var none *lock.NotFoundError
		switch {
		case errors.As(err, &none):
			missing = append(missing, err)
		case err != nil:
			return made{}, err
		}
		images[i.Ref] = img
		total += i.Size
	}
	if len(missing) > 0 {
		return made{}, errors.Join(missing...)
	}
	w.images = images
	if w.cfg.Factory == Seed {
		sayWhence(ctx, w)
	}
	return made{bytes: total}, nil
}

// sayWhence tells the vendor of a seed bake from where boxes will fetch: a
// layout on this host is none of their sources.
func sayWhence(ctx context.Context, w *work) {
	var local []string
	for _, i := range w.lock.Images {
		if _, err := lock.Open(ctx, i, w.cfg.Layouts, lock.RegistryOptions{Offline: true}); err == nil {
			local = append(local, i.Ref)
		}
	}
	if len(local) > 0 {
		w.p.Warn("factory = seed: %s came from a layout of this host. Boxes fetch images by digest from the registries in their names: push these there unchanged, or give the layout to the admins (docs/seed.md).", strings.Join(local, ", "))
	}
}

// stepFactory makes the factory partition: the signed release, with the
// stack's images unless it is a seed, as an OCI layout in a squashfs.
func stepFactory(ctx context.Context, w *work) (made, error) {
	var stackTar bytes.Buffer
	if err := w.stack.Tar(&stackTar); err != nil {
		return made{}, err
	}
	d, err := w.describe()
	if err != nil {
		return made{}, err
	}
	k := key("factory", factoryVersion, w.tree.Hash, d, w.cert.Raw)
	dir, cached, err := product(ctx, w.cfg.Cache, "factory", k, func(dir string) error {
		layout := filepath.Join(dir, "release")
		keep, unlock, err := keptLayers(w.cfg.Cache)
		if err != nil {
			return err
		}
		defer unlock()
		if err := release.WriteKept(ctx, layout, d, stackTar.Bytes(), w.images, keep, w.key); err != nil {
			return err
		}
		if err := packFolder(ctx, w, layout, dir, "factory.img"); err != nil {
			return err
		}
		return os.RemoveAll(layout)
	})
	if err != nil {
		return made{}, err
	}
	w.factory, w.factoryKey = filepath.Join(dir, "factory.img"), k
	return madeFile(cached, w.factory)
}

// packFolder packs the folder from into the squashfs dir/name.
func packFolder(ctx context.Context, w *work, from, dir, name string) error {
	r, wr := io.Pipe()
	go func() { wr.CloseWithError(tarFolder(wr, from, w.lock.Epoch)) }()
	err := w.tree.Run(ctx, sandbox.Cmd{Args: squashfsArgs(w.lock.Epoch, "/run/holdfast/out/"+name), Stdin: r,
		Binds: []sandbox.Bind{{Host: dir, Tree: "/run/holdfast/out"}}})
	r.CloseWithError(errors.New("the packer of the factory ended early"))
	return err
}

// tarFolder writes plain files and folders in the order of their names, all
// owned by root and of one time.
func tarFolder(dst io.Writer, from string, epoch int64) error {
	tw := tar.NewWriter(dst)
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == from {
			return err
		}
		name, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: name, Mode: 0o644, ModTime: time.Unix(epoch, 0).UTC(), Format: tar.FormatPAX}
		if d.IsDir() {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
			return tw.WriteHeader(h)
		}
		if !st.Mode().IsRegular() {
			return fmt.Errorf("%s is no plain file", p)
		}
		h.Typeflag, h.Size = tar.TypeReg, st.Size()
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(tw, f)
		return err
	})
	if err != nil {
		return err
	}
	return tw.Close()
}
