// SPDX-License-Identifier: Apache-2.0

package release

// Media types of the parts that make a release installable on a running box.
const (
	// UKIType is the signed unified kernel image.
	UKIType = "application/vnd.holdfast.uki.v1"
	// RootType is the root's squashfs, without its hash tree: the tree follows
	// from it, its salt and its UUID, and no chunk of it would match another's.
	RootType = "application/vnd.holdfast.root.v1.squashfs"
	// BootType is the signed systemd-boot.
	BootType = "application/vnd.holdfast.boot.v1"
	// ChunksType is an index of content-defined chunks (package images/chunk).
	ChunksType = "application/vnd.holdfast.chunks.v1"
	// SBOMType is CycloneDX 1.6 as JSON.
	SBOMType = "application/vnd.cyclonedx+json"
)

// PartBlob is one part of a release.
type PartBlob struct {
	// Digest is "sha256:<hex>", Size bytes.
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// Parts are the blobs of a release besides its stack and images. They are the
// release manifest's layers after the stack, in the order of the fields.
type Parts struct {
	UKI PartBlob `json:"uki"`
	// UKIChunks and RootChunks are the chunk indexes of UKI and Root.
	UKIChunks  PartBlob `json:"uki_chunks"`
	Root       PartBlob `json:"root"`
	RootChunks PartBlob `json:"root_chunks"`
	Boot       PartBlob `json:"boot"`
	SBOM       PartBlob `json:"sbom"`
}

// layer is one part as the release manifest has it.
type layer struct {
	Layer
	name  string
	limit int64
}

// layers are the parts in the manifest's order; none where p is nil.
func (p *Parts) layers() []layer {
	if p == nil {
		return nil
	}
	return []layer{
		{Layer{UKIType, p.UKI}, "uki", MaxUKI},
		{Layer{ChunksType, p.UKIChunks}, "uki_chunks", MaxChunks},
		{Layer{RootType, p.Root}, "root", MaxRoot},
		{Layer{ChunksType, p.RootChunks}, "root_chunks", MaxChunks},
		{Layer{BootType, p.Boot}, "boot", MaxBoot},
		{Layer{SBOMType, p.SBOM}, "sbom", MaxSBOM},
	}
}

// Verity is what the hash tree of a root derives from, besides the root: tree
// and superblock are appended at the root's size, and the root hash is OS's.
type Verity struct {
	// Salt in hex, UUID of the superblock in hex without dashes.
	Salt string `json:"salt"`
	UUID string `json:"uuid"`
	// Bytes of root and tree together: what the slot must hold.
	Bytes int64 `json:"bytes"`
}

// Requirements are what a release needs of a box.
type Requirements struct {
	// Memory, CPUs (in thousandths of a core) and Data (bytes of disk budgets)
	// that the guarantees of the smallest size come to, with the reserve.
	Memory int64 `json:"memory"`
	CPUs   int64 `json:"cpus_milli"`
	Data   int64 `json:"data"`
	// Images are the bytes of all images of the stack.
	Images int64 `json:"images"`
}

// What a gate is where the release does not say, in seconds.
const (
	DefaultDeadline = 900
	DefaultWindow   = 10
)

// Gate is what a trial must meet, in seconds; zero means the default.
type Gate struct {
	// Deadline for all services to be healthy, from the boot or, where there
	// is none, from the switch. Default 900.
	Deadline int64 `json:"deadline,omitempty"`
	// Window is how long they must then stay so. Default 10.
	Window int64 `json:"window,omitempty"`
}

// Update says where boxes look for later releases, unless their configuration
// says otherwise.
type Update struct {
	// Source as compose/depot takes it; "" for none.
	Source string `json:"source,omitempty"`
	// Channel; "" means "stable".
	Channel string `json:"channel,omitempty"`
}
