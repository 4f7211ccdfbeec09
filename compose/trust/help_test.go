// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// start is the time that tests begin at.
var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// place is a source in memory.
type place map[string][]byte

func (p place) Metadata(_ context.Context, name string, limit int64) ([]byte, error) {
	data, ok := p[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return data[:min(int64(len(data)), limit+1)], nil
}

func (p place) with(name string, data []byte) place {
	c := maps.Clone(p)
	c[name] = data
	return c
}

func (p place) without(name string) place {
	c := maps.Clone(p)
	delete(c, name)
	return c
}

// vendor makes a repository with keys in files.
func vendor(t *testing.T) *Repository {
	t.Helper()
	r := &Repository{Now: start, Write: plain}
	if err := Init(t.Context(), filepath.Join(t.TempDir(), "keys"), DefaultKeys(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

// plain writes without waiting for the disk; TestCrashAtEveryWrite has the
// real one.
func plain(path string, data []byte) error { return os.WriteFile(path, data, 0o644) }

// digest is a made-up one.
func digest(n int) string { return fmt.Sprintf("sha256:%064x", n) }

func target(version string, n int) Target {
	return Target{Name: "demo", Version: version, Digest: digest(n), Size: 1000, Channels: []string{"stable"}, Rollout: 100, Epoch: 1}
}

func offer(t *testing.T, r *Repository, targets ...Target) {
	t.Helper()
	for _, x := range targets {
		if _, err := r.Offer(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, r)
}

func settle(t *testing.T, r *Repository, renew ...string) {
	t.Helper()
	if err := r.Settle(t.Context(), renew...); err != nil {
		t.Fatal(err)
	}
}

func rotate(t *testing.T, r *Repository, change Rotation) {
	t.Helper()
	if err := r.Rotate(t.Context(), change); err != nil {
		t.Fatal(err)
	}
}

func published(t *testing.T, r *Repository) place {
	t.Helper()
	files, err := r.Files()
	if err != nil {
		t.Fatal(err)
	}
	return placeOf(files)
}

func bundled(t *testing.T, r *Repository) place {
	t.Helper()
	files, err := r.BundleFiles()
	if err != nil {
		t.Fatal(err)
	}
	return placeOf(files)
}

func placeOf(files []File) place {
	p := place{}
	for _, f := range files {
		p[f.Name] = f.Data
	}
	return p
}

// box is a store whose image has the repository's root of now.
func box(t *testing.T, r *Repository) *Store {
	t.Helper()
	sealed, err := os.ReadFile(filepath.Join(r.dir, RootFile))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(filepath.Join(t.TempDir(), "trust"), sealed)
	if err != nil {
		t.Fatal(err)
	}
	s.Write = plain
	return s
}

// paths refreshes and returns what is offered.
func paths(s *Store, from Source, o Options) (string, error) {
	if o.Now.IsZero() {
		o.Now = start.Add(time.Hour)
	}
	all, err := s.Refresh(context.Background(), from, o)
	var names []string
	for _, t := range all {
		names = append(names, t.Path())
	}
	return strings.Join(names, " "), err
}

func good(t *testing.T, s *Store, from Source, o Options, want string) {
	t.Helper()
	got, err := paths(s, from, o)
	if err != nil || got != want {
		t.Errorf("refresh gave %q, %v, want %q", got, err, want)
	}
}

// refused fails unless a refresh is refused with the kind, says so in one
// sentence, and changes nothing.
func refused(t *testing.T, s *Store, from Source, o Options, kind error) {
	t.Helper()
	before := folder(t, s.dir)
	got, err := paths(s, from, o)
	var e *Error
	switch {
	case !errors.Is(err, kind) || !errors.As(err, &e):
		t.Errorf("refresh gave %q, %v, want %v", got, err, kind)
	case e.File == "" || !strings.HasPrefix(err.Error(), "trust: ") || strings.Contains(err.Error(), "\n"):
		t.Errorf("%q of %q is no sentence", err, e.File)
	}
	if !maps.EqualFunc(before, folder(t, s.dir), func(a, b []byte) bool { return string(a) == string(b) }) {
		t.Errorf("a refused refresh (%v) changed the store", err)
	}
}

func folder(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, n := range names {
		data, err := os.ReadFile(filepath.Join(dir, n.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[n.Name()] = data
	}
	return all
}
