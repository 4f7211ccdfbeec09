// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"archive/tar"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/holdfast/holdfast/compose/lock"
)

// maxStatus bounds one package list inside an image.
const maxStatus = 32 << 20

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
	r, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer r.Close()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
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
