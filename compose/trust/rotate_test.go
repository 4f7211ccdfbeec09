// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/compose/trust/tuf"
)

// newKeys replaces all keys of roles.
func newKeys(roles ...string) Rotation {
	c := Rotation{Replace: roles, Add: map[string]RoleKeys{}}
	for _, role := range roles {
		c.Add[role] = RoleKeys{New: DefaultKeys()[role].New}
	}
	return c
}

// A box three roots behind follows, every key replaced on the way.
func TestThreeRootsBehind(t *testing.T) {
	r := vendor(t)
	s, dead := box(t, r), box(t, r)
	offer(t, r, target("1.0.0", 1))
	first := published(t, r)
	good(t, s, first, Options{}, "demo-1.0.0")
	for range 3 {
		rotate(t, r, newKeys(Roles()...))
	}
	now := published(t, r)
	if r.root().Signed.Version != 4 {
		t.Fatalf("root %d", r.root().Signed.Version)
	}
	// The chain may not skip a root, nor may one be forged.
	for _, name := range []string{"2.root.json", "3.root.json"} {
		if got, err := paths(dead, now.without(name), Options{}); !errors.Is(err, ErrUnknownKey) {
			t.Errorf("without %s: %q, %v", name, got, err)
		}
	}
	refused(t, dead, now.with("2.root.json", now["3.root.json"]), Options{}, ErrRollback)
	refused(t, dead, now.with("2.root.json", now["1.root.json"]), Options{}, ErrRollback)
	good(t, s, now, Options{}, "demo-1.0.0")
	// What the first keys signed is over.
	refused(t, s, first, Options{}, ErrUnknownKey)
	good(t, dead, bundled(t, r), Options{Offline: true}, "demo-1.0.0")
	// A new image with the newest root, beside a store that knows less.
	sealed, err := os.ReadFile(filepath.Join(r.dir, RootFile))
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(s.dir, "4.root.json"))
	later, err := Open(s.dir, sealed)
	if err != nil {
		t.Fatal(err)
	}
	good(t, later, now, Options{}, "demo-1.0.0")
}

// A stolen key, once revoked, refuses the thief; before, it does not.
func TestRevokedKey(t *testing.T) {
	r := vendor(t)
	offer(t, r, target("1.0.0", 1))
	s, fresh := box(t, r), box(t, r)
	// The thief has targets, snapshot and timestamp of now, and makes a list.
	thief := copyOf(t, r)
	offer(t, thief, target("6.6.6", 66))
	evil, evilBundle := published(t, thief), bundled(t, thief)
	rotate(t, r, newKeys(RoleTargets, RoleSnapshot, RoleTimestamp))
	now := published(t, r)
	good(t, s, now, Options{}, "demo-1.0.0")
	refused(t, s, evil, Options{}, ErrUnknownKey)
	refused(t, s, evilBundle, Options{Offline: true}, ErrUnknownKey)
	// With the new root in front, which anybody can copy, too.
	evil["2.root.json"] = now["2.root.json"]
	refused(t, fresh, evil, Options{}, ErrUnknownKey)

	// The thief's high versions do not stand in the way of a box that had
	// taken them: what the revoked key signed is forgotten.
	victim := box(t, r)
	victim.sealed = now["1.root.json"]
	delete(evil, "2.root.json")
	for range 5 {
		thief.Now = thief.Now.Add(1)
		settle(t, thief, RoleTargets, RoleSnapshot, RoleTimestamp)
	}
	good(t, victim, published(t, thief), Options{}, "demo-1.0.0 demo-6.6.6")
	good(t, victim, now, Options{}, "demo-1.0.0")
}

