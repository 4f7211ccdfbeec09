// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast/holdfast/compose/trust/tuf"
)

// Wait is metadata that has too few signatures yet.
type Wait struct {
	// File in the folder for what is pending, Role whose signatures it needs.
	File string
	Role string
	// Have of Need signatures are there.
	Have, Need int
}

func (w Wait) String() string {
	return fmt.Sprintf("%s/%s has %d of %d signatures of %s: run holdfast-release sign on the machines that have the other keys", PendingDir, w.File, w.Have, w.Need, w.Role)
}

// Waiting lists what is pending.
func (r *Repository) Waiting() []Wait {
	var all []Wait
	if m, err := pending(r, RoleRoot, tuf.Root); err == nil && m != nil {
		for _, root := range []*tuf.Metadata[tuf.RootType]{r.root(), m} {
			if have, need := count(root, RoleRoot, m), root.Signed.Roles[RoleRoot].Threshold; have < need {
				return append(all, Wait{"root.json", RoleRoot, have, need})
			}
		}
	}
	if m, err := pending(r, RoleTargets, tuf.Targets); err == nil && m != nil {
		all = append(all, Wait{"targets.json", RoleTargets, count(r.root(), RoleTargets, m), r.root().Signed.Roles[RoleTargets].Threshold})
	}
	return all
}

// pending reads what waits for signatures of a role; nil where nothing does.
func pending[T tuf.Roles](r *Repository, role string, empty func(...time.Time) *tuf.Metadata[T]) (*tuf.Metadata[T], error) {
	name := filepath.Join(PendingDir, role+".json")
	data, err := readBounded(os.DirFS(r.dir), name, MaxMetadata)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parse(name, data, MaxMetadata, empty())
}

// count is how many of a role's keys signed metadata.
func count[T tuf.Roles](root *tuf.Metadata[tuf.RootType], role string, m *tuf.Metadata[T]) int {
	payload, err := tuf.Payload(m.Signed)
	if err != nil {
		return 0
	}
	n := 0
	for _, id := range root.Signed.Roles[role].KeyIDs {
		if slices.ContainsFunc(m.Signatures, func(s tuf.Signature) bool {
			return s.KeyID == id && validSignature(root.Signed.Keys[id], payload, s.Signature)
		}) {
			n++
		}
	}
	return n
}

// signWith adds the signatures of a role's keys that are at hand.
func signWith[T tuf.Roles](ctx context.Context, r *Repository, root *tuf.Metadata[tuf.RootType], role string, m *tuf.Metadata[T]) error {
	payload, err := tuf.Payload(m.Signed)
	if err != nil {
		return err
	}
	for _, id := range root.Signed.Roles[role].KeyIDs {
		if slices.ContainsFunc(m.Signatures, func(s tuf.Signature) bool { return s.KeyID == id }) {
			continue
		}
		sig, ok, err := r.Keys.sign(ctx, role, id, root.Signed.Keys[id], payload)
		if err != nil {
			return err
		}
		if ok {
			m.Signatures = append(m.Signatures, tuf.Signature{KeyID: id, Signature: sig})
		}
	}
	return nil
}

// issue signs metadata and makes it the newest of its role, or puts it among
// the pending where signatures are missing and others can add them.
func issue[T tuf.Roles](ctx context.Context, r *Repository, role string, m *tuf.Metadata[T]) (done bool, err error) {
	if err := signWith(ctx, r, r.root(), role, m); err != nil {
		return false, err
	}
	version, _ := head(m)
	have, need := count(r.root(), role, m), r.root().Signed.Roles[role].Threshold
	if have < need && role != RoleTargets {
		return false, refuse(ErrNoKey, role+".json", fmt.Sprintf("%d of %d private keys of the role %s are at hand: put them into %s, set %s, or give a --signer", have, need, role, filepath.Join(r.dir, PrivateDir), EnvKey(role)))
	}
	wait := filepath.Join(PendingDir, role+".json")
	if have < need {
		if have == 0 {
			return false, refuse(ErrNoKey, role+".json", fmt.Sprintf("no private key of the role %s is at hand: put it into %s, set %s, or give a --signer", role, filepath.Join(r.dir, PrivateDir), EnvKey(role)))
		}
		data, err := m.ToBytes(false)
		if err != nil {
			return false, err
		}
		return false, r.write(data, wait)
	}
	name := versioned(role, version)
	data, err := m.ToBytes(false)
	if err != nil {
		return false, err
	}
	// Nothing is signed that boxes would not read: too many releases, say.
	if _, err := parse(name, data, MaxMetadata, new(tuf.Metadata[T])); err != nil {
		return false, err
	}
	if err := verify(r.root(), role, name, m); err != nil {
		return false, err
	}
	if err := r.write(data, MetadataDir, name); err != nil {
		return false, err
	}
	r.data[name] = data
	// The pending one goes last: a crash before leaves it, and signing it
	// again makes the same file.
	return true, removeIfThere(filepath.Join(r.dir, wait))
}

