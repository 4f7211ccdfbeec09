// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"encoding/json"
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

// FuzzTarget: what is read of a target is what would be written of it.
func FuzzTarget(f *testing.F) {
	for _, t := range []Target{target("1.0.0", 1), {Name: "demo", Version: "2.0.0", Digest: digest(2), Size: 1, Channels: []string{"a", "b"}, MinFrom: "1.0.0", Epoch: 7, Requirements: []byte(`{"memory":1}`)}} {
		m, err := t.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(t.Path(), t.Size, []byte(m.Hashes["sha256"]), []byte(*m.Custom))
	}
	f.Fuzz(func(t *testing.T, path string, size int64, hash, text []byte) {
		raw := json.RawMessage(text)
		got, known, err := decode(path, &tuf.TargetFiles{Length: size, Hashes: tuf.Hashes{"sha256": hash}, Custom: &raw})
		if err != nil || !known {
			return
		}
		m, err := got.encode()
		if err != nil {
			t.Fatalf("%+v is read and cannot be written: %v", got, err)
		}
		again, _, err := decode(path, m)
		if err != nil || again.Path() != path || again.Digest != got.Digest || again.Rollout != got.Rollout {
			t.Fatalf("%+v became %+v, %v", got, again, err)
		}
	})
}
