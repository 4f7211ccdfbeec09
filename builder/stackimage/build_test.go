// SPDX-License-Identifier: Apache-2.0

package stackimage

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/holdfast/holdfast/compose/lock"
)

const testEpoch = 1_700_000_000

// project is a recipe, a Go module and a repository in temporary folders.
func project(t *testing.T, recipe string) (Options, *repo) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("images.yaml", recipe)
	write("go.mod", "module example.org/m\n\ngo 1.24\n")
	write("app/main.go", "package main\n\nvar version string\n\nfunc main() { println(version) }\n")
	r := newRepo(t)
	return Options{Recipe: filepath.Join(dir, "images.yaml"), Version: "1.2.3", Layout: filepath.Join(dir, "out", "layout"),
		Cache: filepath.Join(dir, "cache"), Epoch: testEpoch, Packages: r.packages, Go: Go{Source: dir}}, r
}

// full is the good recipe with its two packages.
func full(t *testing.T) (Options, *repo) {
	t.Helper()
	o, r := project(t, goodRecipe)
	r.baseFiles(t)
	r.add(t, "lib", "Depends: base-files (>= 1), libsomething | lib-virtual\nProvides: lib-virtual (= 1)\n",
		file{"./lib/", "", tar.TypeDir, 0o755, 0},
		file{"./lib/x.so", "library\n", tar.TypeReg, 0o644, 3},
		file{"./usr/bin/hard", "./lib/x.so", tar.TypeLink, 0o644, 3},
		file{"./usr/share/doc/lib", "base-files", tar.TypeSymlink, 0o777, 0})
	return o, r
}

