// SPDX-License-Identifier: Apache-2.0

// Package image makes images in which the program of qa/standin takes the
// place of real ones. It takes references and what each stand-in shall be, or
// a whole stack, and gives images of one shared layer, as an OCI archive that
// an engine loads, as an OCI layout that a lock or a bake reads, and a copy of
// the stack that names them.
//
// A stand-in has a digest of its own, so a stack that pins the real images
// can't name it: Stack writes a copy of the folder in which each reference
// carries the stand-in's digest and nothing else differs. It refuses images
// for which no role is known.
package image

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/holdfast/holdfast/compose/stack"
	"github.com/holdfast/holdfast/qa/dockerd"
)

// Program is the package of the program.
const Program = "./qa/standin"

// names are the other names of the program in every image: what the health
// checks of stacks run.
var names = []string{"bin/sh", "usr/bin/wget", "usr/bin/curl", "usr/bin/redis-cli", "liveness.sh"}

// Image is a stand-in under one reference.
type Image struct {
	// Ref is the reference without digest, as the Compose file writes it.
	Ref string
	// Digest is of the stand-in's manifest, "sha256:…".
	Digest string
	v1.Image
}

// Set is a list of stand-ins, sorted by reference.
type Set []Image

// Make makes a stand-in for each reference from a built program (Build).
func Make(program string, roles map[string]Role) (Set, error) {
	b, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("%w: build the stand-in first", err)
	}
	files := []dockerd.File{{Name: "standin", Content: b}}
	for _, n := range names {
		files = append(files, dockerd.File{Name: n, Link: "standin"})
	}
	// One layer for all: an engine keeps and unpacks it once.
	layer, err := dockerd.Layer(files)
	if err != nil {
		return nil, err
	}
	var out Set
	for _, ref := range slices.Sorted(maps.Keys(roles)) {
		img, err := dockerd.Scratch(layer, v1.Config{
			Entrypoint: []string{"/standin"},
			Env:        append([]string{"PATH=/usr/bin:/bin"}, roles[ref].env()...),
			// Two references may have one role and still are two images.
			Labels: map[string]string{"holdfast.standin": ref},
		})
		if err != nil {
			return nil, fmt.Errorf("stand-in of %s: %w", ref, err)
		}
		d, err := img.Digest()
		if err != nil {
			return nil, fmt.Errorf("stand-in of %s: %w", ref, err)
		}
		out = append(out, Image{Ref: ref, Digest: d.String(), Image: img})
	}
	return out, nil
}

// Build compiles the program into a file. The working folder is the module's.
func Build(out string) error { return dockerd.Build(Program, out) }

// Digests are the stand-ins' by reference: stack.Options' and a lock's form.
func (s Set) Digests() map[string]string {
	out := map[string]string{}
	for _, im := range s {
		out[im.Ref] = im.Digest
	}
	return out
}

// Layout writes all of them into an OCI layout folder, each under its
// reference: what `holdfast-release lock --layout` reads.
func (s Set) Layout(dir string) error {
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	for _, im := range s {
		named, err := reference.ParseNormalizedNamed(im.Ref)
		if err != nil {
			return fmt.Errorf("%s: %w", im.Ref, err)
		}
		note := map[string]string{"io.containerd.image.name": named.String()}
		if err := p.AppendImage(im.Image, layout.WithAnnotations(note)); err != nil {
			return fmt.Errorf("%s: %w", im.Ref, err)
		}
	}
	return nil
}

// Load hands the OCI archive of all of them to load, such as an engine's
// LoadImage; scratch is a folder for the layout.
func (s Set) Load(ctx context.Context, scratch string, load func(context.Context, io.Reader) error) error {
	dir, err := os.MkdirTemp(scratch, "standins-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := s.Layout(dir); err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(dockerd.Archive(w, dir)) }()
	defer r.Close()
	return load(ctx, r)
}

// Stack makes the stand-ins of a stack's images and copies the stack's folder
// to dir, with each reference of the Compose files followed by the stand-in's
// digest in place of the real one. roles gives the role of a reference; RoleOf
// knows those of the stacks we ship.
func Stack(st *stack.Stack, program, dir string, roles func(ref string) (Role, error)) (Set, error) {
	want := map[string]Role{}
	for _, im := range st.ServiceImages() {
		r, err := roles(im.Ref)
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", im.Service, err)
		}
		want[im.Ref] = r
	}
	set, err := Make(program, want)
	if err != nil {
		return nil, err
	}
	// The longest first: one image as written may begin another.
	images := st.ServiceImages()
	slices.SortStableFunc(images, func(a, b stack.ServiceImage) int { return len(b.Written) - len(a.Written) })
	var pins []string
	files := map[string]bool{}
	for _, im := range images {
		pins = append(pins, im.Written, im.Ref+"@"+set.Digests()[im.Ref])
		files[im.File] = true
	}
	if err := os.CopyFS(dir, os.DirFS(st.Dir)); err != nil {
		return nil, err
	}
	for name := range files {
		file := filepath.Join(dir, name)
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, []byte(strings.NewReplacer(pins...).Replace(string(b))), 0o644); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// name is the last part of a reference without its tag: "gitserver".
func name(ref string) string {
	n, _, _ := strings.Cut(path.Base(ref), ":")
	return n
}
