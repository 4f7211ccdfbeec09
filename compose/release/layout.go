// SPDX-License-Identifier: Apache-2.0

package release

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/holdfast/holdfast/compose/version"
)

const (
	// FormatVersion is the version of Description that this package writes.
	FormatVersion = 1

	// annotationName is the full reference by which containerd, and so
	// `docker load`, names what it imports. Image-spec's own annotation,
	// ocispec.AnnotationRefName, holds the reference as the stack writes it.
	annotationName = "io.containerd.image.name"

	blobDir = "blobs/sha256/"

	// Bounds on what is read into memory. Manifests: registries refuse more
	// than 4 MiB (distribution-spec). The stack layer: stack.Load's 64 MiB
	// and the headers of its 4096 files.
	maxManifest    = 4 << 20
	maxIndex       = 4 << 20
	maxDescription = 4 << 20
	maxSignature   = 4096
	maxStack       = 64<<20 + 8<<20
	maxImages      = 1000
	maxLayers      = 1000
)

// layoutFile is the content of the file "oci-layout".
var layoutFile = []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`)

var (
	digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	hashForm   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	nameForm   = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)
	osForm     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+~_-]{0,99}$`)
)

func blobPath(dgst string) string { return blobDir + strings.TrimPrefix(dgst, "sha256:") }

// artifact is the release manifest.
func artifact(config, stack []byte) ([]byte, error) {
	m := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: ArtifactType,
		Config:       ocispec.Descriptor{MediaType: ConfigType, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers:       []ocispec.Descriptor{{MediaType: StackType, Digest: digest.FromBytes(stack), Size: int64(len(stack))}},
	}
	return json.Marshal(m)
}

// index is index.json: the release manifest and each image. It follows from
// the signed manifest and description, so that a reader can demand these
// bytes and no others.
func index(manifest []byte, d Description) ([]byte, error) {
	idx := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{{
			MediaType: ocispec.MediaTypeImageManifest, ArtifactType: ArtifactType,
			Digest: digest.FromBytes(manifest), Size: int64(len(manifest)),
			Annotations: map[string]string{ocispec.AnnotationRefName: d.Name + ":" + d.Version},
		}},
	}
	for _, im := range d.Images {
		desc, err := im.descriptor()
		if err != nil {
			return nil, err
		}
		idx.Manifests = append(idx.Manifests, desc)
	}
	return json.Marshal(idx)
}

// descriptor is an image's entry in an index that `docker load` takes.
func (im Image) descriptor() (ocispec.Descriptor, error) {
	named, err := reference.ParseNormalizedNamed(im.Ref)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%q is no image reference: %w", im.Ref, err)
	}
	return ocispec.Descriptor{
		MediaType: im.MediaType, Digest: digest.Digest(im.Digest), Size: im.Manifest,
		Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"},
		Annotations: map[string]string{
			annotationName:            reference.TagNameOnly(named).String(),
			ocispec.AnnotationRefName: im.Ref,
		},
	}, nil
}

// check is what holds for each description, written or read.
func (d Description) check() error {
	bad := func(key, format string, args ...any) error {
		return fmt.Errorf("release description: %s: %s", key, fmt.Sprintf(format, args...))
	}
	switch {
	case d.Format != FormatVersion:
		return bad("format", "%d, this program knows %d", d.Format, FormatVersion)
	case !nameForm.MatchString(d.Name):
		return bad("name", "%q is not 1 to 40 of a-z, 0-9 and -", d.Name)
	case !version.Valid(d.Version):
		return bad("version", "%q is no semantic version", d.Version)
	case d.Data.ReadableFrom != "" && !version.Valid(d.Data.ReadableFrom):
		return bad("data.readable_from", "%q is no semantic version", d.Data.ReadableFrom)
	case d.Data.ReadableFrom != "" && version.Compare(d.Data.ReadableFrom, d.Version) > 0:
		return bad("data.readable_from", "%s is newer than the release, which must be able to read its own data; write %s or older", d.Data.ReadableFrom, d.Version)
	case d.Created <= 0:
		return bad("created", "%d is no time after 1970", d.Created)
	case !digestForm.MatchString(d.Stack):
		return bad("stack", "%q is no digest", d.Stack)
	case !osForm.MatchString(d.OS.Version):
		return bad("os.version", "%q is no version", d.OS.Version)
	case !hashForm.MatchString(d.OS.RootHash):
		return bad("os.root_hash", "%q is not 64 hex digits", d.OS.RootHash)
	case d.Factory != "" && d.Factory != Seed:
		return bad("factory", "%q, this program knows %q", d.Factory, Seed)
	case len(d.Images) > maxImages:
		return bad("images", "more than %d", maxImages)
	}
	for i, im := range d.Images {
		key := fmt.Sprintf("images.%d", i)
		named, err := reference.ParseNormalizedNamed(im.Ref)
		switch {
		case err != nil:
			return bad(key+".ref", "%q is no image reference", im.Ref)
		case strings.Contains(im.Ref, "@") || named == nil:
			return bad(key+".ref", "%q has a digest", im.Ref)
		case !digestForm.MatchString(im.Digest):
			return bad(key+".digest", "%q is no digest", im.Digest)
		case im.Manifest <= 0 || im.Manifest > maxManifest || im.Size <= im.Manifest:
			return bad(key+".size", "%d with a manifest of %d bytes", im.Size, im.Manifest)
		case !slices.Contains(manifestTypes, im.MediaType):
			return bad(key+".media_type", "%q is no image manifest", im.MediaType)
		case i > 0 && d.Images[i-1].Ref >= im.Ref:
			return bad(key+".ref", "the images are not sorted by reference, each once")
		}
	}
	return nil
}

// manifestTypes are OCI's and Docker's image manifest; what a source has is
// kept as it is, or its digest would change.
var manifestTypes = []string{ocispec.MediaTypeImageManifest, "application/vnd.docker.distribution.manifest.v2+json"}
