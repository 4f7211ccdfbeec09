// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/ed25519"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast/holdfast/compose/trust/tuf"
)

func TestRefreshOnline(t *testing.T) {
	r := vendor(t)
	s := box(t, r)
	good(t, s, published(t, r), Options{}, "")
	offer(t, r, target("1.0.0", 1))
	good(t, s, published(t, r), Options{}, "demo-1.0.0")
	good(t, s, published(t, r), Options{}, "demo-1.0.0")
	r.Now = start.Add(time.Minute)
	offer(t, r, target("1.1.0", 2))
	if err := r.Withdraw(t.Context(), "demo-1.0.0"); err != nil {
		t.Fatal(err)
	}
	settle(t, r)
	good(t, s, published(t, r), Options{}, "demo-1.1.0")

	// The folder says the same to who reads it again.
	again, err := OpenRepository(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	good(t, box(t, again), published(t, again), Options{}, "demo-1.1.0")
}

func TestRefreshOffline(t *testing.T) {
	r := vendor(t)
	s := box(t, r)
	offer(t, r, target("1.0.0", 1))
	old := bundled(t, r)
	offer(t, r, target("1.1.0", 2))
	good(t, s, bundled(t, r), Options{Offline: true}, "demo-1.0.0 demo-1.1.0")
	good(t, s, bundled(t, r), Options{Offline: true}, "demo-1.0.0 demo-1.1.0")
	refused(t, s, old, Options{Offline: true}, ErrRollback)
	good(t, s, published(t, r), Options{}, "demo-1.0.0 demo-1.1.0")
	// A bundle is no online source.
	refused(t, s, bundled(t, r), Options{}, ErrMissing)
}

func TestTargetSaysAll(t *testing.T) {
	r := vendor(t)
	want := target("1.0.0", 7)
	want.Channels, want.MinFrom, want.Rollout, want.Requirements = []string{"beta", "stable"}, "0.9.0", 0, []byte(`{"memory":5,"images":7}`)
	offer(t, r, want)
	got, err := box(t, r).Refresh(t.Context(), published(t, r), Options{Now: start})
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	g := got[0]
	if g.Digest != want.Digest || g.Size != 1000 || g.Epoch != 1 || len(g.Channels) != 2 || g.MinFrom != "0.9.0" || g.Rollout != 0 || string(g.Requirements) != string(want.Requirements) {
		t.Errorf("%+v, want %+v", g, want)
	}
}

func TestInstalled(t *testing.T) {
	r := vendor(t)
	s := box(t, r)
	offer(t, r, target("1.0.0", 1))
	good(t, s, published(t, r), Options{}, "demo-1.0.0")
	dir := filepath.Join(t.TempDir(), "tuf")
	if err := s.Export(dir, digest(1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Installed(os.DirFS(dir), digest(1)); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"another release":  s.Installed(os.DirFS(dir), digest(2)),
		"export of none":   s.Export(dir, digest(2)),
		"without metadata": s.Installed(os.DirFS(t.TempDir()), digest(1)),
		"a stranger's":     box(t, vendor(t)).Installed(os.DirFS(dir), digest(1)),
	} {
		if err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	// Years later, its key replaced, the store lost: it still runs.
	r.Now = start.AddDate(9, 0, 0)
	rotate(t, r, Rotation{Replace: []string{RoleTargets}, Add: map[string]RoleKeys{RoleTargets: {New: 1}}})
	good(t, s, published(t, r), Options{Now: r.Now}, "demo-1.0.0")
	if err := s.Installed(os.DirFS(dir), digest(1)); err != nil {
		t.Error(err)
	}
	os.RemoveAll(s.dir)
	if err := s.Installed(os.DirFS(dir), digest(1)); err != nil {
		t.Error(err)
	}
}

// A system baked with a later root still opens the release that was kept, and
// not one that a thief with one key of that time vouches for.
func TestInstalledBeforeSealedRoot(t *testing.T) {
	r := vendor(t)
	s := box(t, r)
	offer(t, r, target("1.0.0", 1))
	good(t, s, published(t, r), Options{}, "demo-1.0.0")
	kept := filepath.Join(t.TempDir(), "tuf")
	if err := s.Export(kept, digest(1)); err != nil {
		t.Fatal(err)
	}
	first := r.data["1.root.json"]
	thief := copyOf(t, r)
	for range 3 {
		rotate(t, r, newKeys(Roles()...))
	}
	// The box was online in between, then its system came with root 4.
	good(t, s, published(t, r), Options{}, "demo-1.0.0")
	later, err := Open(s.dir, r.data["4.root.json"])
	if err != nil {
		t.Fatal(err)
	}
	if err := later.Installed(os.DirFS(kept), digest(1)); err != nil {
		t.Error(err)
	}

	// Forged first roots: the true one's keys, and one of the thief's.
	key := strangersKey(t)
	for name, with := range map[string]int{"of one stolen key": 1, "of no stolen key": 0} {
		m, err := tuf.Root().FromBytes(first)
		if err != nil {
			t.Fatal(err)
		}
		m.Signatures, m.Signed.Roles[RoleRoot].Threshold = nil, 1
		for _, role := range []string{RoleRoot, RoleTargets} {
			if err := m.Signed.AddKey(key, role); err != nil {
				t.Fatal(err)
			}
		}
		files, _ := filepath.Glob(filepath.Join(thief.dir, PrivateDir, "root-*.pem"))
		ring := &Keyring{Dir: t.TempDir()}
		for _, f := range files[:with] {
			if err := os.Rename(f, filepath.Join(ring.Dir, filepath.Base(f))); err != nil {
				t.Fatal(err)
			}
		}
		ring.load()
		ring.files[strangersID] = strangers
		if err := signWith(t.Context(), &Repository{Keys: ring}, m, RoleRoot, m); err != nil {
			t.Fatal(err)
		}
		bad := tuf.Targets(start)
		f, err := target("6.6.6", 66).encode()
		if err != nil {
			t.Fatal(err)
		}
		bad.Signed.Targets["demo-6.6.6"] = f
		if err := signWith(t.Context(), &Repository{Keys: ring}, m, RoleTargets, bad); err != nil {
			t.Fatal(err)
		}
		for file, data := range map[string]func(bool) ([]byte, error){"1.root.json": m.ToBytes, BundleTargets: bad.ToBytes} {
			text, err := data(false)
			if err != nil {
				t.Fatal(err)
			}
			for _, dir := range []string{kept, s.dir} {
				if file == BundleTargets && dir == s.dir {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, file), text, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := later.Installed(os.DirFS(kept), digest(66)); err == nil {
			t.Errorf("a release is taken by a forged root %s", name)
		}
	}
}

var (
	strangers   ed25519.PrivateKey
	strangersID string
)

func strangersKey(t *testing.T) *tuf.Key {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	strangers, strangersID = private, KeyID(public)
	return tuf.Ed25519Key(hex.EncodeToString(public))
}
