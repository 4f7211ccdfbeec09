// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/holdfast/holdfast/compose/trust/tuf"
)

// Offer signs a release into the list, or changes what the list says of it.
// changed is false where it says so already. A version has one content for
// ever: the same version with another digest is refused.
func (r *Repository) Offer(ctx context.Context, t Target) (changed bool, err error) {
	slices.Sort(t.Channels)
	f, err := t.encode()
	if err != nil {
		return false, fmt.Errorf("trust: this release cannot be offered: %w", err)
	}
	list := map[string]*tuf.TargetFiles{}
	if r.targets != nil {
		list = maps.Clone(r.targets.Signed.Targets)
	}
	if old := list[t.Path()]; old != nil {
		if !bytes.Equal(old.Hashes["sha256"], f.Hashes["sha256"]) {
			return false, fmt.Errorf("trust: %s is signed already, with the content sha256:%x: give the new content a new version", t.Path(), []byte(old.Hashes["sha256"]))
		}
		if bytes.Equal(*old.Custom, *f.Custom) && !r.stale(RoleTargets) {
			return false, nil
		}
	}
	list[t.Path()] = f
	return true, r.newTargets(ctx, list)
}

// Withdraw takes a release, by its path, from the list: no box takes it from
// then on, and one that runs it goes on.
func (r *Repository) Withdraw(ctx context.Context, path string) error {
	if r.targets == nil || r.targets.Signed.Targets[path] == nil {
		return fmt.Errorf("trust: %s is not among the signed releases: see keys show", path)
	}
	list := maps.Clone(r.targets.Signed.Targets)
	delete(list, path)
	return r.newTargets(ctx, list)
}

// Fits checks that a place to publish to holds nothing, or an earlier state of
// this repository: never one that is ahead of it, nor another vendor's.
func (r *Repository) Fits(ctx context.Context, to Source) error {
	data, err := to.Metadata(ctx, "timestamp.json", MaxTimestamp)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	m, err := parse("timestamp.json", data, MaxTimestamp, tuf.Timestamp())
	if err != nil {
		return err
	}
	if err := anyRoot(r.roots, RoleTimestamp, "timestamp.json", m); err != nil {
		return fmt.Errorf("what is published there is not of these keys, or of a later root: publish to another place, or take over its tuf/ first: %w", err)
	}
	if r.timestamp == nil || m.Signed.Version > r.timestamp.Signed.Version || m.Signed.Version == r.timestamp.Signed.Version && !bytes.Equal(data, r.data["timestamp.json"]) {
		return refuse(ErrRollback, "timestamp.json", fmt.Sprintf("timestamp %d is published there, and this folder of keys did not sign it: somebody published from another copy; take over its tuf/ and publish again", m.Signed.Version))
	}
	return nil
}

// Role is one role as keys show prints it.
type Role struct {
	Name      string    `json:"name"`
	Version   int64     `json:"version"`
	Expires   time.Time `json:"expires,omitzero"`
	Threshold int       `json:"threshold"`
	Keys      []KeyInfo `json:"keys"`
}

// KeyInfo is one key of a role.
type KeyInfo struct {
	ID string `json:"id"`
	// Here is true where the private key is in a file or the environment.
	Here bool `json:"here"`
}

// Show describes the roles.
func (r *Repository) Show() ([]Role, error) {
	root := r.root()
	all := []Role{{Name: RoleRoot, Version: root.Signed.Version, Expires: root.Signed.Expires}}
	add := func(name string, there bool, head func() (int64, time.Time)) {
		role := Role{Name: name}
		if there {
			role.Version, role.Expires = head()
		}
		all = append(all, role)
	}
	add(RoleTargets, r.targets != nil, func() (int64, time.Time) { return head(r.targets) })
	add(RoleSnapshot, r.snapshot != nil, func() (int64, time.Time) { return head(r.snapshot) })
	add(RoleTimestamp, r.timestamp != nil, func() (int64, time.Time) { return head(r.timestamp) })
	for i := range all {
		of := root.Signed.Roles[all[i].Name]
		all[i].Threshold = of.Threshold
		for _, id := range of.KeyIDs {
			key, err := r.Keys.find(all[i].Name, id)
			if err != nil {
				return nil, err
			}
			all[i].Keys = append(all[i].Keys, KeyInfo{id, key != nil})
		}
	}
	return all, nil
}
