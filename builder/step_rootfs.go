// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/holdfast/holdfast/builder/debian"
	"github.com/holdfast/holdfast/builder/sandbox"
	"github.com/holdfast/holdfast/compose/lock"
)

// rootfsVersion rises when stepRootfs makes something else of the same input.
const rootfsVersion = 1

// stepRootfs installs exactly the lock's packages into a root and keeps it as
// one compressed tar. Only packages and the tools tree enter its key, so a
// change of stack or supervisor never unpacks a package again.
func stepRootfs(ctx context.Context, w *work) (made, error) {
	k := key("rootfs", rootfsVersion, w.tree.Hash, w.lock.OS, w.lock.Epoch, w.cfg.OS.Purge, debian.Exclude, debian.Include)
	dir, cached, err := product(ctx, w.cfg.Cache, "rootfs", k, func(dir string) error {
		repo := filepath.Join(dir, "repo")
		if err := w.debs.Repo(ctx, w.lock.OS, repo); err != nil {
			return err
		}
		cmd := debian.RootTar(w.lock.OS, w.lock.Epoch, w.cfg.OS.Purge)
		cmd.Binds = []sandbox.Bind{{Host: repo, Tree: debian.RepoAt, ReadOnly: true}}
		if err := writeFrom(filepath.Join(dir, "root.tar.zst"), func(out io.Writer) error {
			// The fastest level: the tar is read back once per seal, and the
			// encoder keeps up with dpkg on half a core.
			z, err := zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
			if err != nil {
				return err
			}
			cmd.Stdout = z
			return errors.Join(w.tree.Run(ctx, cmd), z.Close())
		}); err != nil {
			return err
		}
		return os.RemoveAll(repo)
	})
	if err != nil {
		return made{}, err
	}
	w.rootTar = filepath.Join(dir, "root.tar.zst")
	w.rootKey = k
	return madeFile(cached, w.rootTar)
}

// kernelPackage is the one package of the lock that holds a kernel.
func kernelPackage(set lock.PackageSet) (p lock.Package, release string, err error) {
	for _, q := range set.Packages {
		r, ok := strings.CutPrefix(q.Name, "linux-image-")
		if !ok || r == "" || r[0] < '0' || r[0] > '9' {
			continue
		}
		if release != "" {
			return p, "", fmt.Errorf("the lock names two kernels, %s and %s; keep one in extra_packages", p.Name, q.Name)
		}
		p, release = q, r
	}
	if release == "" {
		return p, "", errors.New("the lock names no kernel package (linux-image-…)")
	}
	return p, release, nil
}

// writeFrom makes a new file from what fill writes.
func writeFrom(path string, fill func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(fill(f), f.Close())
}

// madeFile reports a product that is one file.
func madeFile(cached bool, path string) (made, error) {
	st, err := os.Stat(path)
	if err != nil {
		return made{}, err
	}
	return made{cached, st.Size()}, nil
}
