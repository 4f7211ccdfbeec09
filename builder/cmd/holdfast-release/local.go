// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast/holdfast/compose/release"
)

// local is a release as a bake left it, in a folder.
type local struct {
	dir      string
	digest   string
	manifest []byte
	desc     release.Description
	index    []byte
	// blobs are all that a box may fetch, each once; paths where they are.
	blobs []release.PartBlob
	paths map[string]string
	// images are the blobs of each image, by its manifest's digest.
	images map[string][]release.Blob
}

const maxIndexJSON = 4 << 20

// releaseFolder takes an output folder of a bake for the release in it.
func releaseFolder(path string) string {
	if _, err := os.Stat(filepath.Join(path, "oci-layout")); err != nil {
		if _, err := os.Stat(filepath.Join(path, "release", "oci-layout")); err == nil {
			return filepath.Join(path, "release")
		}
	}
	return path
}

// openLocal reads a release that boxes can upgrade to. Images that it does not
// hold are looked for in layouts.
func openLocal(path string, layouts []string) (*local, error) {
	l := &local{dir: releaseFolder(path), paths: map[string]string{}, images: map[string][]release.Blob{}}
	var err error
	if l.index, err = readUpTo(filepath.Join(l.dir, "index.json"), maxIndexJSON); err != nil {
		return nil, fmt.Errorf("%s is no release: name the folder release/ of a bake: %w", path, err)
	}
	var index struct {
		Manifests []struct {
			ArtifactType string `json:"artifactType"`
			Digest       string `json:"digest"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(l.index, &index); err != nil {
		return nil, fmt.Errorf("%s/index.json: %w", l.dir, err)
	}
	for _, m := range index.Manifests {
		if m.ArtifactType == release.ArtifactType {
			l.digest = m.Digest
		}
	}
	r, err := release.OpenInstalled(os.DirFS(l.dir), l.digest)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.dir, err)
	}
	l.desc = r.Description()
	if l.desc.Parts == nil {
		return nil, fmt.Errorf("%s is the release of a factory, without system: bake it again with this version", l.dir)
	}
	if l.manifest, err = readUpTo(l.blobPath(l.dir, l.digest), release.MaxManifest); err != nil {
		return nil, err
	}
	config, layers, err := release.ParseManifest(l.manifest)
	if err != nil {
		return nil, err
	}
	all := []release.PartBlob{{Digest: l.digest, Size: int64(len(l.manifest))}, config}
	for _, layer := range layers {
		all = append(all, layer.PartBlob)
	}
	for _, b := range all {
		if err := l.add(b, l.dir); err != nil {
			return nil, err
		}
	}
	for _, im := range l.desc.Images {
		if err := l.addImage(im, append([]string{l.dir}, layouts...)); err != nil {
			return nil, fmt.Errorf("the image %s: %w", im.Ref, err)
		}
	}
	return l, nil
}

func (l *local) addImage(im release.Image, dirs []string) error {
	for i, dir := range dirs {
		manifest, err := readUpTo(l.blobPath(dir, im.Digest), im.Manifest)
		if os.IsNotExist(err) && i < len(dirs)-1 {
			continue
		}
		if os.IsNotExist(err) {
			return fmt.Errorf("its blobs are not in %s: name an OCI layout that has it with --layout", strings.Join(dirs, ", "))
		}
		if err != nil {
			return err
		}
		blobs, err := im.Blobs(manifest)
		if err != nil {
			return err
		}
		l.images[im.Digest] = blobs
		for _, b := range blobs {
			if err := l.add(release.PartBlob(b), dir); err != nil {
				return err
			}
		}
		return l.add(release.PartBlob{Digest: im.Digest, Size: im.Manifest}, dir)
	}
	return nil
}

// add notes a blob, and that it has the right size.
func (l *local) add(b release.PartBlob, dir string) error {
	if l.paths[b.Digest] != "" {
		return nil
	}
	path := l.blobPath(dir, b.Digest)
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() != b.Size {
		return fmt.Errorf("%s has %d bytes, the release says %d: bake it again", path, info.Size(), b.Size)
	}
	l.paths[b.Digest] = path
	l.blobs = append(l.blobs, b)
	return nil
}

func (*local) blobPath(dir, digest string) string { return filepath.Join(dir, blobName(digest)) }

func blobName(digest string) string { return "blobs/sha256/" + strings.TrimPrefix(digest, "sha256:") }

func (l *local) name() string { return l.desc.Name + "-" + l.desc.Version }

// copyBlob writes a blob, and fails unless it is the digest's.
func (l *local) copyBlob(ctx context.Context, w io.Writer, b release.PartBlob) error {
	f, err := os.Open(l.paths[b.Digest])
	if err != nil {
		return err
	}
	defer f.Close()
	defer context.AfterFunc(ctx, func() { f.Close() })()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(f, b.Size+1))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); n != b.Size || got != b.Digest {
		return fmt.Errorf("%s is damaged (it hashes to %s): bake it again", l.paths[b.Digest], got)
	}
	return nil
}

// part reads a small blob.
func (l *local) part(b release.PartBlob) ([]byte, error) {
	data, err := readUpTo(l.paths[b.Digest], b.Size)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); "sha256:"+hex.EncodeToString(sum[:]) != b.Digest {
		return nil, fmt.Errorf("%s is damaged: bake it again", l.paths[b.Digest])
	}
	return data, nil
}

func readUpTo(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, err
}
