// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/images/durable"
)

// Sweep removes from state the folders of all releases that keep, manifest
// digests, does not name, and from the store of images every blob that none of
// the kept releases and none of the images in also has. A digest "" in keep is
// the factory's and names nothing: give its images in also. While a kept
// release or a manifest of its images can't be read nobody knows which blobs it
// has, and all stay. Nothing is removed while a run is at work: what it brings
// is named by nothing yet.
func Sweep(state string, keep []string, also ...release.Image) error {
	unlock, err := alone(state)
	if errors.Is(err, ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	kept := map[string]bool{}
	for _, d := range keep {
		if d != "" {
			kept[hexOf(d)] = true
		}
	}
	entries, err := os.ReadDir(filepath.Join(state, releasesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if kept[e.Name()] {
			continue
		}
		// By its manifest first: what is cut off here is no release any more.
		dir := filepath.Join(state, releasesDir, e.Name())
		if err := os.RemoveAll(filepath.Join(dir, "oci-layout")); err != nil {
			return err
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	blobs, known := named(state, keep, also)
	if !known {
		return nil
	}
	dir := filepath.Join(ImagesDir(state), blobDir)
	entries, err = os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if blobs[strings.TrimSuffix(e.Name(), unverified)] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return durable.SyncDir(dir)
}

// named are the blobs that the kept releases' images consist of, in hex.
func named(state string, keep []string, also []release.Image) (blobs map[string]bool, known bool) {
	blobs = map[string]bool{}
	add := func(im release.Image) error {
		raw, err := os.ReadFile(blobIn(ImagesDir(state), im.Digest))
		if err != nil {
			return err
		}
		list, err := im.Blobs(raw)
		if err != nil {
			return err
		}
		blobs[hexOf(im.Digest)] = true
		for _, b := range list {
			blobs[hexOf(b.Digest)] = true
		}
		return nil
	}
	for _, im := range also {
		// What the store has no manifest of lies elsewhere.
		if err := add(im); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, false
		}
	}
	for _, d := range keep {
		if d == "" {
			continue
		}
		desc, err := described(ReleaseDir(state, d), d)
		if err != nil {
			return nil, false
		}
		for _, im := range desc.Images {
			if add(im) != nil {
				return nil, false
			}
		}
	}
	return blobs, true
}

// described reads a release's description from its folder.
func described(dir, digest string) (release.Description, error) {
	raw, err := verified(dir, digest, release.MaxManifest)
	if err != nil {
		return release.Description{}, err
	}
	config, _, err := release.ParseManifest(raw)
	if err != nil {
		return release.Description{}, err
	}
	if raw, err = verified(dir, config.Digest, release.MaxDescription); err != nil {
		return release.Description{}, err
	}
	return release.ParseDescription(raw)
}

// verified reads a blob of a layout and checks its digest.
func verified(dir, digest string, limit int64) ([]byte, error) {
	f, err := os.Open(blobIn(dir, digest))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if got := fmt.Sprintf("sha256:%x", sha256.Sum256(raw)); got != digest {
		return nil, fmt.Errorf("blob %s is damaged: it hashes to %s", digest, got)
	}
	return raw, nil
}
