// SPDX-License-Identifier: Apache-2.0

package release

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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

// artifact is the release manifest. parts is nil in a factory.
func artifact(config, stack []byte, parts *Parts) ([]byte, error) {
	m := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: ArtifactType,
		Config:       ocispec.Descriptor{MediaType: ConfigType, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers:       []ocispec.Descriptor{{MediaType: StackType, Digest: digest.FromBytes(stack), Size: int64(len(stack))}},
	}
	for _, l := range parts.layers() {
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: l.Type, Digest: digest.Digest(l.Digest), Size: l.Size})
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
