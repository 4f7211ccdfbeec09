// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/holdfast/holdfast/appliance/supervise"
	"github.com/holdfast/holdfast/compose/release"
)

// Two images with a layer in common, of a registry with a name of its own.
const (
	web = "registry.test/shop/web:1.0.0"
	db  = "registry.test/shop/db:1.0.0"
)

const layerSize = 300_000

var signer = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// world is a seed release, and a wire on which a host name leads to a handler.
type world struct {
	t      testing.TB
	rel    *release.Release
	images map[string]v1.Image
	base   v1.Hash // the layer that web and db share
	wire   *wire
	o      Options
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, images: map[string]v1.Image{}, wire: &wire{hosts: map[string]http.Handler{}}}
	base, err := random.Layer(layerSize, "application/vnd.oci.image.layer.v1.tar+gzip")
	w.ok(err)
	w.base, err = base.Digest()
	w.ok(err)
	for _, ref := range []string{web, db} {
		own, err := random.Layer(layerSize, "application/vnd.oci.image.layer.v1.tar+gzip")
		w.ok(err)
		img, err := mutate.AppendLayers(empty.Image, base, own)
		w.ok(err)
		w.images[ref] = img
	}
	w.rel = w.release(w.images)
	w.o = Options{Dir: filepath.Join(t.TempDir(), "fetch"), Transport: w.wire, Jitter: func() float64 { return 0.5 },
		Free: func(string) (int64, error) { return 1 << 40, nil }}
	return w
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// release writes and opens a seed release.
func (w *world) release(images map[string]v1.Image) *release.Release {
	w.t.Helper()
	dir := filepath.Join(w.t.TempDir(), "release")
	d := release.Description{Name: "demo", Version: "1.0.0", Created: 1, Factory: release.Seed, OS: release.OS{Version: "13", RootHash: strings.Repeat("a", 64)}}
	w.ok(release.Write(context.Background(), dir, d, []byte("stack"), images, signer()))
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, signer().Public(), signer())
	w.ok(err)
	c, err = x509.ParseCertificate(der)
	w.ok(err)
	rel, err := release.Open(os.DirFS(dir), []*x509.Certificate{c})
	w.ok(err)
	return rel
}

// blobs are all bytes of an image by digest, the manifest among them.
func (w *world) blobs(ref string) map[string][]byte {
	w.t.Helper()
	img := w.images[ref]
	out := map[string][]byte{w.digest(ref): w.must(img.RawManifest())}
	m, err := img.Manifest()
	w.ok(err)
	out[m.Config.Digest.String()] = w.must(img.RawConfigFile())
	layers, err := img.Layers()
	w.ok(err)
	for i, l := range layers {
		r, err := l.Compressed()
		w.ok(err)
		out[m.Layers[i].Digest.String()] = w.must(io.ReadAll(r))
	}
	return out
}

func (w *world) must(b []byte, err error) []byte {
	w.t.Helper()
	w.ok(err)
	return b
}

func (w *world) digest(ref string) string {
	w.t.Helper()
	h, err := w.images[ref].Digest()
	w.ok(err)
	return h.String()
}

// own is the layer that only this image has.
func (w *world) own(ref string) string {
	w.t.Helper()
	m, err := w.images[ref].Manifest()
	w.ok(err)
	return m.Layers[1].Digest.String()
}

// registry is an in-process registry that has the images; filled through its
// own handler, not over the wire.
func (w *world) registry(refs ...string) http.Handler {
	w.t.Helper()
	blobs := registry.NewInMemoryBlobHandler().(registry.BlobPutHandler)
	h := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithBlobHandler(blobs.(registry.BlobHandler)))
	for _, ref := range refs {
		path := strings.TrimPrefix(strings.TrimSuffix(ref, ":1.0.0"), "registry.test/")
		for digest, b := range w.blobs(ref) {
			hash, err := v1.NewHash(digest)
			w.ok(err)
			if digest != w.digest(ref) {
				w.ok(blobs.Put(context.Background(), path, hash, io.NopCloser(strings.NewReader(string(b)))))
				continue
			}
			req, err := http.NewRequest(http.MethodPut, "http://x/v2/"+path+"/manifests/"+digest, strings.NewReader(string(b)))
			w.ok(err)
			mt, err := w.images[ref].MediaType()
			w.ok(err)
			req.Header.Set("Content-Type", string(mt))
			resp, err := (&wire{hosts: map[string]http.Handler{"x": h}}).RoundTrip(req)
			w.ok(err)
			if resp.StatusCode != http.StatusCreated {
				w.t.Fatalf("put a manifest: %s", resp.Status)
			}
		}
	}
	return h
}

// layout writes an OCI layout's blobs.
func (w *world) layout(refs ...string) string {
	w.t.Helper()
	dir := w.t.TempDir()
	w.ok(os.MkdirAll(filepath.Join(dir, blobDir), 0o755))
	for _, ref := range refs {
		for digest, b := range w.blobs(ref) {
			w.ok(os.WriteFile(filepath.Join(dir, blobDir, encoded(digest)), b, 0o644))
		}
	}
	return dir
}

func (w *world) source() *Source {
	w.t.Helper()
	s := New(w.rel, w.o)
	w.ok(s.Need([]string{w.digest(web), w.digest(db)}))
	return s
}

// fetch fetches one image and gathers what was reported.
func (w *world) fetch(ctx context.Context, s *Source, ref string) ([]supervise.Fetching, error) {
	var got []supervise.Fetching
	err := s.Fetch(ctx, w.digest(ref), func(f supervise.Fetching) { got = append(got, f) })
	return got, err
}

// stored lists the files of the store, blobs and parts of some.
func (w *world) stored() (whole, partial []string) {
	w.t.Helper()
	filepath.WalkDir(w.o.Dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if filepath.Base(filepath.Dir(p)) == unverifiedDir {
				partial = append(partial, d.Name())
			} else {
				whole = append(whole, d.Name())
			}
		}
		return nil
	})
	return whole, partial
}

// check streams an image and wants all its bytes.
func (w *world) check(s *Source, ref string) {
	w.t.Helper()
	var last, total int64
	if err := s.WriteImage(context.Background(), io.Discard, w.digest(ref), func(d, n int64) { last, total = d, n }); err != nil || last != total || total < 2*layerSize {
		w.t.Errorf("%s: %d of %d bytes, %v", ref, last, total, err)
	}
}
