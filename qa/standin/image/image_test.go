// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/compose/stack"
)

// program is a file in the program's place: nothing here runs it.
func program(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "standin")
	if err := os.WriteFile(file, []byte("a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestOneLayer(t *testing.T) {
	roles := map[string]Role{"a.test/x:1": {Ports: "tcp:1"}, "a.test/y:1": {Ports: "tcp:1"}, "a.test/z:1": {Once: true}}
	file := program(t)
	set, err := Make(file, roles)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Make(file, roles)
	if err != nil {
		t.Fatal(err)
	}
	layers := map[string]bool{}
	for i, im := range set {
		ls, err := im.Layers()
		if err != nil || len(ls) != 1 {
			t.Fatalf("%s has %d layers, %v", im.Ref, len(ls), err)
		}
		d, err := ls[0].Digest()
		if err != nil {
			t.Fatal(err)
		}
		layers[d.String()] = true
		if im.Digest != again[i].Digest {
			t.Errorf("%s is %s once and %s then", im.Ref, im.Digest, again[i].Digest)
		}
	}
	if len(layers) != 1 {
		t.Errorf("%d layers, want one for all", len(layers))
	}
	if d := set.Digests(); len(d) != 3 || d["a.test/x:1"] == d["a.test/y:1"] {
		t.Errorf("digests are %v, want three", d)
	}
	names := []string{}
	ls, _ := set[0].Layers()
	r, err := ls[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if !slices.Equal(names, append([]string{"standin"}, names[1:]...)) || !slices.Contains(names, "liveness.sh") || !slices.Contains(names, "bin/sh") {
		t.Errorf("files are %v", names)
	}
}

// TestStack: the copy of the shipped stack loads as strictly as the stack,
// and a lock finds all of it in the layout.
func TestStack(t *testing.T) {
	st, err := stack.Load(t.Context(), "../../../compose/stacks/sourcegraph/6.1.2889", stack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	set, err := Stack(st, program(t), filepath.Join(dir, "stack"), RoleOf)
	if err != nil {
		t.Fatal(err)
	}
	got, err := stack.Load(t.Context(), filepath.Join(dir, "stack"), stack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	digests := set.Digests()
	for i, im := range got.ServiceImages() {
		if was := st.ServiceImages()[i]; im.Ref != was.Ref || im.Digest != digests[im.Ref] || im.Digest == was.Digest {
			t.Errorf("%s: %s, want %s@%s", im.Service, im.Written, was.Ref, digests[im.Ref])
		}
	}
	// 24 services, of which the front ends share an image, two databases do,
	// and the three exporters do.
	if len(set) != 20 {
		t.Errorf("%d images, want 20", len(set))
	}
	images := filepath.Join(dir, "images")
	if err := set.Layout(images); err != nil {
		t.Fatal(err)
	}
	pins, err := lock.ResolveImages(t.Context(), got.Images(), []string{images}, lock.RegistryOptions{Offline: true})
	if err != nil || len(pins) != len(set) {
		t.Errorf("a lock finds %d of %d images: %v", len(pins), len(set), err)
	}
	taken := 0
	err = set.Load(t.Context(), dir, func(_ context.Context, r io.Reader) error {
		for tr := tar.NewReader(r); ; taken++ {
			if _, err := tr.Next(); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
	})
	if err != nil || taken == 0 {
		t.Errorf("the archive has %d entries, %v", taken, err)
	}
	if _, err := layout.FromPath(images); err != nil {
		t.Error(err)
	}
}

func TestUnknownImage(t *testing.T) {
	if _, err := RoleOf("a.test/unknown:1"); err == nil {
		t.Error("an image without a role is taken")
	}
}
