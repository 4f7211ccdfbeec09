// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"

	"github.com/holdfast/holdfast/compose/lock"
)

// maxStatus bounds one package list inside an image.
const maxStatus = 32 << 20

// packagesVersion rises when imagePackages finds something else in the same
// image.
const packagesVersion = 1

// packagesOf is imagePackages of a pinned image, read once for each digest: an
// image may be many gigabytes in a registry.
func packagesOf(ctx context.Context, cache string, pin lock.Image, img v1.Image) ([]lock.Package, error) {
	const name = "packages.json"
	dir, _, err := product(ctx, cache, "imagepackages", key("imagepackages", packagesVersion, pin.Digest), func(dir string) error {
		list, err := imagePackages(img)
		if err != nil {
			return err
		}
		b, err := json.Marshal(list)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name), b, 0o644)
	})
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	var list []lock.Package
	return list, json.Unmarshal(b, &list)
}

// imagePackages are the Debian packages that an image's own lists name: dpkg's
// status file, or the status.d folder of images made without dpkg. Lists of
// higher layers replace those of lower ones, as files do.
func imagePackages(img v1.Image) ([]lock.Package, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, l := range layers {
		if err := statusFiles(l, files); err != nil {
			return nil, err
		}
	}
	var list []lock.Package
	for _, b := range files {
		for _, stanza := range strings.Split(string(b), "\n\n") {
			f := map[string]string{}
			for _, line := range strings.Split(stanza, "\n") {
				if k, v, ok := strings.Cut(line, ": "); ok && k != "" && k[0] != ' ' {
					f[k] = strings.TrimSpace(v)
				}
			}
			if f["Package"] != "" && f["Version"] != "" {
				list = append(list, lock.Package{Name: f["Package"], Version: f["Version"], Arch: f["Architecture"]})
			}
		}
	}
	slices.SortFunc(list, func(a, b lock.Package) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	return slices.Compact(list), nil
}

func statusFiles(l v1.Layer, files map[string][]byte) error {
	verified, err := partial.CompressedToLayer(verifiedLayer{l})
	if err != nil {
		return err
	}
	r, err := verified.Uncompressed()
	if err != nil {
		return err
	}
	defer r.Close()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, r) // to the sum at its end
			return err
		}
		if err != nil {
			return fmt.Errorf("reading a layer: %w", err)
		}
		name := path.Clean("/" + h.Name)
		if h.Typeflag != tar.TypeReg || name != "/var/lib/dpkg/status" && path.Dir(name) != "/var/lib/dpkg/status.d" {
			continue
		}
		if h.Size > maxStatus {
			return fmt.Errorf("%s is longer than %d bytes", name, maxStatus)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			return err
		}
		files[name] = b
	}
}

// verifiedLayer is a layer whose bytes must have its digest: a layout is a
// folder anybody may have written to.
type verifiedLayer struct{ v1.Layer }

func (l verifiedLayer) Compressed() (io.ReadCloser, error) {
	want, err := l.Digest()
	if err != nil {
		return nil, err
	}
	r, err := l.Layer.Compressed()
	return &verifiedReader{ReadCloser: r, sum: sha256.New(), want: want}, err
}

type verifiedReader struct {
	io.ReadCloser
	sum  hash.Hash
	want v1.Hash
}

func (r *verifiedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.sum.Write(p[:n])
	if errors.Is(err, io.EOF) && hex.EncodeToString(r.sum.Sum(nil)) != r.want.Hex {
		return n, fmt.Errorf("layer %s is damaged: it hashes to sha256:%x", r.want, r.sum.Sum(nil))
	}
	return n, err
}
