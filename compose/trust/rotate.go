// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast/holdfast/compose/trust/tuf"
)

// RoleKeys says who signs for a role.
type RoleKeys struct {
	// New is how many keys are made, in files; Public are keys kept elsewhere.
	New    int
	Public []ed25519.PublicKey
	// Threshold is how many must sign.
	Threshold int
}

// DefaultKeys: of three root keys one may be lost and one may be stolen, and
// boxes still follow; the other roles can be replaced by the root's.
func DefaultKeys() map[string]RoleKeys {
	return map[string]RoleKeys{
		RoleRoot:    {New: 3, Threshold: 2},
		RoleTargets: {New: 1, Threshold: 1}, RoleSnapshot: {New: 1, Threshold: 1}, RoleTimestamp: {New: 1, Threshold: 1},
	}
}

// Init makes a vendor's folder with keys, the first root and an empty list of
// releases. It appears whole or not at all; a folder that is there is refused.
func Init(ctx context.Context, dir string, keys map[string]RoleKeys, r *Repository) (err error) {
	if exists(dir) {
		if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
			return fmt.Errorf("trust: %s is there already, and its keys are needed for as long as a box trusts them: name another folder, or see keys rotate", dir)
		}
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(dir)), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(filepath.Clean(dir)), ".keys-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	r.dir, r.data = tmp, map[string][]byte{}
	if r.Keys == nil {
		r.Keys = &Keyring{}
	}
	r.Keys.Dir, r.Keys.loaded = filepath.Join(tmp, PrivateDir), false
	m := tuf.Root(r.expiry(RoleRoot))
	for _, role := range Roles() {
		if err := r.give(m, role, keys[role]); err != nil {
			return err
		}
	}
	if err := completeRoot(&m.Signed); err != nil {
		return fmt.Errorf("trust: these keys make no root (%w): give each role at least as many keys as must sign", err)
	}
	if err := stamp(r, m, nil); err != nil {
		return err
	}
	// The first root vouches for itself.
	r.roots = []*tuf.Metadata[tuf.RootType]{m}
	if _, err := issue(ctx, r, RoleRoot, m); err != nil {
		return err
	}
	if err := r.write(r.data[rootName(1)], RootFile); err != nil {
		return err
	}
	// Keys that are kept elsewhere sign later.
	if err := r.Settle(ctx); err != nil && !errors.Is(err, ErrNoKey) {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	r.dir, r.Keys.Dir = dir, filepath.Join(dir, PrivateDir)
	return syncDir(filepath.Dir(filepath.Clean(dir)))
}

// give adds keys to a role of a root.
func (r *Repository) give(m *tuf.Metadata[tuf.RootType], role string, k RoleKeys) error {
	if m.Signed.Roles[role] == nil {
		return fmt.Errorf("trust: there is no role %q: the roles are %s", role, strings.Join(Roles(), ", "))
	}
	add := slices.Clone(k.Public)
	for range k.New {
		public, text, err := NewKey()
		if err != nil {
			return err
		}
		if err := r.writePrivate(role, public, text); err != nil {
			return err
		}
		add = append(add, public)
	}
	for _, public := range add {
		if err := m.Signed.AddKey(tuf.Ed25519Key(hex.EncodeToString(public)), role); err != nil {
			return err
		}
	}
	// Sorted, so that a root is the same however its keys were named.
	slices.Sort(m.Signed.Roles[role].KeyIDs)
	if k.Threshold > 0 {
		m.Signed.Roles[role].Threshold = k.Threshold
	}
	return nil
}

