// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/compose/depot"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/compose/trust"
	"github.com/holdfast/holdfast/images/chunk"
)

// mutate changes a bundle in one to three places, as bad luck and attackers
// do: bits, runs of bytes, numbers in headers, blocks taken out, put in twice
// or swapped, the end cut off or grown.
func mutate(rnd *rand.Rand, good []byte) []byte {
	b := bytes.Clone(good)
	if rnd.IntN(2) == 0 { // a few bits, anywhere
		for range 1 + rnd.IntN(3) {
			b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
		}
		return b
	}
	for range 1 + rnd.IntN(3) {
		if len(b) < 4*512 {
			break
		}
		block := rnd.IntN(len(b)/512) * 512
		if rnd.IntN(2) == 0 { // a header, where most can be told
			block = header(rnd, b)
		}
		switch rnd.IntN(10) {
		case 0, 1:
			b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
		case 2:
			b[block+rnd.IntN(512)] = byte(rnd.Uint32())
		case 3: // a size
			copy(b[block+124:], []string{"77777777777\x00", "00000000000\x00", "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"}[rnd.IntN(4)])
			sum(b[block : block+512])
		case 4: // a kind: links, devices, long names, extended headers, sparse
			b[block+156] = "0123456xgLKSVM\x00"[rnd.IntN(15)]
			sum(b[block : block+512])
		case 5: // a name
			name := []string{"../../../etc/passwd", "/etc/passwd", "tuf/../../x", "blobs/sha256/..", "tuf/1.root.json", "blobs/sha256/" + strings.Repeat("0", 64), "tuf/\x00", strings.Repeat("a", 99)}[rnd.IntN(8)]
			copy(b[block:block+100], append([]byte(name), make([]byte, 100-len(name))...))
			sum(b[block : block+512])
		case 6:
			b = slices.Delete(b, block, block+512)
		case 7:
			b = slices.Insert(b, block, b[block:block+512]...)
		case 8:
			b = b[:rnd.IntN(len(b))]
		case 9:
			for i := range min(512, len(b)-block) {
				b[block+i] = byte(rnd.Uint32())
			}
		}
	}
	return b
}

// header finds a tar header's block.
func header(rnd *rand.Rand, b []byte) int {
	first := rnd.IntN(len(b) / 512)
	for i := range len(b) / 512 {
		at := (first + i) % (len(b) / 512) * 512
		if string(b[at+257:at+262]) == "ustar" {
			return at
		}
	}
	return 0
}

// sum mends a header's checksum, so that what was changed is looked at.
func sum(h []byte) {
	copy(h[148:156], "        ")
	n := 0
	for _, c := range h {
		n += int(c)
	}
	for i := 5; i >= 0; i-- {
		h[148+i] = byte('0' + n&7)
		n >>= 3
	}
	h[154] = 0
}

