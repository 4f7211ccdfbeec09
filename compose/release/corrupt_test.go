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
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// TestFlippedBytes changes every kind of file, at its start, middle and end,
// and wants the refusal that fits: of the release, or of the one image.
func TestFlippedBytes(t *testing.T) {
	imgs := images(t)
	dir := written(t, imgs)
	trust := []*x509.Certificate{certificate(t, keys()[0])}
	good := content(t, dir)
	r, err := Open(os.DirFS(dir), trust)
	if err != nil {
		t.Fatal(err)
	}
	web := imgs["holdfast.demo/web:1.0.0"]
	m, err := web.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	webDigest := r.Digests()["holdfast.demo/web:1.0.0"]
	release, err := manifestDigest([]byte(good["index.json"]))
	if err != nil {
		t.Fatal(err)
	}
	var artifact v1.Manifest
	if err := json.Unmarshal([]byte(good[blobPath(release)]), &artifact); err != nil {
		t.Fatal(err)
	}
	const image = "the image holdfast.demo/migrate:1.0.0 is corrupt: blob "
	for _, c := range []struct {
		name, file string
		open       []string // what Open may say; none where it must succeed
		image      string   // what WriteImage of web says
	}{
		{"release manifest", blobPath(release), []string{"release manifest: blob " + release + " is damaged"}, ""},
		{"description", blobPath(artifact.Config.Digest.String()), []string{"release description: blob"}, ""},
		{"stack layer", blobPath(artifact.Layers[0].Digest.String()), []string{"stack layer: blob"}, ""},
		{"signature", SignatureFile, []string{ErrSignature.Error()}, ""},
		{"index", "index.json", []string{"index.json: "}, ""},
		{"oci-layout", "oci-layout", []string{"oci-layout: not the layout of a release"}, ""},
		{"image manifest", blobPath(webDigest), nil, image + webDigest},
		{"image config", blobPath(m.Config.Digest.String()), nil, image + m.Config.Digest.String()},
		{"image layer", blobPath(m.Layers[1].Digest.String()), nil, image + m.Layers[1].Digest.String()},
	} {
		if good[c.file] == "" {
			t.Fatalf("%s: no file %s", c.name, c.file)
		}
		for _, at := range []int{0, len(good[c.file]) / 2, len(good[c.file]) - 1} {
			for _, change := range []func([]byte) []byte{
				func(b []byte) []byte { b[at] ^= 1; return b },
				func(b []byte) []byte { return b[:at] },
				func(b []byte) []byte { return append(b, 'x') },
			} {
				fsys := mapFS(good)
				fsys[c.file].Data = change([]byte(good[c.file]))
				r, err := Open(fsys, trust)
				if len(c.open) > 0 {
					if err == nil || !slices.ContainsFunc(c.open, func(s string) bool { return strings.Contains(err.Error(), s) }) {
						t.Errorf("%s: Open said %v, want %q", c.name, err, c.open)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s: one bad image must not stop the others: %v", c.name, err)
					continue
				}
				var b bytes.Buffer
				err = r.WriteImage(context.Background(), &b, webDigest, nil)
				var ce *CorruptError
				if !errors.As(err, &ce) || !strings.HasPrefix(err.Error(), c.image) {
					t.Errorf("%s: WriteImage said %v, want %s", c.name, err, c.image)
				}
				if bytes.Contains(b.Bytes(), []byte("index.json")) {
					t.Errorf("%s: the archive names the bad image", c.name)
				}
				if err := r.VerifyImage(context.Background(), r.Digests()["redis"], nil); err != nil {
					t.Errorf("%s: the good image: %v", c.name, err)
				}
			}
		}
		fsys := mapFS(good)
		delete(fsys, c.file)
		r, err := Open(fsys, trust)
		if err == nil {
			err = r.VerifyImage(context.Background(), webDigest, nil)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s missing: %v", c.name, err)
		}
	}
}

func mapFS(files map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, data := range files {
		out[name] = &fstest.MapFile{Data: []byte(data), Mode: 0o644}
	}
	return out
}

// TestUnreadableBlock: a file system that finds damage fails the read.
func TestUnreadableBlock(t *testing.T) {
	dir := written(t, images(t))
	trust := []*x509.Certificate{certificate(t, keys()[0])}
	r, err := Open(os.DirFS(dir), trust)
	if err != nil {
		t.Fatal(err)
	}
	r.fsys = brokenFS{os.DirFS(dir)}
	err = r.VerifyImage(context.Background(), r.Digests()["redis"], nil)
	var ce *CorruptError
	if !errors.As(err, &ce) || ce.Image != "redis" || !errors.Is(err, errRead) {
		t.Errorf("%v", err)
	}
}

var errRead = errors.New("input/output error")

type brokenFS struct{ fs.FS }

func (b brokenFS) Open(name string) (fs.File, error) {
	f, err := b.FS.Open(name)
	return brokenFile{f}, err
}

type brokenFile struct{ fs.File }

func (brokenFile) Read([]byte) (int, error) { return 0, errRead }
