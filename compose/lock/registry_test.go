// SPDX-License-Identifier: Apache-2.0

package lock

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func image(t *testing.T, arch string) v1.Image {
	t.Helper()
	img, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", arch
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

func digestOf(t *testing.T, x interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	h, err := x.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

// index is a multi-platform index of two images and an attestation.
func index(t *testing.T, images map[string]v1.Image) v1.ImageIndex {
	t.Helper()
	var idx v1.ImageIndex = empty.Index
	for arch, img := range images {
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: img,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	return mutate.AppendManifests(idx, mutate.IndexAddendum{Add: image(t, "amd64"),
		Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}})
}

func writeLayout(t *testing.T, add func(layout.Path)) string {
	t.Helper()
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	add(p)
	return dir
}

func TestResolveFromLayouts(t *testing.T) {
	ctx := context.Background()
	web, db, arm, amd, damaged := image(t, "amd64"), image(t, "amd64"), image(t, "arm64"), image(t, "amd64"), image(t, "amd64")
	multi := index(t, map[string]v1.Image{"arm64": arm, "amd64": amd})
	named := func(annotation, ref string) layout.Option {
		return layout.WithAnnotations(map[string]string{annotation: ref})
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := writeLayout(t, func(p layout.Path) {
		ok(p.AppendImage(web, named(annotationRef, "holdfast.demo/web:1.0.0")))
		ok(p.AppendImage(db, named(annotationName, "docker.io/library/db:1")))
		ok(p.AppendIndex(multi, named(annotationName, "holdfast.demo/multi:1")))
		ok(p.AppendImage(arm, named(annotationRef, "holdfast.demo/arm:1")))
		ok(p.AppendImage(web, named(annotationRef, "holdfast.demo/two:1")))
		ok(p.AppendImage(db, named(annotationRef, "holdfast.demo/two:1")))
	})
	broken := writeLayout(t, func(p layout.Path) {
		ok(p.AppendImage(damaged, named(annotationRef, "holdfast.demo/damaged:1")))
		blob := filepath.Join(string(p), "blobs/sha256", strings.TrimPrefix(digestOf(t, damaged), "sha256:"))
		data, err := os.ReadFile(blob)
		ok(err)
		data[len(data)-2] = ' '
		ok(os.WriteFile(blob, append(data, ' '), 0o644))
	})
	offline := RegistryOptions{Offline: true}
	layouts := []string{filepath.Join(dir, "missing"), dir, broken}

	got, err := ResolveImages(ctx, []string{"holdfast.demo/web:1.0.0", "db:1", "holdfast.demo/multi:1",
		"holdfast.demo/web:1.0.0", "byindex@" + digestOf(t, multi), "bychild@" + digestOf(t, amd)}, layouts, offline)
	ok(err)
	want := map[string]string{"holdfast.demo/web:1.0.0": digestOf(t, web), "db:1": digestOf(t, db),
		"holdfast.demo/multi:1": digestOf(t, amd), "byindex": digestOf(t, amd), "bychild": digestOf(t, amd)}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
	for i, im := range got {
		if want[im.Ref] != im.Digest || im.Size < 2000 || i > 0 && got[i-1].Ref >= im.Ref {
			t.Errorf("%+v, want %s", im, want[im.Ref])
		}
	}

	for _, c := range []struct{ ref, want string }{
		{"holdfast.demo/none:1", "holdfast.demo/none:1 is in no source; searched the OCI layout " + layouts[0] +
			" (no such folder), the OCI layout " + dir + ", the OCI layout " + broken + "; build or pull it, or name an OCI layout that has it"},
		{"web@sha256:" + hex("a"), "web@sha256:" + hex("a") + " is in no source"},
		{"holdfast.demo/arm:1", "holdfast.demo/arm:1 is for linux/arm64; a box is linux/amd64"},
		{"holdfast.demo/two:1", "have this name"},
		{"holdfast.demo/damaged:1", "is damaged"},
		{"not a ref", "is no image reference"},
	} {
		if _, err := ResolveImages(ctx, []string{c.ref}, layouts, offline); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.ref, err, c.want)
		}
	}
	_, err = ResolveImages(ctx, []string{"a:1", "b:1"}, layouts, offline)
	if err == nil || !strings.Contains(err.Error(), "a:1 is in no source") || !strings.Contains(err.Error(), "b:1 is in no source") {
		t.Errorf("both missing images must be named: %v", err)
	}

	img, err := Open(ctx, Image{Ref: "holdfast.demo/web:1.0.0", Digest: digestOf(t, web)}, layouts, offline)
	ok(err)
	if digestOf(t, img) != digestOf(t, web) {
		t.Error("another image")
	}
	var nf *NotFoundError
	if _, err := Open(ctx, Image{Ref: "holdfast.demo/web:1.0.0", Digest: "sha256:" + hex("b")}, layouts, offline); !errors.As(err, &nf) {
		t.Errorf("a name alone must not do: %v", err)
	}
	if _, err := Open(ctx, Image{Ref: "x", Digest: digestOf(t, multi)}, layouts, offline); err == nil || !strings.Contains(err.Error(), "is locked") {
		t.Errorf("an index' digest must not pass for an image's: %v", err)
	}
}

func TestResolveFromRegistry(t *testing.T) {
	ctx := context.Background()
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	amd := image(t, "amd64")
	multi := index(t, map[string]v1.Image{"arm64": image(t, "arm64"), "amd64": amd})
	tag, err := name.NewTag(host + "/demo/multi:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(tag, multi); err != nil {
		t.Fatal(err)
	}
	got, err := ResolveImages(ctx, []string{host + "/demo/multi:1"}, nil, RegistryOptions{})
	if err != nil || len(got) != 1 || got[0].Digest != digestOf(t, amd) {
		t.Fatalf("%v %v, want %s", got, err, digestOf(t, amd))
	}
	img, err := Open(ctx, got[0], nil, RegistryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 2 {
		t.Fatal(layers, err)
	}
	if _, err := ResolveImages(ctx, []string{host + "/demo/none:1"}, []string{"/none"}, RegistryOptions{}); err == nil ||
		!strings.Contains(err.Error(), "searched the OCI layout /none (no such folder), the registry "+host) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	if _, err := ResolveImages(ctx, []string{host + "/demo/multi:1"}, nil, RegistryOptions{Offline: true}); err == nil ||
		!strings.Contains(err.Error(), "no source to take it from") {
		t.Errorf("%v", err)
	}
	ended, stop := context.WithCancel(ctx)
	stop()
	if _, err := ResolveImages(ended, []string{host + "/demo/multi:1"}, nil, RegistryOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
