// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast/holdfast/appliance/prepare"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/supervise"
	"github.com/holdfast/holdfast/compose/release"
)

// Installed finds the stack of a release that an upgrade has brought onto the
// box. Whoever wrote its folder, it runs only if the metadata beside it lead
// from the root of trust in the sealed root to its digest.
type Installed struct {
	// Digest of the release manifest, "sha256:<hex>".
	Digest string
	// State is the folder with releases/, images/, stacks/ and trust/.
	State string
	// Root is the file with the root of trust in the sealed root.
	Root string
	// Factory is a layout that has images too, "" for none.
	Factory string
}

// folder of the release.
func (f Installed) folder() string { return releaseDir(f.State, f.Digest) }

func releaseDir(state, digest string) string {
	return prepare.ReleaseDir(state, digest)
}

const reinstall = "boot the kept release with holdfast rollback, or install a release again with holdfast upgrade"

// open verifies the release and reads it.
func (f Installed) open() (*release.Release, error) {
	untrusted := func(err error) error {
		return held("release-untrusted", reinstall+"; nothing of the stack was started", fmt.Errorf("the installed release %.19s… cannot be trusted: %w", f.Digest, err))
	}
	sealed, err := os.ReadFile(f.Root)
	if err != nil {
		return nil, untrusted(err)
	}
	store, err := openTrust(f.State, sealed)
	if err != nil {
		return nil, untrusted(err)
	}
	dir := f.folder()
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, held("release-missing", reinstall, fmt.Errorf("the release %.19s… is not on the state volume (%s)", f.Digest, dir))
	}
	if err := store.Installed(os.DirFS(filepath.Join(dir, "tuf")), f.Digest); err != nil {
		return nil, untrusted(err)
	}
	rel, err := release.OpenInstalled(os.DirFS(dir), f.Digest)
	if err != nil {
		return nil, held("release-damaged", reinstall+"; nothing of the stack was started", err)
	}
	return rel, nil
}

// source is where its images come from.
func (f Installed) source(rel *release.Release) supervise.Source {
	var layouts []string
	if f.Factory != "" {
		layouts = append(layouts, f.Factory)
	}
	return prepare.Images(f.State, rel, layouts...)
}

// Find verifies the release and unpacks its stack.
func (f Installed) Find(ctx context.Context) (*Found, error) {
	rel, err := f.open()
	if err != nil {
		return nil, err
	}
	desc := rel.Description()
	st, err := unpack(ctx, filepath.Join(f.State, "stacks"), rel, desc.Stack)
	if err != nil {
		return nil, err
	}
	found := &Found{Stack: st, Source: f.source(rel), ReadableFrom: desc.ReadableFrom(), Description: &desc,
		Release: status.Release{Name: desc.Name, Version: desc.Version, OS: desc.OS.Version}}
	if found.Images, err = imagesOf(desc); err != nil {
		return nil, err
	}
	return found, nil
}
