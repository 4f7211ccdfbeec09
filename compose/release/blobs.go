// SPDX-License-Identifier: Apache-2.0

package release

import (
	"encoding/json"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Blob is one blob of an image: its digest, "sha256:<hex>", and its bytes.
type Blob struct {
	Digest string
	Size   int64
}

// Blobs are what the manifest names, layers in their order, then the config;
// a blob that is named twice is there twice. manifest may come from anywhere:
// it is refused unless it has the image's digest, and the sizes in it must add
// up to what the signed description says, so nobody is made to read more.
func (im Image) Blobs(manifest []byte) ([]Blob, error) {
	if int64(len(manifest)) != im.Manifest {
		return nil, fmt.Errorf("the manifest has %d bytes, the description says %d", len(manifest), im.Manifest)
	}
	if got := v1Hash(manifest).String(); got != im.Digest {
		return nil, fmt.Errorf("the manifest hashes to %s", got)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil, err
	}
	if len(m.Layers) > maxLayers {
		return nil, fmt.Errorf("more than %d layers", maxLayers)
	}
	sum := im.Manifest
	var out []Blob
	for _, d := range append(m.Layers, m.Config) {
		if !digestForm.MatchString(d.Digest.String()) || d.Size < 0 || d.Size > im.Size {
			return nil, fmt.Errorf("a blob of %d bytes with the digest %q", d.Size, d.Digest)
		}
		out = append(out, Blob{Digest: d.Digest.String(), Size: d.Size})
		sum += d.Size
	}
	if sum != im.Size {
		return nil, fmt.Errorf("the manifest has %d bytes, the description %d", sum, im.Size)
	}
	return out, nil
}
