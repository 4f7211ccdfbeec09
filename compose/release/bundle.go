// SPDX-License-Identifier: Apache-2.0

package release

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Release is an opened release whose manifest, description, stack layer and
// index have been verified. Its images are verified as they are read.
type Release struct {
	fsys  fs.FS
	desc  Description
	stack []byte
}

// Open reads the OCI layout of a release at the root of fsys. Of index.json,
// which nobody signs, only the digest of the release manifest is taken before
// the signature over that manifest has been verified; all else follows from
// the manifest by digest, and index.json must then be the very bytes that
// follow from it.
func Open(fsys fs.FS, trust []*x509.Certificate) (*Release, error) {
	r := &Release{fsys: fsys}
	if err := r.open(trust); err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	return r, nil
}

func (r *Release) open(trust []*x509.Certificate) error {
	version, err := readBounded(r.fsys, "oci-layout", 4096)
	if err != nil {
		return err
	}
	if !bytes.Equal(version, layoutFile) {
		return fmt.Errorf("oci-layout: not the layout of a release")
	}
	idx, err := readBounded(r.fsys, "index.json", maxIndex)
	if err != nil {
		return err
	}
	sig, err := readBounded(r.fsys, SignatureFile, maxSignature)
	if err != nil {
		return err
	}
	digest, err := manifestDigest(idx)
	if err != nil {
		return fmt.Errorf("index.json: %w", err)
	}
	manifest, err := r.blob(digest, maxManifest)
	if err != nil {
		return fmt.Errorf("release manifest: %w", err)
	}
	if err := verify(manifest, sig, trust); err != nil {
		return err
	}

	// From here on every byte is the vendor's.
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return fmt.Errorf("release manifest: %w", err)
	}
	if m.ArtifactType != ArtifactType || m.Config.MediaType != ConfigType || len(m.Layers) == 0 || m.Layers[0].MediaType != StackType {
		return fmt.Errorf("release manifest: not a release of a kind this program knows")
	}
	config, err := r.blob(m.Config.Digest.String(), maxDescription)
	if err != nil {
		return fmt.Errorf("release description: %w", err)
	}
	if err := json.Unmarshal(config, &r.desc); err != nil {
		return fmt.Errorf("release description: %w", err)
	}
	if err := r.desc.check(); err != nil {
		return err
	}
	if d := m.Layers[0].Digest.String(); d != r.desc.Stack {
		return fmt.Errorf("release description: the stack is %s, the manifest has %s", r.desc.Stack, d)
	}
	if r.stack, err = r.blob(r.desc.Stack, maxStack); err != nil {
		return fmt.Errorf("stack layer: %w", err)
	}
	want, err := index(manifest, r.desc)
	if err != nil {
		return err
	}
	if !bytes.Equal(idx, want) {
		return fmt.Errorf("index.json: not what the signed description says")
	}
	return nil
}

// manifestDigest finds the release manifest in an index that is not verified.
func manifestDigest(idx []byte) (string, error) {
	var list struct {
		Manifests []struct {
			ArtifactType string `json:"artifactType"`
			Digest       string `json:"digest"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(idx, &list); err != nil {
		return "", err
	}
	found := ""
	for _, m := range list.Manifests {
		if m.ArtifactType != ArtifactType {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("there is more than one release")
		}
		found = m.Digest
	}
	if !digestForm.MatchString(found) {
		return "", fmt.Errorf("there is no release")
	}
	return found, nil
}

// blob reads a whole blob and checks its digest.
func (r *Release) blob(dgst string, limit int64) ([]byte, error) {
	if !digestForm.MatchString(dgst) {
		return nil, fmt.Errorf("%q is no digest", dgst)
	}
	data, err := readBounded(r.fsys, blobPath(dgst), limit)
	if err != nil {
		return nil, err
	}
	if got := v1Hash(data).String(); got != dgst {
		return nil, fmt.Errorf("blob %s is damaged: it hashes to %s", dgst, got)
	}
	return data, nil
}

func readBounded(fsys fs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return data, nil
}

// WithBlobs is the same release with the blobs of its images at the root of
// fsys, under blobs/sha256/: what a release without images is completed by.
func (r *Release) WithBlobs(fsys fs.FS) *Release {
	with := *r
	with.fsys = fsys
	return &with
}

// StackTar is the stack layer, as stack.Stack.Tar wrote it.
func (r *Release) StackTar() []byte { return slices.Clone(r.stack) }

// Description of the release.
func (r *Release) Description() Description {
	d := r.desc
	d.Images = slices.Clone(d.Images)
	return d
}

// Digests maps each image's reference to its manifest digest, as
// stack.Options takes it.
func (r *Release) Digests() map[string]string {
	out := make(map[string]string, len(r.desc.Images))
	for _, im := range r.desc.Images {
		out[im.Ref] = im.Digest
	}
	return out
}
