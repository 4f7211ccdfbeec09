// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/appliance/fetch"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/supervise"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/compose/stack"
	"github.com/holdfast/holdfast/images/durable"
)

// Factory finds the stack of the release on the factory partition.
type Factory struct {
	// Dir is where the partition is mounted; Trust the folder of certificates
	// in the sealed root.
	Dir, Trust string
	// Stacks is where stacks are unpacked, one folder per digest.
	Stacks string
	// Kept is where the verified release is kept without its images: a box
	// whose images are loaded must start although the factory is broken.
	Kept string
	// Fetch says where the images of a release without any come from.
	Fetch fetch.Options
}

// Find verifies the release and unpacks its stack.
func (f Factory) Find(ctx context.Context) (*Found, error) {
	certs, err := release.LoadTrust(os.DirFS(f.Trust), "*.pem")
	if err != nil {
		return nil, held("factory-release-untrusted", "reinstall the box: its root image has no certificate to trust a release by", err)
	}
	rel, conds, err := f.open(certs)
	if err != nil {
		return nil, err
	}
	desc := rel.Description()
	st, err := unpack(ctx, f.Stacks, rel, desc.Stack)
	if err != nil {
		return nil, err
	}
	found := &Found{Stack: st, Source: rel, Release: status.Release{Name: desc.Name, Version: desc.Version, OS: desc.OS.Version}, Conditions: conds, ReadableFrom: desc.ReadableFrom(), Description: &desc}
	if desc.Factory == release.Seed {
		found.Source = fetch.New(rel, f.Fetch)
	}
	if found.Images, err = imagesOf(desc); err != nil {
		return nil, err
	}
	return found, nil
}

// imagesOf are the images of a release.
func imagesOf(desc release.Description) (out []supervise.Image, err error) {
	for _, im := range desc.Images {
		pinned, err := stack.PinnedName(im.Ref, im.Digest)
		if err != nil {
			return nil, held("stack-invalid", "bake the release again", err)
		}
		out = append(out, supervise.Image{Ref: im.Ref, Pinned: pinned, Digest: im.Digest, Size: im.Size})
	}
	return out, nil
}

// unpack makes the stack's folder, or checks the one that is there: what runs
// is read from it, so it is held against its digest at every start.
func unpack(ctx context.Context, stacks string, rel *release.Release, digest string) (*stack.Stack, error) {
	name := strings.TrimPrefix(digest, "sha256:")
	dir := filepath.Join(stacks, name)
	opts := stack.Options{Digests: rel.Digests()}
	if st, err := loadStack(ctx, dir, digest, opts); err == nil {
		return st, nil
	}
	if err := replace(stacks, dir, rel.StackTar()); err != nil {
		return nil, held("stack-not-unpacked", "make room on the state volume, then systemctl restart holdfast", err)
	}
	st, err := loadStack(ctx, dir, digest, opts)
	if err != nil {
		return nil, held("stack-invalid", "bake a release whose stack a box can honour", err)
	}
	return st, nil
}

func loadStack(ctx context.Context, dir, digest string, opts stack.Options) (*stack.Stack, error) {
	st, err := stack.Load(ctx, dir, opts)
	if err != nil {
		return nil, err
	}
	got, err := st.Digest()
	if err != nil {
		return nil, err
	}
	if got != digest {
		return nil, fmt.Errorf("the stack folder %s has digest %s, want %s", dir, got, digest)
	}
	return st, nil
}

// replace unpacks under another name first: a folder under its final name is
// complete, whenever the power fails.
func replace(stacks, dir string, tar []byte) error {
	if err := os.MkdirAll(stacks, 0o700); err != nil {
		return err
	}
	leftovers, err := filepath.Glob(filepath.Join(stacks, ".unverified-*"))
	if err != nil {
		return err
	}
	for _, l := range leftovers {
		if err := os.RemoveAll(l); err != nil {
			return err
		}
	}
	tmp, err := os.MkdirTemp(stacks, ".unverified-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := stack.Unpack(bytes.NewReader(tar), tmp); err != nil {
		return err
	}
	// A damaged one is moved away, not removed: a running container may
	// still have its files bound.
	if _, err := os.Lstat(dir); err == nil {
		if err := os.Rename(dir, tmp+".old"); err != nil {
			return err
		}
	}
	return durable.Rename(tmp, dir)
}

// File finds a stack in a folder of any Linux host.
type File struct {
	// Path of the Compose file or its folder.
	Path string
	// Lock is the path of a lock; Digests are pins by reference. Where both
	// are empty the Compose file must pin every image itself.
	Lock    string
	Digests map[string]string
}

// Find loads the stack; its images must be in the engine.
func (f File) Find(ctx context.Context) (*Found, error) {
	opts := stack.Options{Digests: f.Digests}
	if f.Lock != "" {
		l, err := lock.Read(f.Lock)
		if err != nil {
			return nil, held("stack-invalid", "run holdfast-release lock", err)
		}
		opts.Digests = l.Digests()
	}
	st, err := stack.Load(ctx, f.Path, opts)
	if err != nil {
		return nil, held("stack-invalid", "mend the stack, then start the daemon again", err)
	}
	found := &Found{Stack: st, Release: status.Release{Name: st.Name}}
	for _, name := range st.Services {
		im := st.Project.Services[name].Image
		if !slices.ContainsFunc(found.Images, func(i supervise.Image) bool { return i.Pinned == im }) {
			found.Images = append(found.Images, supervise.Image{Ref: im, Pinned: im})
		}
	}
	return found, nil
}

// noSource is where images come from when there is nowhere.
type noSource struct{}

func (noSource) WriteImage(_ context.Context, _ io.Writer, digest string, _ func(done, total int64)) error {
	return errors.New("it is not in the engine, and this daemon has no release to load it from: docker load or docker pull it")
}
