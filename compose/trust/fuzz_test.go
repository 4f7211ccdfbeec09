// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast/holdfast/compose/trust/tuf"
)

// FuzzMetadata: whatever a source gives, a box refuses it or takes what the
// vendor signed, and never breaks.
func FuzzMetadata(f *testing.F) {
	r := &Repository{Now: start}
	if err := Init(f.Context(), filepath.Join(f.TempDir(), "keys"), DefaultKeys(), r); err != nil {
		f.Fatal(err)
	}
	if _, err := r.Offer(f.Context(), target("1.0.0", 1)); err != nil {
		f.Fatal(err)
	}
	if err := r.Rotate(f.Context(), Rotation{}); err != nil {
		f.Fatal(err)
	}
	files, err := r.Files()
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		f.Add(file.Data)
	}
	for _, seed := range []string{`{"signed":{"_type":"root","keys":{"a":null}}}`, `{"signed":{"_type":"targets","targets":{"a":null}}}`, `[]`, `{"signed":1}`} {
		f.Add([]byte(seed))
	}
	good := placeOf(files)
	signed := map[string]bool{}
	for _, file := range files {
		signed[string(file.Data)] = true
	}
	root, err := os.ReadFile(filepath.Join(r.dir, MetadataDir, "1.root.json"))
	if err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Open(filepath.Join(dir, "none"), root)
		if err != nil {
			t.Fatal(err)
		}
		s.Write = func(string, []byte) error { return nil }
		for _, name := range []string{"2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"} {
			if _, err := paths(s, good.with(name, data), Options{}); err == nil && !signed[string(data)] {
				t.Fatalf("%s is taken", name)
			}
		}
		if _, err := paths(s, placeOf([]File{{BundleTargets, data}}), Options{Offline: true}); err == nil && !signed[string(data)] {
			t.Fatal("taken as a bundle")
		}
		if _, err := Open(dir, data); err == nil && !signed[string(data)] {
			m, err := tuf.Root().FromBytes(data)
			if err != nil || m.VerifyDelegate(RoleRoot, m) != nil {
				t.Fatal("a root that did not sign itself is taken")
			}
		}
	})
}
