// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/compose/release"
)

// What does not fit is told before the first large byte.
func TestNoRoom(t *testing.T) {
	p := makePair(t)
	for name, row := range map[string]struct {
		edit func(b *box, q *Request)
		want string
	}{
		"state": {func(_ *box, q *Request) { q.Reserve = 1 << 55 }, "on the state volume and"},
		"slot": {func(b *box, _ *Request) {
			ok(t, os.Truncate(b.slots[1], p.new.desc.Verity.Bytes-1))
		}, "on the slot root-b and"},
		"ESP": {func(_ *box, q *Request) { q.ESPFree = int64(len(p.new.uki)) - 1 }, "on the ESP and"},
	} {
		b := newBox(t, nil)
		q := b.request(p.new)
		row.edit(b, &q)
		d := tapOf(t, p.new.dir)
		_, err := from(t.Context(), d, q, nil)
		var room *NoRoomError
		if !errors.As(err, &room) || room.Need <= room.Free || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), "are missing") {
			t.Errorf("%s: %v", name, err)
		}
		if f := FailureOf(err); f.Code != CodeNoRoom || f.Need != room.Need || f.Free != room.Free {
			t.Errorf("%+v", f)
		}
		if n := d.n.Load(); n > 50_000 {
			t.Errorf("%s: fetched %d bytes first", name, n)
		}
	}
}

func TestSweep(t *testing.T) {
	p := makePair(t)
	b := newBox(t, nil)
	for _, m := range []made{p.old, p.new} {
		_, err := Run(t.Context(), b.request(m), nil)
		ok(t, err)
	}
	list := func() (out []string) {
		for _, dir := range []string{filepath.Join(b.state, releasesDir), filepath.Join(ImagesDir(b.state), blobDir)} {
			entries, err := os.ReadDir(dir)
			ok(t, err)
			for _, e := range entries {
				out = append(out, e.Name())
			}
		}
		return out
	}
	blobs := func(ms ...made) (out []string) {
		for _, m := range ms {
			out = append(out, hexOf(m.digest))
			for digest, name := range names(t, m) {
				if name == "image manifest" || name == "layer or config" {
					out = append(out, hexOf(digest))
				}
			}
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	want := func(what string, names []string) {
		t.Helper()
		got := list()
		slices.Sort(got)
		slices.Sort(names)
		if !slices.Equal(got, names) {
			t.Errorf("%s: %d files, want %d", what, len(got), len(names))
		}
	}
	ok(t, Sweep(b.state, []string{p.old.digest, p.new.digest, ""}))
	want("both kept", blobs(p.old, p.new))
	// Leftovers of neither.
	stray := filepath.Join(ImagesDir(b.state), blobDir, strings.Repeat("1", 64)+unverified)
	ok(t, os.WriteFile(stray, []byte("x"), 0o600))
	ok(t, os.MkdirAll(filepath.Join(b.state, releasesDir, "rubbish", "x"), 0o755))
	// A release that can't be read: its folder stays, and all blobs.
	config := filepath.Join(ReleaseDir(b.state, p.old.digest), blobDir, hexOf(p.old.digest))
	data, err := os.ReadFile(config)
	ok(t, err)
	ok(t, os.WriteFile(config, data[:10], 0o644))
	ok(t, Sweep(b.state, []string{p.old.digest, p.new.digest}))
	want("one unreadable", append(blobs(p.old, p.new), filepath.Base(stray)))
	ok(t, os.WriteFile(config, data, 0o644))
	ok(t, Sweep(b.state, []string{p.new.digest}))
	want("the new one", blobs(p.new))
	// The factory's images, of which the store has one.
	ok(t, Sweep(b.state, []string{""}, p.old.desc.Images...))
	var shared []string
	for _, im := range p.old.desc.Images {
		if slices.ContainsFunc(p.new.desc.Images, func(n release.Image) bool { return n.Digest == im.Digest }) {
			raw, err := os.ReadFile(blobIn(p.old.dir, im.Digest))
			ok(t, err)
			list, err := im.Blobs(raw)
			ok(t, err)
			shared = append(shared, hexOf(im.Digest))
			for _, l := range list {
				shared = append(shared, hexOf(l.Digest))
			}
		}
	}
	want("the factory's", shared)
	unlock, err := alone(b.state)
	ok(t, err)
	ok(t, Sweep(b.state, nil))
	want("nothing, while a run is at work", shared)
	unlock()
	ok(t, Sweep(b.state, nil))
	want("none", nil)
	ok(t, Sweep(t.TempDir(), nil))
}
