// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/appliance/prepare"
	"github.com/holdfast/holdfast/images/verity"
	"github.com/holdfast/holdfast/qa/powercut"
)

// fetchedBytes are the bytes of an upgrade.
type fetchedBytes struct {
	all   int64
	parts []fetchedPart
}

type fetchedPart struct {
	name          string
	size, fetched int64
}

// root is what came for the root, without its index.
func (f fetchedBytes) root() (n int64) {
	for _, p := range f.parts {
		if p.name == "root" {
			n += p.fetched
		}
	}
	return n
}

// peerBytes are another program's bytes for one image.
type peerBytes struct{ chunks, index int64 }

func (p peerBytes) bytes() int64 { return p.chunks + p.index }

// measure fills in a pair.
func (p *pair) measure(ctx context.Context, dir string, programs powercut.Programs) error {
	work, err := os.MkdirTemp(dir, "box-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	q := prepare.Request{
		Ref: p.to.layout, Digest: p.to.digest, ManifestSize: p.to.manifestSize,
		State: filepath.Join(work, "state"), Layouts: []string{p.from.layout},
	}
	if p.from.root != p.to.root {
		q.Running, q.Target = filepath.Join(work, "slot-a"), filepath.Join(work, "slot-b")
		q.UKIs = []string{p.from.blob(p.from.desc.Parts.UKI.Digest)}
		if err := sealSlot(ctx, q.Running, p.from); err != nil {
			return err
		}
		if err := emptyFile(q.Target, p.to.desc.Verity.Bytes); err != nil {
			return err
		}
	}
	// As on a box: the factory is there, the release's own layout is not.
	if q.Layouts[0], err = imagesOnly(p.from, filepath.Join(work, "factory")); err != nil {
		return err
	}
	res, memory, err := prepareIn(ctx, q)
	if err != nil {
		return err
	}
	p.memory, p.ours = memory, fetchedBytes{all: res.Fetched}
	for _, name := range slices.Sorted(maps.Keys(res.Parts)) {
		part := res.Parts[name]
		if part.Fetched == 0 {
			continue
		}
		p.ours.parts = append(p.ours.parts, fetchedPart{name, part.Size, part.Fetched})
	}
	if p.from.root == p.to.root {
		return nil
	}
	from, to := p.from.blob(p.from.root), p.to.blob(p.to.root)
	if p.casync16, err = casync(ctx, programs, work, from, to, 16384); err != nil {
		return err
	}
	if p.casync64, err = casync(ctx, programs, work, from, to, 65536); err != nil {
		return err
	}
	p.rauc, err = blockIndex(from, to)
	return err
}

// sealSlot writes a release's root with its hash tree.
func sealSlot(ctx context.Context, path string, b *baked) error {
	if err := powercut.CopySparse(path, b.blob(b.root)); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = verity.Format(ctx, f, b.rootSize, f, b.rootSize, make([]byte, 32), [16]byte{1})
	return err
}

func emptyFile(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// imagesOnly makes a layout of the stack's images alone.
func imagesOnly(b *baked, dir string) (string, error) {
	blobs := filepath.Join(dir, "blobs/sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return "", err
	}
	parts := map[string]bool{}
	for _, d := range []string{b.digest, b.desc.Parts.UKI.Digest, b.desc.Parts.UKIChunks.Digest, b.desc.Parts.Root.Digest, b.desc.Parts.RootChunks.Digest, b.desc.Parts.Boot.Digest, b.desc.Parts.SBOM.Digest, b.desc.Stack} {
		parts[strings.TrimPrefix(d, "sha256:")] = true
	}
	entries, err := os.ReadDir(filepath.Join(b.layout, "blobs/sha256"))
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if parts[e.Name()] {
			continue
		}
		if err := os.Link(filepath.Join(b.layout, "blobs/sha256", e.Name()), filepath.Join(blobs, e.Name())); err != nil {
			return "", err
		}
	}
	for _, name := range []string{"oci-layout", "index.json"} {
		if err := powercut.CopySparse(filepath.Join(dir, name), filepath.Join(b.layout, name)); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// childName is what this program is called when it is to prepare.
const childName = "bench-prepare"

// prepareChild does what `holdfast upgrade-prepare` does, and writes its peak
// memory to standard error.
func prepareChild() {
	if os.Args[0] != childName {
		return
	}
	code := 0
	if err := prepare.Main(context.Background(), os.Stdin, os.Stdout); err != nil {
		code = 1
	}
	data, _ := os.ReadFile("/proc/self/status") // without it the bench says so
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "VmHWM:") {
			fmt.Fprint(os.Stderr, line)
		}
	}
	os.Exit(code)
}

