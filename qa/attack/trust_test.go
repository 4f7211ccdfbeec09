// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/compose/trust"
)

// published is a copy of a vendor's depot as it is now.
func (v *vendor) published(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	copyInto(t, v.depot, dir)
	return dir
}

func (v *vendor) rotate(t *testing.T, change trust.Rotation) {
	t.Helper()
	if err := v.repo.Rotate(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	v.settle(t)
}

// Another vendor's release, well made and signed by keys the box does not know.
func TestWrongKey(t *testing.T) {
	t.Parallel()
	v, other := newVendor(t), newVendor(t)
	v.publish(t, "1.1.0", 1)
	other.publish(t, "1.1.0", 1)
	b := newBox(t, v)
	b.refused(t, "another vendor's depot", other.depot, "1.1.0", true, "key", "sign")
	pack := filepath.Join(t.TempDir(), "other.bundle")
	write(t, pack, other.bundle(t))
	b.refused(t, "another vendor's bundle", pack, "1.1.0", true, "key", "sign")
}

func TestExpired(t *testing.T) {
	t.Parallel()
	v := newVendor(t)
	v.publish(t, "1.1.0", 1)
	pack := filepath.Join(t.TempDir(), "old.bundle")
	write(t, pack, v.bundle(t))
	b := newBox(t, v)
	b.now = start.Add(50 * 365 * 24 * time.Hour)
	b.refused(t, "metadata of long ago", v.depot, "1.1.0", true, "expired")
	b.refused(t, "a bundle of long ago", pack, "1.1.0", true, "expired")
}

// What a box has seen is not undone: neither by the vendor's own older
// metadata nor by a part of it.
func TestReplay(t *testing.T) {
	t.Parallel()
	v := newVendor(t)
	v.publish(t, "1.1.0", 1)
	old := v.published(t)
	v.repo.Now = start.Add(time.Minute)
	v.publish(t, "1.2.0", 2)
	b := newBox(t, v)
	if err := b.take(t.Context(), v.depot, "1.2.0"); err != nil {
		t.Fatal(err)
	}
	before := files(t, b.dir)
	err := b.take(t.Context(), old, "1.1.0")
	if err == nil || !strings.Contains(err.Error(), "older") {
		t.Errorf("the older depot: %v", err)
	}
	for name, data := range before {
		if string(files(t, b.dir)[name]) != string(data) {
			t.Errorf("the replay changed %s", name)
		}
	}
	for _, name := range []string{"timestamp.json"} {
		mixed := v.published(t)
		data, err := os.ReadFile(filepath.Join(old, "tuf", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(mixed, "tuf", name), data)
		if err := b.take(t.Context(), mixed, "1.2.0"); err == nil {
			t.Errorf("an older %s in the newer depot was taken", name)
		}
	}
}

// Parts of two releases do not make one, whichever part is taken from the
// other; nor does other content under the same version.
func TestMixed(t *testing.T) {
	t.Parallel()
	v := newVendor(t)
	one := v.publish(t, "1.1.0", 1)
	v.repo.Now = start.Add(time.Minute)
	two := v.publish(t, "1.2.0", 2)
	a, b := needed(t, v.depot, one), needed(t, v.depot, two)
	all := files(t, v.depot)
	var donor []byte
	for name := range a {
		if !b[name] {
			donor = all["blobs/sha256/"+name]
		}
	}
	for name := range b {
		if a[name] {
			continue
		}
		dir := v.published(t)
		write(t, filepath.Join(dir, "blobs/sha256", name), donor)
		newBox(t, v).refused(t, "blob "+name[:12]+" of the other release", dir, "1.2.0", false)
	}
	// The whole of the other under this one's manifest.
	dir := v.published(t)
	write(t, filepath.Join(dir, "blobs/sha256", strings.TrimPrefix(two, "sha256:")), all["blobs/sha256/"+strings.TrimPrefix(one, "sha256:")])
	newBox(t, v).refused(t, "the other's manifest", dir, "1.2.0", false, "manifest")

	other := t.TempDir()
	digest := v.put(t, other, "1.2.0", 99)
	_, err := v.repo.Offer(t.Context(), trust.Target{Name: "demo", Version: "1.2.0", Digest: digest, Size: 1000, Epoch: 1, Channels: []string{"stable"}, Rollout: 100})
	if err == nil || !strings.Contains(err.Error(), "new version") {
		t.Errorf("the vendor signed other content for the same version: %v", err)
	}
	for _, file := range []string{"timestamp.json", "2.targets.json", "2.snapshot.json", "3.targets.json", "3.snapshot.json"} {
		dir := v.published(t)
		path := filepath.Join(dir, "tuf", file)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		for name, data := range files(t, filepath.Join(dir, "tuf")) {
			if name != file && strings.HasSuffix(name, strings.TrimLeft(file, "0123456789.")) {
				write(t, path, data)
			}
		}
		if file != "timestamp.json" && !strings.HasPrefix(file, "2.") {
			newBox(t, v).refused(t, "another "+file, dir, "1.2.0", true)
		}
	}
}

// The chain of roots is followed without a gap and only with the keys of both
// sides: a box three roots behind gets there, one that is kept from a root or
// given a forged one does not.
func TestRoots(t *testing.T) {
	t.Parallel()
	v := newVendor(t)
	v.publish(t, "1.1.0", 1)
	for i := range 3 {
		v.repo.Now = start.Add(time.Duration(i+1) * time.Minute)
		v.rotate(t, trust.Rotation{Replace: []string{trust.RoleTargets, trust.RoleSnapshot, trust.RoleTimestamp},
			Add: map[string]trust.RoleKeys{trust.RoleTargets: {New: 1, Threshold: 1}, trust.RoleSnapshot: {New: 1, Threshold: 1}, trust.RoleTimestamp: {New: 1, Threshold: 1}}})
	}
	b := newBox(t, v)
	if err := b.take(t.Context(), v.depot, "1.1.0"); err != nil {
		t.Fatalf("a box three roots behind: %v", err)
	}
	for _, name := range []string{"2.root.json", "3.root.json", "4.root.json"} {
		dir := v.published(t)
		if err := os.Remove(filepath.Join(dir, "tuf", name)); err != nil {
			t.Fatal(err)
		}
		newBox(t, v).refused(t, "without "+name, dir, "1.1.0", true)
	}
	// A root that another vendor made, and one of a later number.
	other := newVendor(t)
	other.rotate(t, trust.Rotation{})
	dir := v.published(t)
	copyInto(t, filepath.Join(other.depot, "tuf"), filepath.Join(dir, "tuf"))
	newBox(t, v).refused(t, "a forged second root", dir, "1.1.0", true)
	dir = v.published(t)
	data, err := os.ReadFile(filepath.Join(dir, "tuf/4.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "tuf/2.root.json"), data)
	newBox(t, v).refused(t, "the fourth root as the second", dir, "1.1.0", true)
}

// A key that was taken away signs nothing any more, for a box that knows.
func TestRevokedKey(t *testing.T) {
	t.Parallel()
	v := newVendor(t)
	v.publish(t, "1.1.0", 1)
	stolen := v.published(t)
	v.repo.Now = start.Add(time.Minute)
	v.rotate(t, trust.Rotation{Replace: []string{trust.RoleTargets, trust.RoleSnapshot, trust.RoleTimestamp},
		Add: map[string]trust.RoleKeys{trust.RoleTargets: {New: 1, Threshold: 1}, trust.RoleSnapshot: {New: 1, Threshold: 1}, trust.RoleTimestamp: {New: 1, Threshold: 1}}})
	b := newBox(t, v)
	if err := b.take(t.Context(), v.depot, "1.1.0"); err != nil {
		t.Fatal(err)
	}
	before := files(t, b.dir)
	err := b.take(t.Context(), stolen, "1.1.0")
	if err == nil {
		t.Fatal("what the revoked key signed was taken")
	}
	sentence(t, "revoked key", err)
	for name, data := range files(t, b.dir) {
		if string(before[name]) != string(data) {
			t.Errorf("the attacker changed %s", name)
		}
	}
}
