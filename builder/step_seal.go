// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/klauspost/compress/zstd"

	"github.com/holdfast/holdfast/builder/sandbox"
	"github.com/holdfast/holdfast/images/verity"
)

// sealVersion rises when stepSeal makes something else of the same input.
const sealVersion = 2

// squashfsArgs: zstd at level 3 in blocks of 128 KiB packs in seconds, and a
// later release shares most of its blocks with this one.
func squashfsArgs(epoch int64, out string) []string {
	return []string{"tar2sqfs", "--quiet", "--no-skip", "--force", "--compressor", "zstd", "--comp-extra", "level=3",
		"--block-size", "131072", "--num-jobs", "2", "--defaults", "mtime=" + strconv.FormatInt(epoch, 10), out}
}

// Files of a sealed root. They are two because a release has only the first.
const (
	rootFile = "root.squashfs"
	treeFile = "root.verity"
)

// stepSeal lays the supervisor and our files over the root, packs it and
// makes the dm-verity tree that follows it in a slot.
func stepSeal(ctx context.Context, w *work) (made, error) {
	k := key("seal", sealVersion, w.rootKey, overlayHash(w.add), w.cfg.OS.Remove, w.cfg.OS.Move)
	dir, cached, err := product(ctx, w.cfg.Cache, "seal", k, func(dir string) error { return seal(ctx, w, dir) })
	if err != nil {
		return made{}, err
	}
	b, err := os.ReadFile(filepath.Join(dir, "seal.json"))
	if err != nil {
		return made{}, err
	}
	w.seal.image, w.seal.tree, w.seal.key = filepath.Join(dir, rootFile), filepath.Join(dir, treeFile), k
	if err := json.Unmarshal(b, &w.seal.meta); err != nil {
		return made{}, fmt.Errorf("%s: %w; remove that folder and bake again", dir, err)
	}
	return made{cached, w.seal.meta.Bytes}, nil
}

func seal(ctx context.Context, w *work, dir string) error {
	src, err := os.Open(w.rootTar)
	if err != nil {
		return err
	}
	defer src.Close()
	z, err := zstd.NewReader(src)
	if err != nil {
		return err
	}
	defer z.Close()
	r, wr := io.Pipe()
	merged := make(chan error, 1)
	go func() {
		err := merge(wr, z, w.add, w.cfg.OS, w.lock.Epoch)
		wr.CloseWithError(err)
		merged <- err
	}()
	err = w.tree.Run(ctx, sandbox.Cmd{Args: squashfsArgs(w.lock.Epoch, "/run/holdfast/out/"+rootFile), Stdin: r,
		Binds: []sandbox.Bind{{Host: dir, Tree: "/run/holdfast/out"}}})
	r.CloseWithError(errors.New("the packer of the root ended early"))
	if merr := <-merged; merr != nil && err == nil {
		err = merr
	}
	if err != nil {
		return err
	}
	meta, err := makeVerity(ctx, dir)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(meta, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "seal.json"), b, 0o644)
}

// makeVerity makes the hash tree of the squashfs in dir. Salt and UUID derive
// from its content, so that equal roots are equal images.
func makeVerity(ctx context.Context, dir string) (m sealMeta, err error) {
	f, err := os.OpenFile(filepath.Join(dir, rootFile), os.O_RDWR, 0)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return m, err
	}
	// dm-verity works in whole blocks; squashfs pads to 4 KiB, others may not.
	size := (n + 4095) / 4096 * 4096
	if err := f.Truncate(size); err != nil {
		return m, err
	}
	salt := h.Sum(nil)
	uuid := [16]byte(sha256.New().Sum(salt)[:16])
	tree, err := os.OpenFile(filepath.Join(dir, treeFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	root, err := verity.Format(ctx, f, size, tree, 0, salt, uuid)
	if err != nil {
		return m, err
	}
	m = sealMeta{RootHash: hex.EncodeToString(root[:]), HashOffset: size, Bytes: size + verity.HashSize(size),
		Salt: hex.EncodeToString(salt), UUID: hex.EncodeToString(uuid[:])}
	// The OS image's version is its content: a release never enters the root.
	m.OSVersion = "13-" + m.RootHash[:12]
	return m, tree.Truncate(verity.HashSize(size))
}
