// SPDX-License-Identifier: Apache-2.0

// Package stack loads and checks a stack: a Compose project whose files all
// lie in one folder. It takes the Compose file and reads nothing else than
// that folder: no host environment, no network, no other path. It refuses,
// with file and line, whatever one node cannot honour, so that a stack that
// loads runs as written.
package stack

import (
	"fmt"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Stack is a checked stack. Its values are read-only.
type Stack struct {
	// Name is the project name, from the top-level `name`.
	Name string
	// Dir is the absolute path of the stack folder, File the base name of the
	// Compose file in it.
	Dir, File string
	// Project is compose-go's model with env files read, paths absolute below
	// Dir, and, where Options.Digests was given, images as NAME@DIGEST.
	// A secret made by `x-holdfast` has no File: see Secrets.
	Project *types.Project
	// Services in start order: dependencies first, ties by name.
	Services []string
	// Secrets are the secrets the box generates, sorted by name.
	Secrets []GeneratedSecret
	// ReadableFrom is the oldest version of this release that can read the
	// data this stack leaves behind (the top-level
	// `x-holdfast: {data: {readable-from: VERSION}}`), "" where it does not
	// say: then only the release's own version and newer ones can.
	ReadableFrom string
	// Extensions holds x-holdfast of every service.
	Extensions map[string]Extension
	// VolumeBudgets maps a named volume to the bytes it may grow to, from
	// `x-holdfast: {disk: SIZE}` of the volume; volumes without one are absent.
	VolumeBudgets map[string]int64
	// Profiles are the stack's own sizes, in the order XS to XL; empty where
	// it names none.
	Profiles []Profile

	images []ServiceImage
	files  []file
	src    *sources
}

// GeneratedSecret is a Compose secret with
// `x-holdfast: {generate: password, length: N}`.
type GeneratedSecret struct {
	// Name is the key below the top-level `secrets`.
	Name string
	// Kind is "password": Length characters out of [A-Za-z0-9].
	Kind string
	// Length is 16 to 128, 32 where the stack does not say.
	Length int
}

// ServiceImage is where a service names its image.
type ServiceImage struct {
	Service string
	// Init is 0 for the service's own image and N for that of its Nth init
	// container (pre_start) where it is another one.
	Init int
	// Written is the image as the Compose file has it (after interpolation),
	// Ref the same without a digest, Digest the part after @ or "".
	Written, Ref, Digest string
	// File is relative to Dir.
	File string
	Line int
}

// Images returns the images the services name, as written, sorted, each once.
func (s *Stack) Images() []string {
	var out []string
	for _, im := range s.images {
		out = append(out, im.Written)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ServiceImages returns the image of each service, in start order, and those
// of its init containers.
func (s *Stack) ServiceImages() []ServiceImage { return slices.Clone(s.images) }

// Line returns the file (relative to Dir) and line of a key path such as
// "services.web.image": of the longest part of it that a file of the stack
// writes, at worst line 1 of the Compose file.
func (s *Stack) Line(key ...string) (string, int) { return s.src.line(key...) }

// SplitImage cuts an image as a Compose file writes it into the reference
// without digest, which is the key of locks and releases, and the digest
// ("sha256:<hex>" or ""). It refuses what is no image reference.
func SplitImage(image string) (ref, dgst string, err error) {
	if _, err := reference.ParseNormalizedNamed(image); err != nil {
		return "", "", fmt.Errorf("%q is no image reference: %w", image, err)
	}
	ref, dgst, _ = strings.Cut(image, "@")
	if dgst != "" {
		d, err := digest.Parse(dgst)
		if err != nil || d.Algorithm() != digest.SHA256 {
			return "", "", fmt.Errorf("%q does not end in @sha256: and 64 hex digits", image)
		}
	}
	return ref, dgst, nil
}

// PinnedName is NAME@DIGEST for a reference without digest: what the engine
// resolves offline once the image is loaded. The name is fully qualified
// ("docker.io/library/redis" for "redis:8") and has no tag, because a tag
// beside a digest says nothing.
func PinnedName(ref, dgst string) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", fmt.Errorf("%q is no image reference: %w", ref, err)
	}
	d, err := digest.Parse(dgst)
	if err != nil || d.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("%q: %q is not sha256: and 64 hex digits", ref, dgst)
	}
	pinned, err := reference.WithDigest(reference.TrimNamed(named), d)
	if err != nil {
		return "", fmt.Errorf("%q: %w", ref, err)
	}
	return pinned.String(), nil
}
