// SPDX-License-Identifier: Apache-2.0

//go:build bake

package bake

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/builder/target"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/images/sign"
)

func makeKey() error {
	return sign.MakePair(keyFile, certFile, "Holdfast test", time.Now())
}

// TestIdentical bakes twice, each time with an empty cache, in surroundings as
// different as one host allows: all files are the same, byte by byte, OVA and
// GCE archive among them, and so is the manifest but its steps. The second bake speaks gob with the plugin,
// as Packer's older protocol has it.
func TestIdentical(t *testing.T) {
	from := archive(t)
	before := observe(t)
	work := t.TempDir()
	one := request{cache: filepath.Join(work, "cache-1"), output: filepath.Join(work, "out-1"), vars: []string{"archive=" + from}, targets: true,
		env: []string{"TZ=UTC"}}
	two := request{cache: filepath.Join(work, "elsewhere", "cache-2"), output: filepath.Join(work, "elsewhere", "out-2"), vars: []string{"archive=" + from}, targets: true,
		env:  []string{"TZ=Asia/Kathmandu", "LC_ALL=C", "HOME=" + work, "GOMAXPROCS=1", "PACKER_FORCE_GOB=1"},
		wrap: []string{"sh", "-c", `umask 077; exec "$@"`, "sh"}}
	one.must(t)
	two.must(t)
	same(t, one.output, two.output)
	for _, name := range []string{"demo-1.0.0.ova", "demo-1.0.0-gce.tar.gz"} {
		if a, b := hash(t, filepath.Join(one.output, name)), hash(t, filepath.Join(two.output, name)); a != b {
			t.Errorf("%s is %s and %s", name, a, b)
		}
	}
	before.unchanged(t)
	if t.Failed() {
		tellApart(t, one.cache, two.cache)
	}
}

// same compares two output folders.
func same(t *testing.T, a, b string) {
	t.Helper()
	ma, mb := manifest(t, a), manifest(t, b)
	ma.Steps, mb.Steps = nil, nil
	la, lb := strings.Split(text(t, ma), "\n"), strings.Split(text(t, mb), "\n")
	for i := range min(len(la), len(lb)) {
		if la[i] != lb[i] {
			t.Errorf("the manifests differ in line %d: %s and %s", i+1, strings.TrimSpace(la[i]), strings.TrimSpace(lb[i]))
		}
	}
	if len(la) != len(lb) {
		t.Errorf("the manifests have %d and %d lines", len(la), len(lb))
	}
	sameRelease(t, a, b)
	for _, f := range ma.Files {
		for _, dir := range []string{a, b} {
			if got := hash(t, filepath.Join(dir, f.Name)); got != f.SHA256 {
				t.Errorf("%s/%s is %s, the first manifest says %s", dir, f.Name, got, f.SHA256)
			}
		}
	}
	for _, dir := range []string{a, b} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		// What post-processors made has its record beside it.
		entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool {
			name := strings.TrimSuffix(e.Name(), ".json")
			r, err := target.ReadRecord(filepath.Join(dir, name))
			return err == nil && r.File == name
		})
		if len(entries) != len(ma.Files)+2 {
			t.Errorf("%s holds %d files of a bake, its manifest names %d, itself and the release", dir, len(entries), len(ma.Files))
		}
	}
}

// sameRelease compares the releases of two output folders, file by file, and
// opens them by the digest in the manifest.
func sameRelease(t *testing.T, a, b string) {
	t.Helper()
	files := func(dir string) map[string]string {
		out := map[string]string{}
		from := filepath.Join(dir, builder.ReleaseName)
		r, err := release.OpenInstalled(os.DirFS(from), manifest(t, dir).Release)
		if err != nil {
			t.Fatal(err)
		}
		if r.Description().Parts == nil {
			t.Errorf("%s: the release has no parts", from)
		}
		err = filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			out[strings.TrimPrefix(p, from)] = hash(t, p)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for p, sum := range out {
			if d, name := filepath.Split(p); strings.HasSuffix(d, "/sha256/") && name != sum {
				t.Errorf("%s: %s is %s", from, p, sum)
			}
		}
		return out
	}
	one, two := files(a), files(b)
	if len(one) < 10 || !maps.Equal(one, two) {
		t.Errorf("the releases of %s and %s differ: %d and %d files", a, b, len(one), len(two))
	}
}

func manifest(t *testing.T, dir string) builder.Manifest {
	t.Helper()
	m, err := builder.ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	return *m
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func hash(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