// stale is true where a role has to be signed anew: the newest root does not
// vouch for it, or it names another file than the newest.
func (r *Repository) stale(role string) bool {
	switch role {
	case RoleTargets:
		return r.targets == nil || verify(r.root(), role, role, r.targets) != nil
	case RoleSnapshot:
		return r.snapshot == nil || verify(r.root(), role, role, r.snapshot) != nil || r.targets == nil ||
			!isNamed(r.snapshot.Signed.Meta["targets.json"], r.targets.Signed.Version, r.data[versioned(RoleTargets, r.targets.Signed.Version)])
	case RoleTimestamp:
		return r.timestamp == nil || verify(r.root(), role, role, r.timestamp) != nil || r.snapshot == nil ||
			!isNamed(r.timestamp.Signed.Meta["snapshot.json"], r.snapshot.Signed.Version, r.data[versioned(RoleSnapshot, r.snapshot.Signed.Version)])
	}
	return false
}

func isNamed(f *tuf.MetaFiles, version int64, data []byte) bool {
	return f != nil && f.Version == version && f.VerifyLengthHashes(data) == nil
}

func metaFile(version int64, data []byte) *tuf.MetaFiles {
	sum := sha256.Sum256(data)
	return &tuf.MetaFiles{Version: version, Length: int64(len(data)), Hashes: tuf.Hashes{"sha256": sum[:]}}
}

// expiry of what is signed now for a role.
func (r *Repository) expiry(role string) time.Time {
	return r.Now.UTC().Add(r.Lifetimes.of(role)).Truncate(time.Second)
}

// stamp notes the time of signing, and refuses one before the last: the
// clock was wrong then, or is now, and boxes would take its word.
func stamp[T tuf.Roles](r *Repository, m, before *tuf.Metadata[T]) error {
	if before != nil {
		if at, err := time.Parse(time.RFC3339, tuf.SignedAt(before)); err == nil && at.After(r.Now) {
			return fmt.Errorf("trust: the last signature was made on %s, after the time of this one, %s: set the clock, or SOURCE_DATE_EPOCH", at.Format(time.RFC3339), r.Now.UTC().Format(time.RFC3339))
		}
	}
	tuf.SetSignedAt(m, r.Now.UTC().Truncate(time.Second).Format(time.RFC3339))
	return nil
}

// newTargets signs a list of releases.
func (r *Repository) newTargets(ctx context.Context, list map[string]*tuf.TargetFiles) error {
	if waits := r.Waiting(); len(waits) > 0 {
		return refuse(ErrSignature, waits[0].File, waits[0].String())
	}
	m := tuf.Targets(r.expiry(RoleTargets))
	m.Signed.Targets = list
	if r.targets != nil {
		m.Signed.Version = r.targets.Signed.Version + 1
	}
	if err := stamp(r, m, r.targets); err != nil {
		return err
	}
	done, err := issue(ctx, r, RoleTargets, m)
	if done {
		r.targets = m
	}
	return err
}

// Settle signs what is pending as far as keys are at hand, and then every
// role that is stale, or named in renew.
func (r *Repository) Settle(ctx context.Context, renew ...string) error {
	if err := r.settlePending(ctx); err != nil {
		return err
	}
	if len(r.Waiting()) > 0 {
		return nil
	}
	if r.stale(RoleTargets) || slices.Contains(renew, RoleTargets) {
		list := map[string]*tuf.TargetFiles{}
		if r.targets != nil {
			list = r.targets.Signed.Targets
		}
		if err := r.newTargets(ctx, list); err != nil || len(r.Waiting()) > 0 {
			return err
		}
	}
	if r.stale(RoleSnapshot) || slices.Contains(renew, RoleSnapshot) {
		m := tuf.Snapshot(r.expiry(RoleSnapshot))
		name := versioned(RoleTargets, r.targets.Signed.Version)
		m.Signed.Meta = map[string]*tuf.MetaFiles{"targets.json": metaFile(r.targets.Signed.Version, r.data[name])}
		if r.snapshot != nil {
			m.Signed.Version = r.snapshot.Signed.Version + 1
		}
		if err := stamp(r, m, r.snapshot); err != nil {
			return err
		}
		if _, err := issue(ctx, r, RoleSnapshot, m); err != nil {
			return err
		}
		r.snapshot = m
	}
	if r.stale(RoleTimestamp) || slices.Contains(renew, RoleTimestamp) {
		m := tuf.Timestamp(r.expiry(RoleTimestamp))
		name := versioned(RoleSnapshot, r.snapshot.Signed.Version)
		m.Signed.Meta = map[string]*tuf.MetaFiles{"snapshot.json": metaFile(r.snapshot.Signed.Version, r.data[name])}
		if r.timestamp != nil {
			m.Signed.Version = r.timestamp.Signed.Version + 1
		}
		if err := stamp(r, m, r.timestamp); err != nil {
			return err
		}
		if _, err := issue(ctx, r, RoleTimestamp, m); err != nil {
			return err
		}
		r.timestamp = m
	}
	return nil
}

// settlePending adds signatures to what waits for them.
func (r *Repository) settlePending(ctx context.Context) error {
	root, err := pending(r, RoleRoot, tuf.Root)
	if err != nil {
		return err
	}
	if root != nil {
		if done, err := r.issueRoot(ctx, root); err != nil || !done {
			return err
		}
	}
	m, err := pending(r, RoleTargets, tuf.Targets)
	if err != nil || m == nil {
		return err
	}
	done, err := issue(ctx, r, RoleTargets, m)
	if done {
		r.targets = m
	}
	return err
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
