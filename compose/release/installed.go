// SPDX-License-Identifier: Apache-2.0

package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Layer is one layer of a release manifest.
type Layer struct {
	// Type is the media type.
	Type string
	PartBlob
}

// ParseManifest reads a release manifest: its config, and its layers, of which
// the first is the stack. Whether the bytes are the vendor's is the caller's to
// know; all else is checked here, and by ParseDescription and Matches.
func ParseManifest(manifest []byte) (config PartBlob, layers []Layer, err error) {
	bad := func(format string, args ...any) (PartBlob, []Layer, error) {
		return PartBlob{}, nil, errors.New("release manifest: " + cut(fmt.Sprintf(format, args...)))
	}
	if len(manifest) > maxManifest {
		return bad("it has more than %d bytes", maxManifest)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return bad("%v", err)
	}
	if m.ArtifactType != ArtifactType || m.Config.MediaType != ConfigType || len(m.Layers) == 0 || m.Layers[0].MediaType != StackType {
		return bad("not a release of a kind this program knows")
	}
	if len(m.Layers) > maxLayers {
		return bad("more than %d layers", maxLayers)
	}
	config = PartBlob{Digest: m.Config.Digest.String(), Size: m.Config.Size}
	if !digestForm.MatchString(config.Digest) || config.Size <= 0 || config.Size > maxDescription {
		return bad("a description of %d bytes with the digest %q", config.Size, config.Digest)
	}
	for _, l := range m.Layers {
		if !digestForm.MatchString(l.Digest.String()) || l.Size < 0 {
			return bad("a layer of %d bytes with the digest %q", l.Size, l.Digest)
		}
		layers = append(layers, Layer{Type: l.MediaType, PartBlob: PartBlob{Digest: l.Digest.String(), Size: l.Size}})
	}
	if size := layers[0].Size; size == 0 || size > maxStack {
		return bad("a stack of %d bytes; it must have 1 to %d", size, maxStack)
	}
	return config, layers, nil
}

// MaxManifest and MaxDescription are the most bytes of the two.
const (
	MaxManifest    = maxManifest
	MaxDescription = maxDescription
)

// ParseDescription reads the config blob of a release and checks every field.
func ParseDescription(config []byte) (Description, error) {
	var d Description
	if len(config) > maxDescription {
		return d, fmt.Errorf("release description: it has more than %d bytes", maxDescription)
	}
	if err := json.Unmarshal(config, &d); err != nil {
		return Description{}, errors.New("release description: " + cut(err.Error()))
	}
	if err := d.check(); err != nil {
		return Description{}, err
	}
	return d, nil
}

// partTypes are the media types of which each layer is described.
var partTypes = []string{StackType, UKIType, RootType, BootType, ChunksType, SBOMType}

// Matches says whether the layers of the manifest are those of the
// description: the stack, then the parts. What a later program adds behind
// them under other types is left alone.
func (d Description) Matches(layers []Layer) error {
	if len(layers) == 0 || layers[0].Digest != d.Stack {
		var got string
		if len(layers) > 0 {
			got = layers[0].Digest
		}
		return fmt.Errorf("release description: the stack is %s, the manifest has %q", d.Stack, got)
	}
	want := d.Parts.layers()
	if len(layers) < 1+len(want) {
		return fmt.Errorf("release description: %d parts, the manifest has %d", len(want), len(layers)-1)
	}
	for _, more := range layers[1+len(want):] {
		if slices.Contains(partTypes, more.Type) {
			return fmt.Errorf("release description: the manifest has a layer of type %s too many", more.Type)
		}
	}
	for i, w := range want {
		if got := layers[1+i]; got != w.Layer {
			return fmt.Errorf("release description: parts.%s is %s of %d bytes, the manifest has %s of %d as %q",
				w.name, w.Digest, w.Size, got.Digest, got.Size, got.Type)
		}
	}
	return nil
}

// OpenInstalled reads a release at the root of fsys by the digest of its
// manifest, "sha256:<hex>", which the caller trusts: no signature and no
// index.json is looked at, every byte follows from the digest. The parts may be
// missing; the images come from WithBlobs.
func OpenInstalled(fsys fs.FS, digest string) (*Release, error) {
	r := &Release{fsys: fsys}
	if err := r.openInstalled(digest); err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	return r, nil
}

func (r *Release) openInstalled(digest string) error {
	version, err := readBounded(r.fsys, "oci-layout", 4096)
	if err != nil {
		return err
	}
	if !bytes.Equal(version, layoutFile) {
		return fmt.Errorf("oci-layout: not the layout of a release")
	}
	manifest, err := r.blob(digest, maxManifest)
	if err != nil {
		return fmt.Errorf("release manifest: %w", err)
	}
	return r.follow(digest, manifest)
}

// ReadPart reads one of the release's parts into memory and checks its digest:
// a chunk index, systemd-boot or the SBOM. The UKI and the root are too large.
func (r *Release) ReadPart(p PartBlob) ([]byte, error) {
	if p.Size > MaxSBOM {
		return nil, fmt.Errorf("release: %s has %d bytes, too many to be read at once", p.Digest, p.Size)
	}
	b, err := r.blob(p.Digest, p.Size)
	if err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	return b, nil
}