func build(t *testing.T, o Options) *Result {
	t.Helper()
	r, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// bytesOf is every file of a folder.
func bytesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		all[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSameInputsSameBytes(t *testing.T) {
	o, _ := full(t)
	first := build(t, o)
	if first.Unchanged || len(first.Images) != 1 || len(first.Images[0].Packages) != 2 || first.Images[0].Packages[1].Version != "1.0-1" {
		t.Errorf("%+v", first)
	}
	other, _ := full(t)
	build(t, other)
	a, b := bytesOf(t, o.Layout), bytesOf(t, other.Layout)
	if len(a) != len(b) || len(a) < 6 {
		t.Errorf("%d and %d files", len(a), len(b))
	}
	for name := range a {
		if a[name] != b[name] {
			t.Errorf("%s differs between two builds with separate caches", name)
		}
	}
	var mu sync.Mutex // pieces are made side by side
	var cached []string
	o.Progress = func(p Piece) {
		mu.Lock()
		defer mu.Unlock()
		if p.Cached {
			cached = append(cached, p.Name)
		}
	}
	if again := build(t, o); !again.Unchanged || again.Images[0].Digest != first.Images[0].Digest || len(cached) != 3 {
		t.Errorf("again: unchanged %v, cached %v", again.Unchanged, cached)
	}
}

// members reads all layers of the only image.
func members(t *testing.T, dir string) (map[string]*tar.Header, map[string]string, *v1.ConfigFile) {
	t.Helper()
	idx, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	d := m.Manifests[0]
	if d.Annotations[refName] != "example.org/app:1.2.3" || d.Annotations[containerdName] != "example.org/app:1.2.3" || d.Platform.String() != "linux/amd64" {
		t.Errorf("descriptor %+v", d)
	}
	img, err := idx.Image(d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	headers, bodies := map[string]*tar.Header{}, map[string]string{}
	for _, l := range layers {
		rc, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		tr := tar.NewReader(rc)
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(tr)
			if err != nil {
				t.Fatal(err)
			}
			headers[h.Name], bodies[h.Name] = h, string(b)
		}
		if err := rc.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return headers, bodies, cf
}

func TestContent(t *testing.T) {
	o, _ := full(t)
	build(t, o)
	h, body, cf := members(t, o.Layout)
	for name, want := range map[string]string{
		"usr/lib/os-release":                 "ID=debian\n",
		"usr/bin/hard":                       "library\n",
		"usr/share/doc/base-files/copyright": "free\n",
		"etc/x":                              "${version} stays",
		"var/lib/dpkg/status.d/lib":          "",
		"tmp/":                               "",
		"data/":                              "",
		"usr/bin/app":                        "",
		"usr/share/doc/lib":                  "",
		"var/lib/dpkg/status.d/":             "",
		"etc/":                               "",
		"lib":                                "",
	} {
		if h[name] == nil || want != "" && body[name] != want {
			t.Errorf("%s: %v %q, want %q", name, h[name] != nil, body[name], want)
		}
	}
	for _, name := range []string{"usr/share/doc/base-files/README", "usr/share/man/man1/x.1", "usr/share/man/", "lib/", "lib/x.so"} {
		if h[name] != nil {
			t.Errorf("%s should not be in the image", name)
		}
	}
	if x := h["usr/lib/x.so"]; x == nil || x.Typeflag != tar.TypeLink || x.Linkname != "usr/bin/hard" || x.Uid != 3 {
		t.Errorf("hard link: %+v", x)
	}
	if h["lib"].Typeflag != tar.TypeSymlink || h["tmp/"].Mode != 0o1777 || h["etc/x"].Mode != 0o600 || h["etc/x"].Uid != 7 || h["usr/bin/app"].Mode != 0o755 {
		t.Error("types, modes or owners are wrong")
	}
	for name, m := range h {
		if m.ModTime.Unix() > testEpoch {
			t.Errorf("%s has the time %v", name, m.ModTime)
		}
	}
	if !strings.Contains(body["var/lib/dpkg/status.d/lib"], "Version: 1.0-1\n") {
		t.Error("no status for scanners")
	}
	c := cf.Config
	if c.Entrypoint[0] != "/usr/bin/app" || c.User != "7" || c.StopSignal != "SIGINT" || c.WorkingDir != "/data" || len(c.ExposedPorts) != 1 || cf.Created.Unix() != testEpoch {
		t.Errorf("config %+v", cf)
	}
}

func TestRefusals(t *testing.T) {
	elf, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	recipe := func(layer string) string {
		return "layers:\n  base:\n    " + layer + "\nimages:\n  - ref: example.org/a:1\n    layers: [base]\n"
	}
	for name, c := range map[string]struct{ recipe, want string }{
		"dependency":   {recipe("packages: [needy]"), "package needy depends on absent or other, which no layer of image example.org/a:1 has"},
		"without":      {recipe("packages: [plain]\n    without: {absent: because}"), "nothing in its images misses absent"},
		"library":      {recipe("packages: [program]"), "needs the library"},
		"drop":         {recipe("packages: [plain]\n    drop: [/usr/nope*]"), "drop /usr/nope* matches nothing"},
		"conflict":     {recipe("packages: [plain, rival]"), "/usr/bin/plain is in package plain and in package rival"},
		"overwrite":    {recipe("packages: [plain]\n    files: {/usr/bin/plain: {}}"), "/usr/bin/plain is already in package plain"},
		"below a file": {recipe("packages: [plain]\n    files: {/usr/bin/plain/x: {}}"), "which is no folder"},
		"unknown":      {recipe("packages: [unheard-of]"), "package unheard-of was not resolved"},
		"program":      {recipe("go: ./nothing\n    out: /x"), "building ./nothing"},
	} {
		o, r := project(t, c.recipe)
		r.add(t, "needy", "Depends: absent | other\n", file{"./needy", "x", tar.TypeReg, 0o644, 0})
		r.add(t, "plain", "", file{"./usr/bin/plain", "x", tar.TypeReg, 0o755, 0})
		r.add(t, "rival", "", file{"./bin/plain", "y", tar.TypeReg, 0o755, 0})
		r.add(t, "program", "", file{"./usr/bin/program", string(elf), tar.TypeReg, 0o755, 0})
		_, err := Build(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "images.yaml:") {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
		if _, err := os.Stat(filepath.Dir(o.Layout)); err == nil {
			t.Errorf("%s: something was put beside the layout", name)
		}
	}
}

func TestDamageIsSeen(t *testing.T) {
	o, r := full(t)
	first := build(t, o)
	flip := func(dir string) {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		for _, n := range names {
			b, err := os.ReadFile(n)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(n, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	flip(filepath.Join(o.Layout, "blobs", "sha256"))
	flip(filepath.Join(o.Cache, "blobs"))
	if again := build(t, o); again.Unchanged || again.Images[0].Digest != first.Images[0].Digest {
		t.Errorf("after damage: %+v", again)
	}
	if !build(t, o).Unchanged {
		t.Error("not mended")
	}
	flip(r.dir)
	o.Cache = t.TempDir()
	if _, err := Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), "does not hold the bytes its name says") {
		t.Errorf("a damaged package: %v", err)
	}
	if len(bytesOf(t, o.Layout)) == 0 {
		t.Error("the old layout is gone")
	}
}

func TestCancelLeavesTheOldLayout(t *testing.T) {
	o, r := full(t)
	build(t, o)
	before := bytesOf(t, o.Layout)
	o.Version = "2.0.0"
	why := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	o.Packages = func(context.Context, []string) (lock.PackageSet, string, error) {
		cancel(why)
		return r.set, r.dir, nil
	}
	if _, err := Build(ctx, o); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	after := bytesOf(t, o.Layout)
	if len(after) != len(before) || after["index.json"] != before["index.json"] {
		t.Error("the layout changed")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(o.Layout), ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(filepath.Join(o.Cache, "stage")); err == nil {
		t.Error("the stage is left")
	}
	o.Packages = r.packages
	if got := build(t, o); got.Unchanged || got.Images[0].Ref != "example.org/app:2.0.0" {
		t.Errorf("%+v", got)
	}
}

func TestOneBuildPerCache(t *testing.T) {
	o, _ := full(t)
	if err := os.MkdirAll(o.Cache, 0o755); err != nil {
		t.Fatal(err)
	}
	unlock, err := lockFolder(o.Cache)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another build") {
		t.Errorf("got %v", err)
	}
	unlock()
	build(t, o)
}

func TestGoEnvironmentIsFixed(t *testing.T) {
	env := strings.Join(Go{Cache: "/c"}.env([]string{"GOFLAGS=-tags=x", "HOME=/h", "CGO_ENABLED=1", "GOCACHE=/other"}), " ")
	if strings.Contains(env, "-tags=x") || strings.Contains(env, "CGO_ENABLED=1") || strings.Contains(env, "/other") || !strings.Contains(env, "HOME=/h") {
		t.Error(env)
	}
}