// small is a bundle in which what parsers see is most of it.
func small(t *testing.T) (v *vendor, good []byte, digest string) {
	t.Helper()
	v = newVendor(t)
	digest = v.publish(t, "1.1.0", 1)
	pack := v.bundle(t)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	r := tar.NewReader(bytes.NewReader(pack))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Size > 12<<10 {
			continue
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return v, out.Bytes(), digest
}

// Mutated bundles through all parsers: whatever they take is signed metadata
// and blobs that are what their digests say. The trust store is of a box that
// knows the good metadata already, and must not change.
func TestMutatedBundles(t *testing.T) {
	t.Parallel()
	v, good, digest := small(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "x.bundle")
	write(t, path, good)
	b := newBox(t, v)
	store, err := trust.Open(filepath.Join(b.dir, "state/trust"), b.sealed)
	if err != nil {
		t.Fatal(err)
	}
	if err := through(t, store, b, path, digest); err != nil {
		t.Fatalf("the good bundle: %v", err)
	}
	before := files(t, b.dir)
	rnd := rand.New(rand.NewPCG(3, 4))
	n, taken, said := 1500, 0, map[string]int{}
	if soak {
		n = 20000
	}
	for i := range n {
		write(t, path, mutate(rnd, good))
		err := through(t, store, b, path, digest)
		if err == nil {
			taken++ // in a blob that the release does not need, or in padding
			continue
		}
		sentence(t, "a mutated bundle", err)
		kind := "else"
		for _, word := range []string{"no bundle", "signed", "damaged", "no release manifest", "no ", "digest", "missing", "form"} {
			if strings.Contains(err.Error(), word) {
				kind = word
				break
			}
		}
		if said[kind]++; kind == "else" && said[kind] == 1 {
			t.Logf("for example: %v", err)
		}
		if t.Failed() {
			t.Fatalf("mutation %d", i)
		}
	}
	after := files(t, b.dir)
	for name, data := range after {
		if !bytes.Equal(before[name], data) {
			t.Errorf("%d mutated bundles changed %s", n, name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files on the box before, %d after", len(before), len(after))
	}
	t.Logf("%d mutated bundles: %d were the vendor's in all that counts, refused: %v", n, taken, said)
	if taken > n*6/10 {
		t.Errorf("%d of %d mutations made no difference: the mutations are too mild", taken, n)
	}
}

// through is what a box does with a bundle before it fetches from it.
func through(t *testing.T, store *trust.Store, b *box, path, digest string) error {
	d, err := depot.Open(t.Context(), path, depot.Options{})
	if err != nil {
		return err
	}
	defer d.Close()
	targets, err := store.Refresh(t.Context(), d, trust.Options{Now: b.now, Offline: true})
	if err != nil {
		return err
	}
	if len(targets) != 1 || targets[0].Digest != digest {
		t.Errorf("a mutated bundle offers %v", targets)
	}
	manifest, err := blob(t, d, digest, targets[0].Size)
	if err != nil {
		return err
	}
	config, layers, err := release.ParseManifest(manifest)
	if err != nil {
		return err
	}
	raw, err := blob(t, d, config.Digest, config.Size)
	if err != nil {
		return err
	}
	desc, err := release.ParseDescription(raw)
	if err != nil {
		return err
	}
	if err := desc.Matches(layers); err != nil {
		return err
	}
	for _, l := range layers {
		raw, err := blob(t, d, l.Digest, l.Size)
		if errors.Is(err, fs.ErrNotExist) && l.Size > 12<<10 {
			continue // left out to keep the bundle small
		}
		if err != nil {
			return err
		}
		if l.Digest == desc.Parts.RootChunks.Digest {
			if _, err := chunk.Decode(raw, desc.Parts.Root.Size); err != nil {
				return err
			}
		}
	}
	return nil
}

var errDigest = errors.New("a blob is not what its digest says, it is damaged")

// blob reads one as a box does: whole, and held against its digest.
func blob(t *testing.T, d depot.Depot, digest string, size int64) ([]byte, error) {
	t.Helper()
	r, err := d.Blob(t.Context(), digest, 0, size)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > size {
		t.Errorf("asked for %d bytes, got %d", size, len(data))
	}
	if h := sha256.Sum256(data); "sha256:"+hex.EncodeToString(h[:]) != digest {
		return nil, errDigest
	}
	return data, nil
}

// The parsers behind the digests see bytes that the vendor signed; they are
// tried with others all the same.
func TestMutatedParts(t *testing.T) {
	t.Parallel()
	v := newVendor(t)
	digest := v.publish(t, "1.1.0", 1)
	all := files(t, v.depot)
	manifest := all["blobs/sha256/"+digest[7:]]
	config, _, err := release.ParseManifest(manifest)
	if err != nil {
		t.Fatal(err)
	}
	description := all["blobs/sha256/"+config.Digest[7:]]
	d, err := release.ParseDescription(description)
	if err != nil {
		t.Fatal(err)
	}
	index := all["blobs/sha256/"+d.Parts.RootChunks.Digest[7:]]
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 10000 {
		for _, p := range []struct {
			good  []byte
			parse func([]byte) error
		}{
			{manifest, func(b []byte) error { _, _, err := release.ParseManifest(b); return err }},
			{description, func(b []byte) error { _, err := release.ParseDescription(b); return err }},
			{index, func(b []byte) error {
				x, err := chunk.Decode(b, d.Parts.Root.Size)
				if err == nil && !bytes.Equal(x.Encode(), b) {
					t.Error("an index has two forms")
				}
				return err
			}},
		} {
			b := bytes.Clone(p.good)
			switch rnd.IntN(4) {
			case 0:
				b = b[:rnd.IntN(len(b))]
			case 1:
				at := rnd.IntN(len(b))
				b = append(b[:at:at], append(bytes.Repeat([]byte("[{\"9"[rnd.IntN(4):][:1]), 1+rnd.IntN(2000)), b[at:]...)...)
			default:
				for range 1 + rnd.IntN(4) {
					b[rnd.IntN(len(b))] = byte(rnd.Uint32())
				}
			}
			if err := p.parse(b); err != nil {
				sentence(t, "a mutated part", err)
			}
		}
		if t.Failed() {
			return
		}
	}
}
