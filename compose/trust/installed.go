// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"fmt"
	"io/fs"
	"os"

	"github.com/holdfast/holdfast/compose/trust/tuf"
)

// Installed checks that the metadata in a folder vouches for a release, by its
// digest, whatever the metadata's age. It is what Export wrote when the
// release was installed. Any root from the sealed one on may be what it was
// signed under: a key that was revoked since takes no box its running release.
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
		for _, root := range st.roots {
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
