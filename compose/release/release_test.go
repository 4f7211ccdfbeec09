// SPDX-License-Identifier: Apache-2.0

package release

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
)

// keys are made once: RSA keys are slow.
var keys = sync.OnceValue(func() []*rsa.PrivateKey {
	var out []*rsa.PrivateKey
	for range 2 {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		out = append(out, k)
	}
	return out
})

func certificate(t testing.TB, key crypto.Signer) *x509.Certificate {
	t.Helper()
	// Long expired: expiry must not matter.
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "demo"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

func images(t testing.TB) map[string]v1.Image {
	t.Helper()
	out := map[string]v1.Image{}
	for _, ref := range []string{"holdfast.demo/web:1.0.0", "redis", "holdfast.demo/db:1.0.0"} {
		img, err := random.Image(5000, 2)
		if err != nil {
			t.Fatal(err)
		}
		out[ref] = img
	}
	// The same image under a second name, and an image with a layer twice.
	out["holdfast.demo/migrate:1.0.0"] = out["holdfast.demo/web:1.0.0"]
	layer, err := random.Layer(1000, "application/vnd.oci.image.layer.v1.tar+gzip")
	if err != nil {
		t.Fatal(err)
	}
	twice, err := mutate.AppendLayers(empty.Image, layer, layer)
	if err != nil {
		t.Fatal(err)
	}
	out["twice:1"] = twice
	return out
}

var description = Description{Name: "demo", Version: "1.0.0", Created: 1700000000,
	OS: OS{Version: "13-abc", RootHash: strings.Repeat("a", 64)}}

var stackTar = bytes.Repeat([]byte("stack "), 100)

func written(t testing.TB, images map[string]v1.Image) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "release")
	if err := Write(context.Background(), dir, description, stackTar, images, keys()[0]); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestWriteAndOpen(t *testing.T) {
	imgs := images(t)
	dir := written(t, imgs)
	trust := []*x509.Certificate{certificate(t, keys()[1]), certificate(t, keys()[0])}
	r, err := Open(os.DirFS(dir), trust)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.StackTar(), stackTar) {
		t.Error("another stack layer")
	}
	d := r.Description()
	if d.Name != "demo" || d.Format != 1 || d.Stack != v1Hash(stackTar).String() || len(d.Images) != len(imgs) {
		t.Errorf("%+v", d)
	}
	for ref, img := range imgs {
		h, err := img.Digest()
		if err != nil || r.Digests()[ref] != h.String() {
			t.Errorf("%s: %s, want %s %v", ref, r.Digests()[ref], h, err)
		}
	}
	again := written(t, imgs)
	if a, b := content(t, dir), content(t, again); !maps.Equal(a, b) {
		t.Error("two writes differ")
	}

	// Other tools read it too.
	idx, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := idx.IndexManifest()
	if err != nil || len(m.Manifests) != 1+len(imgs) {
		t.Fatalf("%v %v", m, err)
	}
	for _, d := range m.Manifests[1:] {
		img, err := idx.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if err := wholeImage(img); err != nil {
			t.Error(err)
		}
	}
}

// wholeImage reads all of an image through go-containerregistry and checks
// each digest.
func wholeImage(img v1.Image) error {
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	if h := v1Hash(config); h != m.Config.Digest {
		return fmt.Errorf("config %s, want %s", h, m.Config.Digest)
	}
	for _, d := range m.Layers {
		l, err := img.LayerByDigest(d.Digest)
		if err != nil {
			return err
		}
		rc, err := l.Compressed()
		if err != nil {
			return err
		}
		h, n, err := v1.SHA256(rc)
		if err != nil || h != d.Digest || n != d.Size {
			return fmt.Errorf("layer %s of %d bytes, want %s of %d: %w", h, n, d.Digest, d.Size, err)
		}
	}
	return nil
}

// content is the folder's files, for comparison.
func content(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, p))
		out[p] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestReadableFrom: what a release says of its data travels with it, and a
