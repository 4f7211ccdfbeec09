// SPDX-License-Identifier: Apache-2.0

package release

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

// FuzzOpen feeds index.json and the release manifest: without the signature
// nothing opens, and nothing panics.
func FuzzOpen(f *testing.F) {
	good := content(f, written(f, nil))
	trust := []*x509.Certificate{certificate(f, keys()[0])}
	release, err := manifestDigest([]byte(good["index.json"]))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(good["index.json"]), []byte(good[blobPath(release)]))
	f.Add([]byte(`{"manifests":[]}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, index, manifest []byte) {
		fsys := mapFS(good)
		fsys["index.json"].Data = index
		fsys[blobPath(release)].Data = manifest
		// Let the manifest be found whatever its bytes are.
		if d, err := manifestDigest(index); err == nil {
			fsys[blobPath(d)] = &fstest.MapFile{Data: manifest}
			fsys[blobPath(v1Hash(manifest).String())] = &fstest.MapFile{Data: manifest}
		}
		r, err := Open(fsys, trust)
		if err == nil && (string(index) != good["index.json"] || string(manifest) != good[blobPath(release)]) {
			t.Fatalf("opened bytes that nobody signed: %+v", r.Description())
		}
	})
}

// FuzzDescription: what a vendor may sign by mistake is an error, not a
// panic, and what passes makes an index.
func FuzzDescription(f *testing.F) {
	f.Add([]byte(`{"format":1,"name":"demo","version":"1.0.0","created":1,"stack":"sha256:` + strings.Repeat("a", 64) +
		`","os":{"version":"13","root_hash":"` + strings.Repeat("a", 64) + `"},"images":[{"ref":"a","digest":"sha256:` + strings.Repeat("b", 64) +
		`","size":9,"manifest":8,"media_type":"application/vnd.oci.image.manifest.v1+json"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var d Description
		if json.Unmarshal(data, &d) != nil || d.check() != nil {
			return
		}
		if _, err := index([]byte("{}"), d); err != nil {
			t.Fatal(fmt.Errorf("%+v: %w", d, err))
		}
	})
}
