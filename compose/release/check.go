// SPDX-License-Identifier: Apache-2.0

package release

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/holdfast/holdfast/compose/version"
)

// Bounds of a release's parts in bytes, and of the other numbers in its
// description: what a box reserves and waits for follows from them.
const (
	MaxUKI    = 256 << 20
	MaxRoot   = 8 << 30
	MaxChunks = 16 << 20
	MaxBoot   = 16 << 20
	MaxSBOM   = 64 << 20

	// MaxEpoch is the highest security epoch.
	MaxEpoch = 1_000_000
	// MaxDeadline and MaxWindow bound the gate, in seconds.
	MaxDeadline = 24 * 3600
	MaxWindow   = 3600

	maxSaid  = 300     // bytes of a complaint
	maxBytes = 1 << 50 // of any size that is only compared
	maxCPUs  = 1 << 20 // in thousandths
	verity   = 4096    // block of dm-verity
)

var (
	saltForm    = regexp.MustCompile(`^([0-9a-f]{2}){0,256}$`)
	uuidForm    = regexp.MustCompile(`^[0-9a-f]{32}$`)
	engineForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+~_-]{0,199}$`)
	sourceForm  = regexp.MustCompile(`^[!-~]{1,500}$`)
	channelForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)
)

// check is what holds for each description, written or read.
func (d Description) check() error {
	bad := func(key, format string, args ...any) error {
		return fmt.Errorf("release description: %s: %s", key, cut(fmt.Sprintf(format, args...)))
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
	return d.checkUpgrade(bad)
}

// manifestTypes are OCI's and Docker's image manifest; what a source has is
// kept as it is, or its digest would change.
var manifestTypes = []string{ocispec.MediaTypeImageManifest, "application/vnd.docker.distribution.manifest.v2+json"}

type complaint func(key, format string, args ...any) error

// checkUpgrade is the part of check that upgrades go by.
func (d Description) checkUpgrade(bad complaint) error {
	q, g := d.Requirements, d.Gate
	switch {
	case d.Epoch < 0 || d.Epoch > MaxEpoch:
		return bad("epoch", "%d is not 0 to %d", d.Epoch, MaxEpoch)
	case d.MinFrom != "" && !version.Valid(d.MinFrom):
		return bad("min_from", "%q is no semantic version", d.MinFrom)
	case d.MinFrom != "" && version.Compare(d.MinFrom, d.Version) > 0:
		return bad("min_from", "%s is newer than the release; no box could ever take it", d.MinFrom)
	case d.Engine != "" && (!engineForm.MatchString(d.Engine) || strings.Contains(d.Engine, "..")):
		return bad("engine", "%q is not 1 to 200 of letters, digits and . + ~ _ -", d.Engine)
	case min(q.Memory, q.CPUs, q.Data, q.Images) < 0 || max(q.Memory, q.Data, q.Images) > maxBytes || q.CPUs > maxCPUs:
		return bad("requirements", "%+v are out of range", q)
	case g.Deadline < 0 || g.Deadline > MaxDeadline:
		return bad("gate.deadline", "%d seconds are not 0 to %d", g.Deadline, MaxDeadline)
	case g.Window < 0 || g.Window > MaxWindow:
		return bad("gate.window", "%d seconds are not 0 to %d", g.Window, MaxWindow)
	case g.effective().Window >= g.effective().Deadline:
		return bad("gate.window", "%d seconds are no shorter than the deadline of %d", g.effective().Window, g.effective().Deadline)
	case d.Update.Source != "" && !sourceForm.MatchString(d.Update.Source):
		return bad("update.source", "%q is not 1 to 500 printable ASCII characters without spaces", d.Update.Source)
	case d.Update.Channel != "" && !channelForm.MatchString(d.Update.Channel):
		return bad("update.channel", "%q is not 1 to 40 of a-z, 0-9 and -", d.Update.Channel)
	case (d.Parts == nil) != (d.Verity == nil):
		return bad("verity", "it goes with parts, neither comes alone")
	case d.Parts == nil:
		return nil
	case d.Engine == "":
		return bad("engine", "a release that boxes upgrade to names it")
	}
	for _, l := range d.Parts.layers() {
		if !digestForm.MatchString(l.Digest) {
			return bad("parts."+l.name, "%q is no digest", l.Digest)
		}
		if l.Size <= 0 || l.Size > l.limit {
			return bad("parts."+l.name, "%d bytes; it must have 1 to %d", l.Size, l.limit)
		}
	}
	root, v := d.Parts.Root.Size, *d.Verity
	switch {
	case root%verity != 0:
		return bad("parts.root", "%d bytes are no whole number of blocks of %d", root, verity)
	case !saltForm.MatchString(v.Salt):
		return bad("verity.salt", "it is not at most 256 bytes in hex")
	case !uuidForm.MatchString(v.UUID):
		return bad("verity.uuid", "%q is not 32 hex digits", v.UUID)
	// The tree has a hash of 32 bytes for every block, and one more level for
	// every 128 of those: less than a hundredth, and its superblock.
	case v.Bytes%verity != 0 || v.Bytes <= root || v.Bytes > root+root/100+4*verity:
		return bad("verity.bytes", "%d for a root of %d", v.Bytes, root)
	}
	return nil
}

// effective is the gate with its defaults.
func (g Gate) effective() Gate {
	if g.Deadline == 0 {
		g.Deadline = DefaultDeadline
	}
	if g.Window == 0 {
		g.Window = DefaultWindow
	}
	return g
}

// cut shortens a complaint: what it quotes may be as long as a description.
func cut(text string) string {
	if len(text) <= maxSaid {
		return text
	}
	return strings.ToValidUTF8(text[:maxSaid], "") + "…"
}