// description from before there was such a thing reads as its own version.
func TestReadableFrom(t *testing.T) {
	d := description
	d.Version, d.Data.ReadableFrom = "1.4.0", "1.2.0"
	dir := filepath.Join(t.TempDir(), "release")
	if err := Write(context.Background(), dir, d, stackTar, nil, keys()[0]); err != nil {
		t.Fatal(err)
	}
	r, err := Open(os.DirFS(dir), []*x509.Certificate{certificate(t, keys()[0])})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Description().ReadableFrom(); got != "1.2.0" {
		t.Errorf("readable from %q", got)
	}
	old, err := json.Marshal(description)
	if err != nil || strings.Contains(string(old), "data") {
		t.Errorf("a release that says nothing of its data writes %s, %v", old, err)
	}
	if got := description.ReadableFrom(); got != "1.0.0" {
		t.Errorf("readable from %q without a word about it", got)
	}
	for from, want := range map[string]string{"1.4.1": "newer than the release", "1.4": "no semantic version", "latest": "no semantic version"} {
		d.Data.ReadableFrom = from
		if err := Write(context.Background(), t.TempDir(), d, stackTar, nil, keys()[0]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", from, err, want)
		}
	}
}

func TestWriteImage(t *testing.T) {
	imgs := images(t)
	r, err := Open(os.DirFS(written(t, imgs)), []*x509.Certificate{certificate(t, keys()[0])})
	if err != nil {
		t.Fatal(err)
	}
	for ref, img := range imgs {
		digest := r.Digests()[ref]
		var b bytes.Buffer
		var last, total int64
		err := r.WriteImage(context.Background(), &b, digest, func(done, all int64) {
			if done <= last && done != all {
				t.Errorf("%s: progress went from %d to %d", ref, last, done)
			}
			last, total = done, all
		})
		if err != nil {
			t.Fatal(err)
		}
		if last != total || total == 0 {
			t.Errorf("%s: progress ended at %d of %d", ref, last, total)
		}
		dir, names := untar(t, &b)
		if names[len(names)-1] != "index.json" {
			t.Errorf("%s: the last member is %s; index.json must be", ref, names[len(names)-1])
		}
		idx, err := layout.ImageIndexFromPath(dir)
		if err != nil {
			t.Fatal(err)
		}
		m, err := idx.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, d := range m.Manifests {
			got[d.Annotations["org.opencontainers.image.ref.name"]] = d.Annotations["io.containerd.image.name"]
		}
		full := map[string]string{"redis": "docker.io/library/redis:latest", "twice:1": "docker.io/library/twice:1"}[ref]
		if full == "" {
			full = ref
		}
		if got[ref] != full {
			t.Errorf("%s: annotations %v, want %s", ref, got, full)
		}
		if strings.Contains(ref, "web") && got["holdfast.demo/migrate:1.0.0"] != "holdfast.demo/migrate:1.0.0" {
			t.Errorf("the second name is missing: %v", got)
		}
		loaded, err := idx.Image(m.Manifests[0].Digest)
		if err != nil {
			t.Fatal(err)
		}
		if err := wholeImage(loaded); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
		a, _ := img.Digest()
		if h, err := loaded.Digest(); err != nil || h != a {
			t.Errorf("%s: digest %s, want %s", ref, h, a)
		}
	}
	if err := r.WriteImage(context.Background(), io.Discard, "sha256:"+strings.Repeat("0", 64), nil); err == nil {
		t.Error("an unknown digest must fail")
	}
	ended, stop := context.WithCancel(context.Background())
	stop()
	if err := r.VerifyImage(ended, r.Digests()["redis"], nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	full := errors.New("disk full")
	if err := r.WriteImage(context.Background(), failing{full}, r.Digests()["redis"], nil); !errors.Is(err, full) || errors.As(err, new(*CorruptError)) {
		t.Errorf("a writer's error is no corruption: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func untar(t *testing.T, r io.Reader) (dir string, names []string) {
	t.Helper()
	dir = t.TempDir()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return dir, names
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		p := filepath.Join(dir, h.Name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, data, 0o644)); err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}
