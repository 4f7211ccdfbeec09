// SPDX-License-Identifier: Apache-2.0

// Package release describes, writes, reads and checks a release: one signed
// OCI artifact (image-spec 1.1) in an OCI layout that also holds the stack's
// images by digest. It knows nothing of disks and machines.
//
// Trust here is one signature over the release manifest by a key whose
// certificate is sealed in the root image; everything else follows by digest.
package release

import "cmp"

// Media types of the artifact, after DESIGN contract C4.
const (
	// ArtifactType marks the release manifest in an OCI index.
	ArtifactType = "application/vnd.holdfast.release.v1+json"
	// ConfigType is the release description, the artifact's config blob.
	ConfigType = "application/vnd.holdfast.release.config.v1+json"
	// StackType is the stack folder as one reproducible, uncompressed tar.
	StackType = "application/vnd.holdfast.stack.v1.tar"
	// SignatureFile lies beside index.json: an RSA PKCS#1 v1.5 SHA-256
	// signature over the bytes of the release manifest.
	SignatureFile = "release.sig"
)

// Description is the config blob of a release.
type Description struct {
	// Format is 1.
	Format int `json:"format"`
	// Name and Version of the release, e.g. "demo" and "1.0.0".
	Name    string `json:"name"`
	Version string `json:"version"`
	// Created is the lock's epoch in seconds since 1970 UTC.
	Created int64 `json:"created"`
	// Stack is the digest of the stack layer, "sha256:<hex>".
	Stack string `json:"stack"`
	// OS says which sealed root the release goes with.
	OS OS `json:"os"`
	// Data says what became of the data that the release leaves behind.
	Data Data `json:"data,omitzero"`
	// Factory is "" where the images come with the release, Seed where they
	// lie in registries and bundles.
	Factory string `json:"factory,omitempty"`
	// Images, sorted by reference, are all images the stack names.
	Images []Image `json:"images"`

	// Parts are the blobs that make the release installable on a box that
	// runs; nil in a factory, whose disk holds them in other places.
	Parts *Parts `json:"parts,omitempty"`
	// Verity makes the hash tree of Parts.Root.
	Verity *Verity `json:"verity,omitempty"`
	// Epoch is the security epoch: a box that has committed a release never
	// fetches one of a lower epoch.
	Epoch int `json:"epoch,omitempty"`
	// MinFrom is the oldest version a box may come from; "" means any.
	MinFrom string `json:"min_from,omitempty"`
	// Engine names the container engine in the root by its packages'
	// versions: roots of the same engine share its store.
	Engine       string       `json:"engine,omitempty"`
	Requirements Requirements `json:"requirements,omitzero"`
	Gate         Gate         `json:"gate,omitzero"`
	Update       Update       `json:"update,omitzero"`
}

// Seed is the Factory of a release whose layout lists its images, by digest
// and size, and has none of their blobs (image-spec allows that: "missing
// blobs SHOULD be fulfilled by an external blob store"). It is signed, so that
// a box goes out to fetch images only where the vendor meant it to, and a
// release that has lost its images is not taken for one that never had any.
const Seed = "seed"

// Data is what a release says about its data.
type Data struct {
	// ReadableFrom is the oldest version of this release that can read the
	// data this one leaves behind; "" means its own version. Use
	// Description.ReadableFrom.
	ReadableFrom string `json:"readable_from,omitempty"`
}

// ReadableFrom is the oldest version of this release that can read the data
// this one leaves behind.
func (d Description) ReadableFrom() string {
	return cmp.Or(d.Data.ReadableFrom, d.Version)
}

// OS identifies the operating system image of a release.
type OS struct {
	// Version derives from the root's content, never from the release.
	Version string `json:"version"`
	// RootHash is the dm-verity root hash, 64 hex digits.
	RootHash string `json:"root_hash"`
}

// Image is one image of the stack, by manifest digest.
type Image struct {
	// Ref as in the Compose file, without digest.
	Ref string `json:"ref"`
	// Digest of the image manifest, "sha256:<hex>".
	Digest string `json:"digest"`
	// Size in bytes of manifest, config and layers.
	Size int64 `json:"size"`
	// Manifest is the size in bytes of the manifest alone: with it the
	// layout's index.json follows from this description, byte for byte.
	Manifest int64 `json:"manifest"`
	// MediaType of the manifest, OCI's or Docker's.
	MediaType string `json:"media_type"`
}
