// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/compose/release"
)

// fetched says whether a box reads a file of a depot at all: it does not need
// the layout's own files, older metadata nor another release's blobs.
func fetched(name string, needed map[string]bool) bool {
	return strings.HasPrefix(name, "tuf/") && name != "tuf/1.root.json" || needed[filepath.Base(name)]
}

// needed are the blobs of a release, by the hex of their digests.
func needed(t *testing.T, dir, digest string) map[string]bool {
	t.Helper()
	all := files(t, dir)
	hex := func(d string) string { return strings.TrimPrefix(d, "sha256:") }
	manifest := all["blobs/sha256/"+hex(digest)]
	config, layers, err := release.ParseManifest(manifest)
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{hex(digest): true, hex(config.Digest): true}
	for _, l := range layers {
		set[hex(l.Digest)] = true
	}
	d, err := release.ParseDescription(all["blobs/sha256/"+hex(config.Digest)])
	if err != nil {
		t.Fatal(err)
	}
	for _, im := range d.Images {
		set[hex(im.Digest)] = true
		for name := range all { // its config and layers are named in it
			if base := filepath.Base(name); bytes.Contains(all["blobs/sha256/"+hex(im.Digest)], []byte(base)) {
				set[base] = true
			}
		}
	}
	return set
}

// One flipped bit anywhere in what a box reads is refused. In a large file it
// may lie in a part that the box has already and does not fetch: then the
// release is taken and is the vendor's, byte for byte.
func TestFlippedBit(t *testing.T) {
	t.Parallel()
	v := newVendor(t)
	digest := v.publish(t, "1.1.0", 1)
	set := needed(t, v.depot, digest)
	rnd := rand.New(rand.NewPCG(1, 2))
	each := 1
	if soak {
		each = 60
	}
	good, all := root(1), files(t, v.depot)
	refusals := 0
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !fetched(name, set) {
			continue
		}
		data := all[name]
		places := []int{0, len(data) - 1}
		for range each {
			places = append(places, rnd.IntN(len(data)))
		}
		for _, at := range places {
			bad := bytes.Clone(data)
			bad[at] ^= 1 << rnd.IntN(8)
			write(t, filepath.Join(v.depot, name), bad)
			b := newBox(t, v)
			before := files(t, b.dir)
			err := b.take(t.Context(), v.depot, "1.1.0")
			switch {
			case err != nil:
				refusals++
				sentence(t, name, err)
				b.unchanged(t, before, strings.HasPrefix(name, "tuf/"))
			case strings.HasPrefix(name, "tuf/"):
				t.Errorf("%s with bit flipped at %d was taken", name, at)
			default:
				slot, err := os.ReadFile(filepath.Join(b.dir, "slot-b"))
				if err != nil || !bytes.Equal(slot[:rootSize], good) {
					t.Errorf("%s with a bit flipped at %d: slot B is not the vendor's: %v", name, at, err)
				}
				if len(data) < 64<<10 {
					t.Errorf("%s with a bit flipped at %d was taken", name, at)
				}
			}
		}
		write(t, filepath.Join(v.depot, name), data)
	}
	t.Logf("%d flipped bits refused", refusals)
	if refusals < 12*each {
		t.Errorf("only %d flips were refused: does the box read what is flipped?", refusals)
	}
	// The depot is whole again, and so is the box that was refused before.
	b := newBox(t, v)
	if err := b.take(t.Context(), v.depot, "1.1.0"); err != nil {
		t.Error(err)
	}
}

// A box that was refused once takes the right release afterwards: what the
// refusal left does not stand in its way.
func TestAfterRefusal(t *testing.T) {
	t.Parallel()
	v := newVendor(t)
	digest := v.publish(t, "1.1.0", 1)
	b := newBox(t, v)
	for name := range needed(t, v.depot, digest) {
		path := filepath.Join(v.depot, "blobs/sha256", name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(data)
		bad[len(bad)/2] ^= 4
		write(t, path, bad)
		if err := b.take(t.Context(), v.depot, "1.1.0"); err != nil {
			sentence(t, name, err)
		}
		write(t, path, data)
	}
	if err := b.take(t.Context(), v.depot, "1.1.0"); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(b.dir, "state/releases", strings.TrimPrefix(digest, "sha256:"))
	if _, err := release.OpenInstalled(os.DirFS(folder), digest); err != nil {
		t.Error(err)
	}
}
