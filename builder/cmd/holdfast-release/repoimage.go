// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// blobImage is a manifest of a layout by its digest, whatever its config and
// layers are: a release is no image, and goes to registries like one.
type blobImage struct {
	path   layout.Path
	digest v1.Hash
}

func (b blobImage) RawManifest() ([]byte, error) {
	data, err := b.path.Bytes(b.digest)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != b.digest.Hex {
		return nil, fmt.Errorf("the manifest %s is damaged: bake it again", b.digest)
	}
	return data, nil
}

func (b blobImage) Manifest() (*v1.Manifest, error) {
	raw, err := b.RawManifest()
	if err != nil {
		return nil, err
	}
	return v1.ParseManifest(bytes.NewReader(raw))
}

func (b blobImage) MediaType() (types.MediaType, error) {
	m, err := b.Manifest()
	if err != nil {
		return "", err
	}
	return m.MediaType, nil
}

func (b blobImage) Layers() ([]v1.Layer, error) {
	m, err := b.Manifest()
	if err != nil {
		return nil, err
	}
	var all []v1.Layer
	for _, d := range m.Layers {
		all = append(all, blobLayer{b.path, d})
	}
	return all, nil
}

func (b blobImage) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	m, err := b.Manifest()
	if err != nil {
		return nil, err
	}
	for _, d := range append(m.Layers, m.Config) {
		if d.Digest == h {
			return blobLayer{b.path, d}, nil
		}
	}
	return nil, fmt.Errorf("there is no blob %s", h)
}

func (b blobImage) RawConfigFile() ([]byte, error) {
	m, err := b.Manifest()
	if err != nil {
		return nil, err
	}
	return b.path.Bytes(m.Config.Digest)
}

func (b blobImage) ConfigName() (v1.Hash, error) {
	m, err := b.Manifest()
	if err != nil {
		return v1.Hash{}, err
	}
	return m.Config.Digest, nil
}

func (b blobImage) Digest() (v1.Hash, error) { return b.digest, nil }
func (b blobImage) Size() (int64, error)     { return partial.Size(b) }
func (b blobImage) ConfigFile() (*v1.ConfigFile, error) {
	return nil, errors.New("a release has no image config")
}
func (b blobImage) LayerByDiffID(v1.Hash) (v1.Layer, error) {
	return nil, errors.New("a release has no diff ids")
}

// blobLayer is one blob as it lies.
type blobLayer struct {
	path layout.Path
	desc v1.Descriptor
}

func (b blobLayer) Digest() (v1.Hash, error)             { return b.desc.Digest, nil }
func (b blobLayer) DiffID() (v1.Hash, error)             { return b.desc.Digest, nil }
func (b blobLayer) Compressed() (io.ReadCloser, error)   { return b.path.Blob(b.desc.Digest) }
func (b blobLayer) Uncompressed() (io.ReadCloser, error) { return b.path.Blob(b.desc.Digest) }
func (b blobLayer) Size() (int64, error)                 { return b.desc.Size, nil }
func (b blobLayer) MediaType() (types.MediaType, error)  { return b.desc.MediaType, nil }