// copyOf is the same repository in another folder: what a thief has.
func copyOf(t *testing.T, r *Repository) *Repository {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "stolen")
	if err := os.CopyFS(dir, os.DirFS(r.dir)); err != nil {
		t.Fatal(err)
	}
	// CopyFS makes files of the umask.
	keys, err := filepath.Glob(filepath.Join(dir, PrivateDir, "*.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if err := os.Chmod(k, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := OpenRepository(dir)
	if err != nil {
		t.Fatal(err)
	}
	c.Now = r.Now
	return c
}

// One of three root keys stolen signs no root that a box takes.
func TestForgedRoot(t *testing.T) {
	r := vendor(t)
	offer(t, r, target("1.0.0", 1))
	s, now := box(t, r), published(t, r)
	thief := copyOf(t, r)
	keys, _ := filepath.Glob(filepath.Join(thief.dir, PrivateDir, "root-*.pem"))
	for _, k := range keys[1:] {
		os.Remove(k)
	}
	for name, forge := range map[string]func(m *tuf.Metadata[tuf.RootType]){
		"too few of the old": func(*tuf.Metadata[tuf.RootType]) {},
		"a lower threshold":  func(m *tuf.Metadata[tuf.RootType]) { m.Signed.Roles[RoleRoot].Threshold = 1 },
		"own keys":           func(m *tuf.Metadata[tuf.RootType]) { own(t, thief, m) },
	} {
		m, err := tuf.Root().FromBytes(now["1.root.json"])
		if err != nil {
			t.Fatal(err)
		}
		m.Signatures = nil
		m.Signed.Version = 2
		forge(m)
		thief.Keys.loaded = false
		for _, by := range []*tuf.Metadata[tuf.RootType]{thief.root(), m} {
			if err := signWith(t.Context(), thief, by, RoleRoot, m); err != nil {
				t.Fatal(err)
			}
		}
		data, err := m.ToBytes(false)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(name)
		refused(t, s, now.with("2.root.json", data), Options{}, ErrSignature)
	}
	good(t, s, now, Options{}, "demo-1.0.0")
}

// own adds keys that the thief made to the root's role.
func own(t *testing.T, r *Repository, m *tuf.Metadata[tuf.RootType]) {
	t.Helper()
	if err := r.give(m, RoleRoot, RoleKeys{New: 2}); err != nil {
		t.Fatal(err)
	}
}

// Old and new overlap: with a key added beside the old one, both sign, and
// either may go.
func TestOverlap(t *testing.T) {
	r := vendor(t)
	offer(t, r, target("1.0.0", 1))
	s := box(t, r)
	old := r.root().Signed.Roles[RoleTargets].KeyIDs[0]
	rotate(t, r, Rotation{Add: map[string]RoleKeys{RoleTargets: {New: 1}}})
	offer(t, r, target("1.1.0", 2))
	if n := len(r.targets.Signatures); n != 2 {
		t.Errorf("%d signatures", n)
	}
	good(t, s, published(t, r), Options{}, "demo-1.0.0 demo-1.1.0")
	rotate(t, r, Rotation{Revoke: []string{old[:8]}})
	good(t, s, published(t, r), Options{}, "demo-1.0.0 demo-1.1.0")
	if n := len(r.targets.Signatures); n != 1 {
		t.Errorf("%d signatures after the old key went", n)
	}
}

// Keys on two machines: what one signs waits for the other.
func TestThresholdOverMachines(t *testing.T) {
	r := &Repository{Now: start}
	keys := DefaultKeys()
	keys[RoleTargets] = RoleKeys{New: 2, Threshold: 2}
	if err := Init(t.Context(), filepath.Join(t.TempDir(), "keys"), keys, r); err != nil {
		t.Fatal(err)
	}
	s := box(t, r)
	offer(t, r, target("1.0.0", 1))
	good(t, s, published(t, r), Options{}, "demo-1.0.0")

	away := t.TempDir()
	take := func(role string, n int) (back func()) {
		t.Helper()
		files, _ := filepath.Glob(filepath.Join(r.dir, PrivateDir, role+"-*.pem"))
		for _, f := range files[:n] {
			if err := os.Rename(f, filepath.Join(away, filepath.Base(f))); err != nil {
				t.Fatal(err)
			}
		}
		r.Keys.loaded = false
		return func() {
			for _, f := range files[:n] {
				if err := os.Rename(filepath.Join(away, filepath.Base(f)), f); err != nil {
					t.Fatal(err)
				}
			}
			r.Keys.loaded = false
		}
	}
	back := take(RoleTargets, 1)
	if _, err := r.Offer(t.Context(), target("1.1.0", 2)); err != nil {
		t.Fatal(err)
	}
	if w := r.Waiting(); len(w) != 1 || w[0].Have != 1 || w[0].Need != 2 {
		t.Fatalf("waiting %v", w)
	}
	for what, err := range map[string]error{
		"publishing": func() error { _, err := r.Files(); return err }(),
		"a bundle":   func() error { _, err := r.BundleFiles(); return err }(),
		"another":    func() error { _, err := r.Offer(t.Context(), target("1.2.0", 3)); return err }(),
		"rotation":   r.Rotate(t.Context(), Rotation{}),
	} {
		if !errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), "1 of 2") {
			t.Errorf("%s while signatures are missing: %v", what, err)
		}
	}
	back()
	settle(t, r)
	good(t, s, published(t, r), Options{}, "demo-1.0.0 demo-1.1.0")

	// The same for a root, with no key of the others at hand.
	back = take(RoleRoot, 2)
	change := Rotation{Add: map[string]RoleKeys{RoleTimestamp: {New: 1}}}
	rotate(t, r, change)
	if w := r.Waiting(); len(w) != 1 || w[0].Role != RoleRoot {
		t.Fatalf("waiting %v", w)
	}
	again, err := OpenRepository(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	if w := again.Waiting(); len(w) != 1 {
		t.Errorf("after opening again %v waits", w)
	}
	back()
	settle(t, r)
	if r.root().Signed.Version != 2 || exists(filepath.Join(r.dir, PendingDir, "root.json")) {
		t.Error("the root still waits")
	}
	good(t, s, published(t, r), Options{}, "demo-1.0.0 demo-1.1.0")

	take(RoleTimestamp, 2)
	err = r.Settle(t.Context(), RoleTimestamp)
	if !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), "HOLDFAST_KEY_TIMESTAMP") {
		t.Errorf("without the timestamp's keys: %v", err)
	}
}
