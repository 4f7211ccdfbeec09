// SPDX-License-Identifier: Apache-2.0

// Package trust says which releases a box may take, by The Update Framework
// (TUF, specification 1.0.31, roles root, targets, snapshot and timestamp,
// consistent snapshots, ed25519). It has the box's side, a Store, and the
// vendor's, a Repository. It knows nothing of where metadata is kept or how it
// is fetched: see Source.
//
// A target is one release. Its path is "NAME-VERSION", its length and SHA-256
// are those of the release manifest, from which everything else follows by
// digest.
//
// Metadata has exactly one form, the bytes that this package writes: compact
// JSON with sorted keys. Anything else is refused before its signatures are
// looked at, so that one flipped bit never goes unseen.
package trust

import (
	"context"
	"encoding/json"
	"time"
)

// Bounds of metadata in bytes, and of how many roots one refresh follows.
const (
	MaxRoot      = 512 << 10
	MaxTimestamp = 64 << 10
	MaxMetadata  = 4 << 20
	MaxRoots     = 256
)

// BundleTargets is the name of a bundle's targets metadata: a bundle has no
// snapshot that would say its version.
const BundleTargets = "targets.json"

// Source gives metadata by name: "3.root.json", "timestamp.json",
// "7.snapshot.json", "7.targets.json", and of a bundle "targets.json". It
// gives at most limit bytes, an error with a method TooLarge() where there are
// more, and fs.ErrNotExist where there is none. A depot is one.
type Source interface {
	Metadata(ctx context.Context, name string, limit int64) ([]byte, error)
}

// Target is one release that the vendor offers.
type Target struct {
	// Name and Version of the release.
	Name    string
	Version string
	// Digest of the release manifest, "sha256:<hex>", Size its bytes.
	Digest string
	Size   int64
	// Epoch is the security epoch; whether it is too low is the caller's to
	// judge.
	Epoch int
	// Channels that the release is in, sorted.
	Channels []string
	// MinFrom is the oldest version a box may come from; "" means any.
	MinFrom string
	// Rollout is how many boxes in a hundred take it by themselves, 0 to 100.
	Rollout int
	// Requirements as the release description has them.
	Requirements json.RawMessage
}

// Path is what the metadata calls the target.
func (t Target) Path() string { return t.Name + "-" + t.Version }

// Options of a refresh.
type Options struct {
	// Now is the box's clock and Least a time that has surely passed, such as
	// the build of its image: metadata must be valid at the later of the two,
	// and of the last signature that was verified.
	Now   time.Time
	Least time.Time
	// AcceptExpired takes metadata whatever its age, and logs that. Nothing
	// else is waived.
	AcceptExpired bool
	// Offline means a bundle: a chain of roots and targets, no timestamp and
	// no snapshot.
	Offline bool
	// Log gets what an admin should know; nil for none.
	Log func(string)
	// Expires hears when the first of the metadata that the refresh went by
	// expires; nil where nobody wants to know.
	Expires func(time.Time)
}

func (o Options) log(text string) {
	if o.Log != nil {
		o.Log(text)
	}
}