// writePrivate puts a new private key where the ring finds it. It is on disk
// before any metadata names it.
func (r *Repository) writePrivate(role string, public ed25519.PublicKey, text []byte) error {
	dir := filepath.Join(r.dir, PrivateDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// Not through Write, which makes files that anybody may read.
	f, err := os.OpenFile(filepath.Join(dir, role+"-"+short(KeyID(public))+".pem"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		return err
	}
	r.Keys.loaded = false
	return errors.Join(f.Sync(), syncDir(dir), syncDir(r.dir))
}

// Rotation is one change of who signs.
type Rotation struct {
	// Keys to add, by role.
	Add map[string]RoleKeys
	// Revoke are keys to take away: ids, or their beginnings of eight digits
	// or more, of the roles named with them or, for "", of all.
	Revoke []string
	// Replace are roles whose keys are all taken away.
	Replace []string
}

// Rotate makes the next root. Boxes that know only the one before follow,
// since the keys of both sign it; then every role that the new root no longer
// vouches for is signed anew. Without a change it renews the root's expiry.
//
// Where keys are on other machines the new root waits among the pending:
// Settle goes on from there.
func (r *Repository) Rotate(ctx context.Context, change Rotation) error {
	if waits := r.Waiting(); len(waits) > 0 {
		return refuse(ErrSignature, waits[0].File, waits[0].String())
	}
	data := r.data[rootName(r.root().Signed.Version)]
	m, err := tuf.Root().FromBytes(data) // a copy
	if err != nil {
		return err
	}
	m.Signatures = []tuf.Signature{}
	m.Signed.Version++
	m.Signed.Expires = r.expiry(RoleRoot)
	if err := stamp(r, m, r.root()); err != nil {
		return err
	}
	for _, role := range change.Replace {
		if m.Signed.Roles[role] == nil {
			return fmt.Errorf("trust: there is no role %q: the roles are %s", role, strings.Join(Roles(), ", "))
		}
		for _, id := range slices.Clone(m.Signed.Roles[role].KeyIDs) {
			if err := m.Signed.RevokeKey(id, role); err != nil {
				return err
			}
		}
	}
	for _, prefix := range change.Revoke {
		if err := revoke(m, prefix); err != nil {
			return err
		}
	}
	for _, role := range Roles() {
		if k, ok := change.Add[role]; ok {
			if err := r.give(m, role, k); err != nil {
				return err
			}
		}
	}
	if err := completeRoot(&m.Signed); err != nil {
		return fmt.Errorf("trust: this change leaves no usable root (%w): add a key for each that is taken away", err)
	}
	if done, err := r.issueRoot(ctx, m); err != nil || !done {
		return err
	}
	return r.Settle(ctx)
}

// revoke takes a key from all roles it has.
func revoke(m *tuf.Metadata[tuf.RootType], prefix string) error {
	var found []string
	for id := range m.Signed.Keys {
		if len(prefix) >= 8 && strings.HasPrefix(id, prefix) {
			found = append(found, id)
		}
	}
	if len(found) != 1 {
		return fmt.Errorf("trust: %d keys of the root begin with %q: name one by at least eight digits of its id, as keys show prints it", len(found), prefix)
	}
	for _, role := range Roles() {
		if slices.Contains(m.Signed.Roles[role].KeyIDs, found[0]) {
			if err := m.Signed.RevokeKey(found[0], role); err != nil {
				return err
			}
		}
	}
	return nil
}

// issueRoot signs a root by its own keys and by those of the one before.
func (r *Repository) issueRoot(ctx context.Context, m *tuf.Metadata[tuf.RootType]) (done bool, err error) {
	now := r.root()
	for _, by := range []*tuf.Metadata[tuf.RootType]{now, m} {
		if err := signWith(ctx, r, by, RoleRoot, m); err != nil {
			return false, err
		}
	}
	data, err := m.ToBytes(false)
	if err != nil {
		return false, err
	}
	wait := filepath.Join(PendingDir, RootFile)
	if count(now, RoleRoot, m) < now.Signed.Roles[RoleRoot].Threshold || count(m, RoleRoot, m) < m.Signed.Roles[RoleRoot].Threshold {
		if len(m.Signatures) == 0 {
			return false, refuse(ErrNoKey, RootFile, fmt.Sprintf("no private key of the role root is at hand: put it into %s, set %s, or give a --signer", filepath.Join(r.dir, PrivateDir), EnvKey(RoleRoot)))
		}
		return false, r.write(data, wait)
	}
	name := rootName(m.Signed.Version)
	st := &state{roots: []*tuf.Metadata[tuf.RootType]{now}, bytes: [][]byte{r.data[rootName(now.Signed.Version)]}}
	if st.trusted, err = tuf.NewTrusted(st.bytes[0]); err != nil {
		return false, translate(name, err)
	}
	st.trusted.RefTime = time.Time{}
	if err := st.addRoot(name, data); err != nil {
		return false, err
	}
	if err := r.write(data, MetadataDir, name); err != nil {
		return false, err
	}
	r.roots, r.data[name] = append(r.roots, m), data
	if err := r.write(data, RootFile); err != nil {
		return true, err
	}
	return true, removeIfThere(filepath.Join(r.dir, wait))
}
