// SPDX-License-Identifier: Apache-2.0

package release

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// A seed is the same release, signed, without a blob of an image; with the
// blobs from elsewhere it streams the same archives.
func TestSeed(t *testing.T) {
	imgs := images(t)
	whole, trust := written(t, imgs), []*x509.Certificate{certificate(t, keys()[0])}
	d := description
	d.Factory = Seed
	dir := filepath.Join(t.TempDir(), "seed")
	if err := Write(context.Background(), dir, d, stackTar, imgs, keys()[0]); err != nil {
		t.Fatal(err)
	}
	files := content(t, dir)
	if len(files) != 6 { // oci-layout, index.json, signature; manifest, description, stack
		t.Errorf("a seed has %d files", len(files))
	}
	seed, err := Open(os.DirFS(dir), trust)
	if err != nil {
		t.Fatal(err)
	}
	full, err := Open(os.DirFS(whole), trust)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := seed.Description(), full.Description(); a.Factory != Seed || b.Factory != "" || len(a.Images) != len(b.Images) || a.Images[0] != b.Images[0] {
		t.Errorf("%+v\n%+v", a, b)
	}
	for ref, digest := range seed.Digests() {
		if err := seed.VerifyImage(context.Background(), digest, nil); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of a bare seed: %v", ref, err)
		}
		var a, b bytes.Buffer
		if err := errors.Join(seed.WithBlobs(os.DirFS(whole)).WriteImage(context.Background(), &a, digest, nil), full.WriteImage(context.Background(), &b, digest, nil)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("%s: another archive", ref)
		}
	}
	// Nobody makes a seed of a release, or a release of a seed, but its vendor.
	for _, edit := range []func(*Description){func(d *Description) { d.Factory = "" }, func(d *Description) { d.Factory = "none" }} {
		fsys := fstest.MapFS{}
		for name, data := range files {
			var d Description
			if strings.Contains(data, `"factory":"seed"`) && json.Unmarshal([]byte(data), &d) == nil {
				edit(&d)
				b, err := json.Marshal(d)
				if err != nil {
					t.Fatal(err)
				}
				data = string(b)
			}
			fsys[name] = &fstest.MapFile{Data: []byte(data)}
		}
		if _, err := Open(fsys, trust); err == nil || !strings.Contains(err.Error(), "release description") {
			t.Errorf("%v", err)
		}
	}
	d.Factory = "none"
	if err := Write(context.Background(), filepath.Join(t.TempDir(), "x"), d, stackTar, imgs, keys()[0]); err == nil || !strings.Contains(err.Error(), "factory") {
		t.Errorf("%v", err)
	}
}

// FuzzBlobs: no manifest but the described one is taken, whatever it says, and
// what is taken adds up to the described size.
func FuzzBlobs(f *testing.F) {
	img := images(f)["twice:1"]
	raw, err := img.RawManifest()
	if err != nil {
		f.Fatal(err)
	}
	im, err := describe("twice:1", img)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, im.Size)
	f.Add([]byte(`{"layers":[{"size":-1}]}`), int64(9))
	f.Add([]byte(`{"config":{"digest":"sha256:`+strings.Repeat("a", 64)+`","size":9223372036854775807}}`), int64(1<<62))
	f.Fuzz(func(t *testing.T, manifest []byte, size int64) {
		if _, err := im.Blobs(manifest); err == nil && !bytes.Equal(manifest, raw) {
			t.Fatal("took a manifest that is not the described one")
		}
		// A vendor may have signed anything.
		signed := Image{Digest: v1Hash(manifest).String(), Manifest: int64(len(manifest)), Size: size}
		blobs, err := signed.Blobs(manifest)
		if err != nil {
			return
		}
		sum := signed.Manifest
		for _, b := range blobs {
			if b.Size < 0 || b.Size > size || !digestForm.MatchString(b.Digest) {
				t.Fatalf("%+v of an image of %d bytes", b, size)
			}
			sum += b.Size
		}
		if sum != size {
			t.Fatalf("%d bytes, described are %d", sum, size)
		}
	})
}
