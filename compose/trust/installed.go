// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/holdfast/holdfast/compose/trust/tuf"
)

// Installed checks that the metadata in a folder vouches for a release, by its
// digest, whatever the metadata's age. It is what Export wrote when the
// release was installed. Any root of the chain may be what it was signed under,
// those before the sealed one too: a key that was revoked since takes no box
// the release that it runs, or the one that it keeps.
func (s *Store) Installed(metadata fs.FS, digest string) error {
	data, err := readBounded(metadata, BundleTargets, MaxMetadata)
	if err != nil {
		return refuse(ErrMissing, BundleTargets, fmt.Sprintf("the release's %s cannot be read (%v): fetch the release again", BundleTargets, err))
	}
	m, err := parse(BundleTargets, data, MaxMetadata, tuf.Targets())
	if err != nil {
		return err
	}
	if err := s.vouched(metadata, m); err != nil {
		return err
	}
	return lists(m, digest)
}

// vouched looks for a root that signed targets: in the release's own chain
// and in the store's, either of which may be longer.
func (s *Store) vouched(metadata fs.FS, m *tuf.Metadata[tuf.TargetsType]) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var last error
	for _, dir := range []fs.FS{metadata, os.DirFS(s.dir)} {
		st, err := s.load(dir)
		if err != nil {
			return err
		}
		for _, root := range append(st.roots, older(dir, st.roots[0])...) {
			err := verify(root, RoleTargets, BundleTargets, m)
			if err == nil {
				err = root.VerifyDelegate(RoleTargets, m)
			}
			if err == nil {
				return nil
			}
			last = err
		}
	}
	return last
}

// older follows the chain backwards from the sealed root: a system with a newer
// root opens the release that was kept, which an older root vouches for. That
// the sealed root follows from an older one proves nothing, since anybody can
// make a root that names the same keys. But whoever signed the sealed root
// signed the true one before it too: as many of those keys as the sealed root
// needs must have.
func older(dir fs.FS, root *tuf.Metadata[tuf.RootType]) []*tuf.Metadata[tuf.RootType] {
	var all []*tuf.Metadata[tuf.RootType]
	for range MaxRoots {
		name := rootName(root.Signed.Version - 1)
		data, err := readBounded(dir, name, MaxRoot)
		if err != nil {
			break
		}
		m, err := parse(name, data, MaxRoot, tuf.Root())
		if err != nil || m.Signed.Version != root.Signed.Version-1 || m.VerifyDelegate(RoleRoot, m) != nil ||
			verify(m, RoleRoot, name, root, root) != nil || signedBoth(m, root) < root.Signed.Roles[RoleRoot].Threshold {
			break
		}
		all, root = append(all, m), m
	}
	return all
}

// signedBoth counts the keys of a root that signed it and the next one. An id
// is the hash of its key, so the key is the same.
func signedBoth(m, next *tuf.Metadata[tuf.RootType]) int {
	n := 0
	for _, id := range m.Signed.Roles[RoleRoot].KeyIDs {
		if signedBy(m, id, m.Signed.Keys[id]) && signedBy(next, id, m.Signed.Keys[id]) {
			n++
		}
	}
	return n
}

func signedBy(m *tuf.Metadata[tuf.RootType], id string, key *tuf.Key) bool {
	payload, err := tuf.Payload(m.Signed)
	return err == nil && slices.ContainsFunc(m.Signatures, func(s tuf.Signature) bool {
		return s.KeyID == id && validSignature(key, payload, s.Signature)
	})
}

func lists(m *tuf.Metadata[tuf.TargetsType], digest string) error {
	all, err := targetsOf(BundleTargets, m)
	if err != nil {
		return err
	}
	for _, t := range all {
		if t.Digest == digest {
			return nil
		}
	}
	return refuse(ErrUnknownRelease, BundleTargets, fmt.Sprintf("the release %s is none of the %d that the vendor has signed here: fetch it again", digest, len(all)))
}

// Export writes to a folder, made if it is missing, the metadata that
// Installed needs for a release which the last refresh offered.
func (s *Store) Export(folder, digest string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.load(os.DirFS(s.dir))
	if err != nil {
		return err
	}
	st.remember(os.DirFS(s.dir))
	if st.targets == nil {
		return refuse(ErrMissing, BundleTargets, "no release was ever checked for on this box: run the upgrade check first")
	}
	m, err := parse(BundleTargets, st.targets, MaxMetadata, tuf.Targets())
	if err != nil {
		return err
	}
	if err := lists(m, digest); err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for i, r := range st.roots {
		if err := s.write(folder, rootName(r.Signed.Version), st.bytes[i]); err != nil {
			return err
		}
	}
	return s.write(folder, BundleTargets, st.targets)
}