// prepareIn prepares in a process of its own; memory is its peak in bytes.
func prepareIn(ctx context.Context, q prepare.Request) (res prepare.Result, memory int64, err error) {
	if err := os.MkdirAll(q.State, 0o755); err != nil {
		return res, 0, err
	}
	request, err := json.Marshal(q)
	if err != nil {
		return res, 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return res, 0, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Args[0] = childName
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(request), &out, &said
	ran := cmd.Run()
	if res, err = prepare.Follow(&out, nil); err != nil {
		return res, 0, err
	}
	if _, err := fmt.Sscanf(said.String(), "VmHWM: %d kB", &memory); err != nil {
		return res, 0, fmt.Errorf("the child did not say its memory: %q", said.String())
	}
	return res, memory << 10, ran
}

// deltaTree is a tree with casync.
func deltaTree(ctx context.Context, dir string, say func(string, ...any)) (string, error) {
	tree := filepath.Join(dir, "tree")
	if _, err := os.Stat(tree); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return tree, err
	}
	say("making a tree with casync, once")
	making := tree + ".making"
	if err := os.RemoveAll(making); err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, "mmdebstrap", "--mode=root", "--variant=minbase",
		`--aptopt=APT::Install-Recommends "false"`, "--include=casync", "trixie", making).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("mmdebstrap: %w: %s", err, out)
	}
	return tree, os.Rename(making, tree)
}

// casync makes a store of each image and counts what the second has beyond the
// first.
func casync(ctx context.Context, programs powercut.Programs, dir, from, to string, average int) (p peerBytes, err error) {
	stores := [2]map[string]int64{}
	for i, image := range []string{from, to} {
		store, index := filepath.Join(dir, fmt.Sprintf("%d-%d.castr", average, i)), filepath.Join(dir, fmt.Sprintf("%d-%d.caibx", average, i))
		if _, err := programs.Run(ctx, "casync", "make", "--store="+store, fmt.Sprintf("--chunk-size=%d", average), index, image); err != nil {
			return p, err
		}
		if stores[i], err = sizes(store); err != nil {
			return p, err
		}
		info, err := os.Stat(index)
		if err != nil {
			return p, err
		}
		p.index = info.Size()
	}
	for name, size := range stores[1] {
		if _, ok := stores[0][name]; !ok {
			p.chunks += size
		}
	}
	return p, nil
}

// sizes are the files below a folder.
func sizes(dir string) (map[string]int64, error) {
	all := map[string]int64{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			all[filepath.Base(path)] = info.Size()
		}
		return err
	})
	return all, err
}

// blockIndex counts what RAUC's block-hash-index fetches: 4 KiB blocks that
// the old image has nowhere, each once, and 32 bytes of index for each block
// (RAUC 1.13, src/hash_index.c).
func blockIndex(from, to string) (p peerBytes, err error) {
	have := map[[32]byte]bool{}
	count := func(path string, visit func([32]byte)) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		b := make([]byte, 4096)
		for {
			if _, err := io.ReadFull(f, b); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			visit(sha256.Sum256(b))
		}
	}
	if err := count(from, func(h [32]byte) { have[h] = true }); err != nil {
		return p, err
	}
	return p, count(to, func(h [32]byte) {
		p.index += 32
		if !have[h] {
			have[h] = true
			p.chunks += 4096
		}
	})
}
