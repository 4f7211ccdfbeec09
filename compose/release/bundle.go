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
)

// Release is an opened release whose manifest, description, stack layer and
// index have been verified. Its images are verified as they are read.
type Release struct {
	fsys   fs.FS
	digest string
	desc   Description
	stack  []byte
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
	if err := r.follow(digest, manifest); err != nil {
		return err
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

// follow reads what a verified manifest names: description and stack.
func (r *Release) follow(digest string, manifest []byte) error {
	config, layers, err := ParseManifest(manifest)
	if err != nil {
		return err
	}
	r.digest = digest
	raw, err := r.blob(config.Digest, maxDescription)
	if err != nil {
		return fmt.Errorf("release description: %w", err)
	}
	if r.desc, err = ParseDescription(raw); err != nil {
		return err
	}
	if err := r.desc.Matches(layers); err != nil {
		return err
	}
	if r.stack, err = r.blob(r.desc.Stack, maxStack); err != nil {
		return fmt.Errorf("stack layer: %w", err)
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

// Digest of the release manifest, "sha256:<hex>".
func (r *Release) Digest() string { return r.digest }

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
