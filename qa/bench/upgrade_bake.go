// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/compose/release"
)

// olderPins are packages as they were before a security update, for each set
// of them the ones that replace newer ones in the lock.
//
//go:embed testdata/older.json
var olderPins []byte

type olderPin struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"`
	SHA256  string `json:"sha256"`
	Size    int64  `json:"size"`
	Path    string `json:"path"`
	Than    struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	} `json:"than"`
}

// baker bakes the releases of the pairs from locks that lie in an archive
// folder, with all their packages and images.
type baker struct {
	ours    *ours
	dir     string
	archive string
	cache   string
	older   map[string][]olderPin
	say     func(string, ...any)
}

// baked is a release that was baked.
type baked struct {
	layout string
	digest string
	// manifestSize in bytes.
	manifestSize int64
	desc         release.Description
	// full is the bytes of all its parts and images, root the root's digest.
	full, rootSize int64
	root           string
}

// blob is the path of one of its blobs.
func (b *baked) blob(digest string) string {
	return filepath.Join(b.layout, "blobs/sha256", strings.TrimPrefix(digest, "sha256:"))
}

func newBaker(ctx context.Context, c config, cache, dir string, say func(string, ...any)) (*baker, error) {
	archive := c.archive
	if archive == "" {
		archive = filepath.Join(dir, "archive")
	}
	archive, err := filepath.Abs(archive)
	if err != nil {
		return nil, err
	}
	b := &baker{dir: dir, archive: archive, cache: cache, say: say, older: map[string][]olderPin{},
		ours: &ours{root: c.root, dir: dir, name: "demo", log: io.Discard}}
	if c.verbose {
		b.ours.log = os.Stderr
	}
	if err := json.Unmarshal(olderPins, &b.older); err != nil {
		return nil, err
	}
	if _, err := os.Stat(b.path("complete")); errors.Is(err, fs.ErrNotExist) {
		say("filling the archive %s", archive)
		if err := b.fill(ctx); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *baker) path(parts ...string) string {
	return filepath.Join(append([]string{b.archive}, parts...)...)
}

func (b *baker) stack() string { return b.path("stack", "compose.yaml") }

// names are the packages of a set.
func (b *baker) names(set string) string {
	var out []string
	for _, p := range b.older[set] {
		out = append(out, fmt.Sprintf("%s %s to %s", p.Than.Name, p.Version, p.Than.Version))
	}
	return strings.Join(out, ", ")
}

// fill makes the archive: stack, images, a lock for each release, and all
// packages of the locks.
func (b *baker) fill(ctx context.Context) error {
	build := filepath.Join(b.ours.root, "build")
	for to, from := range map[string]string{
		"stack":  filepath.Join(b.ours.root, "compose/stacks/demo/1.0.0"),
		"images": filepath.Join(build, "demo-1.0.0.images"),
	} {
		if err := os.RemoveAll(b.path(to)); err != nil {
			return err
		}
		if err := os.CopyFS(b.path(to), os.DirFS(from)); err != nil {
			return fmt.Errorf("%w: run `make image` first", err)
		}
	}
	if err := b.otherWeb(filepath.Join(build, "demo-1.1.0.images")); err != nil {
		return err
	}
	l, err := lock.Read(filepath.Join(build, "demo-1.0.0.lock"))
	if err != nil {
		return err
	}
	for set := range b.older {
		old, err := b.downgrade(*l, set)
		if err != nil {
			return err
		}
		if err := os.WriteFile(b.path(set+"-1.0.0.lock"), old.Marshal(), 0o644); err != nil {
			return err
		}
	}
	for _, name := range []string{"new-1.0.0.lock", "new-1.0.1.lock"} {
		if err := os.WriteFile(b.path(name), l.Marshal(), 0o644); err != nil {
			return err
		}
	}
	for _, name := range []string{"libs-1.0.0", "kernel-1.0.0", "new-1.0.0", "new-1.0.1"} {
		args := []string{"lock", "--stack", b.stack(), "--lock", b.path(name + ".lock"), "--cache", b.cache, "--archive", b.path("debs"), "--layout", b.path("images")}
		if name == "new-1.0.1" {
			args = slices.Insert(args, len(args)-2, "--layout", b.path("web"))
		}
		if _, err := b.ours.run(ctx, "holdfast-release", args...); err != nil {
			return err
		}
	}
	return os.WriteFile(b.path("complete"), nil, 0o644)
}

// downgrade is a lock with older packages in the place of newer ones.
func (b *baker) downgrade(l lock.Lock, set string) (*lock.Lock, error) {
	l.OS.Packages = slices.Clone(l.OS.Packages)
	for _, p := range b.older[set] {
		i := slices.IndexFunc(l.OS.Packages, func(q lock.Package) bool { return q.Name == p.Than.Name })
		if i < 0 || l.OS.Packages[i].Version != p.Than.Version {
			return nil, fmt.Errorf("the lock has not %s %s, so %s is no pair with it: run with -archive and the archive of an earlier run, or write new pairs into qa/bench/testdata/older.json",
				p.Than.Name, p.Than.Version, p.Version)
		}
		l.OS.Packages[i] = lock.Package{Name: p.Name, Version: p.Version, Arch: p.Arch, SHA256: p.SHA256, Size: p.Size, Path: p.Path}
	}
	slices.SortFunc(l.OS.Packages, func(x, y lock.Package) int { return strings.Compare(x.Name, y.Name) })
	return &l, nil
}

// otherWeb makes a layout with another build of one service's image under the
// name that the stack has for it.
func (b *baker) otherWeb(from string) error {
	dir := b.path("web")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		return fmt.Errorf("%w: run `make image VERSION=1.1.0` first", err)
	}
	path := filepath.Join(dir, "index.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var index map[string]any
	if err := json.Unmarshal(raw, &index); err != nil {
		return err
	}
	list, _ := index["manifests"].([]any)
	list = slices.DeleteFunc(list, func(m any) bool {
		text, err := json.Marshal(m)
		return err != nil || !bytes.Contains(text, []byte("holdfast.demo/web:"))
	})
	if len(list) != 1 {
		return fmt.Errorf("%s has %d images of the web service, want 1", from, len(list))
	}
	index["manifests"] = list
	if raw, err = json.Marshal(index); err != nil {
		return err
	}
	return os.WriteFile(path, bytes.ReplaceAll(raw, []byte("holdfast.demo/web:1.1.0"), []byte("holdfast.demo/web:1.0.0")), 0o644)
}

// release bakes one release, unless it was baked from the same lock by the
// same programs.
func (b *baker) release(ctx context.Context, set, version string, web bool) (*baked, error) {
	name := set + "-" + version
	locked, out := b.path(name+".lock"), filepath.Join(b.dir, name)
	layouts := []string{b.path("images")}
	if web {
		layouts = []string{b.path("web"), b.path("images")}
	}
	list, err := json.Marshal(layouts)
	if err != nil {
		return nil, err
	}
	stamp, err := b.stamp(locked)
	if err != nil {
		return nil, err
	}
	if was, err := os.ReadFile(out + ".stamp"); err != nil || string(was) != stamp {
		b.say("baking %s", name)
		build := filepath.Join(b.ours.root, "build")
		_, err := b.ours.run(ctx, "packer", "build", "-force", "-color=false", "-var", "name=demo", "-var", "version="+version,
			"-var", "stack="+b.stack(), "-var", "lock="+locked, "-var", "layouts="+string(list), "-var", "archive="+b.path("debs"),
			"-var", "signing_key="+filepath.Join(build, "demo-signing.key"), "-var", "signing_cert="+filepath.Join(build, "demo-signing.crt"),
			"-var", "cache="+b.cache, "-var", "output="+out, "-except=holdfast-ova,holdfast-gce,holdfast-ami", "packer.pkr.hcl")
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(out+".stamp", []byte(stamp), 0o644); err != nil {
			return nil, err
		}
	}
	return openBaked(filepath.Join(out, "release"))
}

// stamp says what a bake is made from.
func (b *baker) stamp(locked string) (string, error) {
	text, err := os.ReadFile(locked)
	if err != nil {
		return "", err
	}
	plugins, err := exec.CommandContext(context.Background(), "find", filepath.Join(b.ours.root, "build/packer-plugins"), "-type", "f", "-printf", "%T@ %p\n").Output()
	return string(text) + string(plugins), err
}

func openBaked(layout string) (*baked, error) {
	raw, err := os.ReadFile(filepath.Join(layout, "index.json"))
	if err != nil {
		return nil, err
	}
	var index struct {
		Manifests []struct {
			Digest       string `json:"digest"`
			Size         int64  `json:"size"`
			ArtifactType string `json:"artifactType"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, err
	}
	b := &baked{layout: layout}
	for _, m := range index.Manifests {
		if m.ArtifactType == release.ArtifactType {
			b.digest, b.manifestSize = m.Digest, m.Size
		}
	}
	manifest, err := os.ReadFile(b.blob(b.digest))
	if err != nil {
		return nil, err
	}
	config, layers, err := release.ParseManifest(manifest)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(b.blob(config.Digest))
	if err != nil {
		return nil, err
	}
	if b.desc, err = release.ParseDescription(text); err != nil {
		return nil, err
	}
	b.full = b.manifestSize + config.Size
	for _, l := range layers {
		b.full += l.Size
	}
	for _, im := range b.desc.Images {
		b.full += im.Size
	}
	b.root, b.rootSize = b.desc.Parts.Root.Digest, b.desc.Parts.Root.Size
	return b, nil
}
