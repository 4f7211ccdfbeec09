// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/compose/trust/tuf"
)

func TestVersionHasOneContent(t *testing.T) {
	r := vendor(t)
	offer(t, r, target("1.0.0", 1))
	if _, err := r.Offer(t.Context(), target("1.0.0", 2)); err == nil || !strings.Contains(err.Error(), "give the new content a new version") {
		t.Error(err)
	}
	version := r.targets.Signed.Version
	if changed, err := r.Offer(t.Context(), target("1.0.0", 1)); changed || err != nil || r.targets.Signed.Version != version {
		t.Error("the same offer signs again", changed, err)
	}
	more := target("1.0.0", 1)
	more.Rollout = 10
	if changed, err := r.Offer(t.Context(), more); !changed || err != nil {
		t.Error("another rollout", changed, err)
	}
	if err := r.Withdraw(t.Context(), "demo-9.9.9"); err == nil {
		t.Error("withdrawn what is not there")
	}
	bad := target("1.2.0", 5)
	bad.Rollout = 101
	if _, err := r.Offer(t.Context(), bad); err == nil {
		t.Error("a rollout of 101%")
	}
}

// Equal keys and times make equal bytes.
func TestSigningIsDeterministic(t *testing.T) {
	r := vendor(t)
	other := copyOf(t, r)
	for _, x := range []*Repository{r, other} {
		offer(t, x, target("1.0.0", 1))
		rotate(t, x, Rotation{})
	}
	if !maps.EqualFunc(published(t, r), published(t, other), bytes.Equal) {
		t.Error("two signings differ")
	}
}

// A clock that runs backwards signs nothing.
func TestSigningTime(t *testing.T) {
	r := vendor(t)
	r.Now = start.AddDate(-1, 0, 0)
	if _, err := r.Offer(t.Context(), target("1.0.0", 1)); err == nil || !strings.Contains(err.Error(), "set the clock") {
		t.Error(err)
	}
}

// A place that is ahead, or another vendor's, is not written over.
func TestFits(t *testing.T) {
	r := vendor(t)
	offer(t, r, target("1.0.0", 1))
	other := copyOf(t, r)
	for what, c := range map[string]struct {
		at   place
		kind error
	}{
		"empty": {place{}, nil}, "own": {published(t, r), nil},
		"a stranger's": {published(t, vendor(t)), ErrUnknownKey},
		"ahead":        {func() place { offer(t, other, target("1.1.0", 2)); return published(t, other) }(), ErrRollback},
	} {
		if err := r.Fits(t.Context(), c.at); !errors.Is(err, c.kind) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A crash before any write of a refresh, and a torn file, mend themselves.
func TestCrashAtEveryWrite(t *testing.T) {
	r := vendor(t)
	s := box(t, r)
	offer(t, r, target("1.0.0", 1))
	good(t, s, published(t, r), Options{}, "demo-1.0.0")
	rotate(t, r, newKeys(RoleTimestamp, RoleTargets))
	offer(t, r, target("1.1.0", 2))
	now := published(t, r)
	before := folder(t, s.dir)
	crash := errors.New("power cut")
	for n := 0; ; n++ {
		dir := filepath.Join(t.TempDir(), "trust")
		if err := os.CopyFS(dir, os.DirFS(s.dir)); err != nil {
			t.Fatal(err)
		}
		box := &Store{dir: dir, sealed: s.sealed}
		writes := 0
		box.Write = func(path string, data []byte) error {
			if writes++; writes > n {
				// The worst: a torn file under its name.
				os.WriteFile(path, data[:len(data)/2], 0o644)
				return crash
			}
			return writeFile(path, data)
		}
		_, err := paths(box, now, Options{})
		if err == nil {
			if n < 3 {
				t.Errorf("only %d writes", n)
			}
			break
		}
		if !errors.Is(err, crash) {
			t.Fatal(err)
		}
		box.Write = nil
		good(t, box, now, Options{}, "demo-1.0.0 demo-1.1.0")
	}
	if !maps.EqualFunc(before, folder(t, s.dir), bytes.Equal) {
		t.Error("the original store changed")
	}
	// A lost or damaged store is made anew.
	for _, e := range []func() error{
		func() error { return os.RemoveAll(s.dir) },
		func() error {
			return fs.WalkDir(os.DirFS(s.dir), ".", func(p string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				return os.WriteFile(filepath.Join(s.dir, p), []byte("{"), 0o644)
			})
		},
	} {
		if err := e(); err != nil {
			t.Fatal(err)
		}
		good(t, s, now, Options{}, "demo-1.0.0 demo-1.1.0")
	}
}

func TestSealedRootMustBeRight(t *testing.T) {
	r := vendor(t)
	data := r.data["1.root.json"]
	for _, bad := range [][]byte{nil, []byte("{}"), data[:len(data)-1], bytes.Replace(data, []byte(`"version":1`), []byte(`"version":2`), 1)} {
		if _, err := Open(t.TempDir(), bad); err == nil || !strings.Contains(err.Error(), "install a newer image") {
			t.Error(err)
		}
	}
}

// A reader that comes between two writes finds all that it is told of.
func TestOrderOfFiles(t *testing.T) {
	r := vendor(t)
	rotate(t, r, Rotation{})
	offer(t, r, target("1.0.0", 1))
	files, err := r.Files()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	if got := strings.Join(names, " "); got != "2.targets.json 2.snapshot.json 1.root.json 2.root.json timestamp.json" {
		t.Error(got)
	}
	// At each point a box sees the old list, whole, or the new one.
	s, at := box(t, r), place{}
	old := vendorBefore(t, r)
	for name, data := range old {
		at[name] = data
	}
	for _, f := range files {
		want := ""
		if f.Name == "timestamp.json" {
			want = "demo-1.0.0"
		}
		at[f.Name] = f.Data
		fresh := &Store{dir: filepath.Join(t.TempDir(), "trust"), sealed: s.sealed, Write: plain}
		good(t, fresh, at, Options{}, want)
	}
}

// vendorBefore is the repository's first state, as it was published.
func vendorBefore(t *testing.T, r *Repository) place {
	t.Helper()
	p := place{}
	for _, name := range []string{"1.root.json", "1.targets.json", "1.snapshot.json"} {
		data, err := os.ReadFile(filepath.Join(r.dir, MetadataDir, name))
		if err != nil {
			t.Fatal(err)
		}
		p[name] = data
	}
	// Its timestamp was written over: the same content, signed again.
	again := copyOf(t, r)
	again.Now = start
	m := *again.timestamp
	m.Signatures, m.Signed.Version = nil, 1
	m.Signed.Meta = map[string]*tuf.MetaFiles{"snapshot.json": metaFile(1, p["1.snapshot.json"])}
	if err := signWith(t.Context(), again, again.root(), RoleTimestamp, &m); err != nil {
		t.Fatal(err)
	}
	data, err := m.ToBytes(false)
	if err != nil {
		t.Fatal(err)
	}
	p["timestamp.json"] = data
	return p
}
