// SPDX-License-Identifier: Apache-2.0

package release

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
)

func TestTrust(t *testing.T) {
	dir := written(t, images(t))
	for _, trust := range [][]*x509.Certificate{nil, {certificate(t, keys()[1])}} {
		if _, err := Open(os.DirFS(dir), trust); !errors.Is(err, ErrSignature) {
			t.Errorf("%d certificates: %v", len(trust), err)
		}
	}
	file := func(blocks ...*pem.Block) *fstest.MapFile {
		var b []byte
		for _, block := range blocks {
			b = append(b, pem.EncodeToMemory(block)...)
		}
		return &fstest.MapFile{Data: b}
	}
	cert := func(k crypto.Signer) *pem.Block {
		return &pem.Block{Type: "CERTIFICATE", Bytes: certificate(t, k).Raw}
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	got, err := LoadTrust(fstest.MapFS{"trust/a.pem": file(cert(keys()[0]), cert(keys()[1])), "trust/b.pem": file(cert(keys()[1])),
		"trust/readme": file()}, "trust/*.pem")
	if err != nil || len(got) != 3 {
		t.Errorf("%d certificates, %v", len(got), err)
	}
	for _, c := range []struct {
		fsys fstest.MapFS
		want string
	}{
		{fstest.MapFS{}, "trust: no certificate matches *.pem"},
		{fstest.MapFS{"a.pem": file()}, "trust: a.pem: holds no certificate"},
		{fstest.MapFS{"a.pem": file(&pem.Block{Type: "PRIVATE KEY"})}, "holds a PRIVATE KEY"},
		{fstest.MapFS{"a.pem": file(cert(ec))}, "has no RSA key of at least 2048 bits"},
		{fstest.MapFS{"a.pem": file(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})}, "trust: a.pem: "},
		{fstest.MapFS{"a.pem": &fstest.MapFile{Data: make([]byte, maxTrust+1)}}, "has more than"},
	} {
		if _, err := LoadTrust(c.fsys, "*.pem"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	if err := Write(context.Background(), filepath.Join(t.TempDir(), "x"), description, stackTar, nil, ec); err == nil ||
		!strings.Contains(err.Error(), "must be an RSA key") {
		t.Errorf("%v", err)
	}
}

func TestWriteRefuses(t *testing.T) {
	imgs := images(t)
	digest := func(ref string) string {
		h, err := imgs[ref].Digest()
		if err != nil {
			t.Fatal(err)
		}
		return h.String()
	}
	for _, c := range []struct {
		name, want string
		change     func(*Description)
	}{
		{"format", "format 2", func(d *Description) { d.Format = 2 }},
		{"stack", "the description says sha256:no", func(d *Description) { d.Stack = "sha256:no" }},
		{"name", "name: \"Demo 1\" is not", func(d *Description) { d.Name = "Demo 1" }},
		{"version", "is no semantic version", func(d *Description) { d.Version = "1.0" }},
		{"created", "is no time", func(d *Description) { d.Created = 0 }},
		{"root hash", "os.root_hash", func(d *Description) { d.OS.RootHash = "abc" }},
		{"os version", "os.version", func(d *Description) { d.OS.Version = "" }},
		{"other images", "is described and not given", func(d *Description) { d.Images = []Image{{Ref: "other:1"}} }},
		{"other digest", "the description says sha256:", func(d *Description) { d.Images = []Image{{Ref: "redis", Digest: digest("twice:1")}} }},
		{"other size", "the description says 7", func(d *Description) { d.Images = []Image{{Ref: "redis", Digest: digest("redis"), Size: 7}} }},
		{"fewer images", "1 images are described and 5 given", func(d *Description) { d.Images = []Image{{Ref: "redis", Digest: digest("redis")}} }},
	} {
		d := description
		c.change(&d)
		if err := Write(context.Background(), filepath.Join(t.TempDir(), "x"), d, stackTar, imgs, keys()[0]); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Write(context.Background(), full, description, stackTar, imgs, keys()[0]); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("%v", err)
	}
	damaged := map[string]v1.Image{"bad:1": badLayer{imgs["redis"]}}
	if err := Write(context.Background(), filepath.Join(t.TempDir(), "x"), description, stackTar, damaged, keys()[0]); err == nil ||
		!strings.Contains(err.Error(), "release: bad:1: blob sha256:") || !strings.Contains(err.Error(), "it is damaged") {
		t.Errorf("%v", err)
	}
}

// badLayer is a source that lies about its layers.
type badLayer struct{ v1.Image }

func (b badLayer) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	return random.Layer(100, "application/vnd.oci.image.layer.v1.tar+gzip")
}
