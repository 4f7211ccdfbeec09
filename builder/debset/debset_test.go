// SPDX-License-Identifier: Apache-2.0

package debset

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/builder/debian"
	"github.com/holdfast/holdfast/compose/lock"
)

// mirror is a Debian mirror that counts questions and can drop packages.
type mirror struct {
	version string
	asked   int
}

func (m *mirror) keeper(file string) *Keeper {
	return &Keeper{
		File: file, Cache: &debian.Cache{Dir: "debs"}, Say: func(string, ...any) {},
		resolve: func(_ context.Context, r debian.Request) (map[string]lock.PackageSet, error) {
			m.asked++
			set := lock.PackageSet{Suite: debian.Suite, Wanted: r.Sets[0].Wanted}
			for _, n := range set.Wanted {
				set.Packages = append(set.Packages, lock.Package{Name: n, Version: m.version, SHA256: strings.Repeat("0a", 32), Size: 1})
			}
			return map[string]lock.PackageSet{"images": set}, nil
		},
		fetch: func(_ context.Context, set lock.PackageSet) error {
			if set.Packages[0].Version != m.version {
				return &debian.MissingError{Packages: []string{set.Packages[0].Name}}
			}
			return nil
		},
	}
}

func TestKeeper(t *testing.T) {
	m := &mirror{version: "1"}
	k := m.keeper(filepath.Join(t.TempDir(), "sub", "pins.json"))
	ask := func(wantVersion string, wantAsked int, names ...string) {
		t.Helper()
		set, dir, err := k.Packages(t.Context(), names)
		if err != nil || dir != "debs" {
			t.Fatal(dir, err)
		}
		if set.Packages[0].Version != wantVersion || m.asked != wantAsked {
			t.Errorf("version %s after %d questions, want %s after %d", set.Packages[0].Version, m.asked, wantVersion, wantAsked)
		}
	}
	ask("1", 1, "a", "b")
	ask("1", 1, "a", "b") // the file serves
	ask("1", 2, "a", "b", "c")
	m.version = "2"
	ask("2", 3, "a", "b", "c") // the mirror has dropped version 1
	ask("2", 3, "a", "b", "c")
	k.Anew = true
	ask("2", 4, "a", "b", "c")
}

func TestKeeperRefusesABrokenFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pins.json")
	if err := os.WriteFile(file, []byte(`{"packages":[{"name":"a","sha256":"../x","size":1}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	m := &mirror{version: "1"}
	_, _, err := m.keeper(file).Packages(t.Context(), []string{"a"})
	if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"suite":"trixie","wanted":["a"],"packages":[{"name":"a","sha256":"` + strings.Repeat("0a", 32) + `","size":1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := parse(data)
		if err != nil {
			return
		}
		for _, p := range set.Packages {
			if strings.ContainsAny(p.SHA256, "/.") {
				t.Errorf("accepted hash %q", p.SHA256)
			}
		}
	})
}
