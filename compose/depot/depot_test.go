// SPDX-License-Identifier: Apache-2.0

package depot

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/opencontainers/go-digest"
)

// layout is what the tests keep in a place.
type layout map[string][]byte

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// sample is a layout with metadata and two blobs, one of them an image manifest.
func sample() (l layout, blob, manifest string) {
	b := make([]byte, 300_000)
	for i := range b {
		b[i] = byte(i * i >> 8)
	}
	m := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"x/y","digest":"` + digestOf([]byte("{}")) + `","size":2},"layers":[]}`)
	blob, manifest = digestOf(b), digestOf(m)
	return layout{
		"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": []byte(`{}`),
		"tuf/timestamp.json": []byte(`{"now":1}`), "tuf/1.root.json": []byte(`{"root":1}`), "tuf/7.targets.json": []byte(`{"targets":7}`),
		blobPath(blob): b, blobPath(manifest): m, blobPath(digestOf([]byte("{}"))): []byte("{}"),
	}, blob, manifest
}

func (l layout) names() []string {
	var out []string
	for name := range l {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func (l layout) write(t testing.TB, dir string) {
	t.Helper()
	for name, data := range l {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

func (l layout) tar(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range l.names() {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(l[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(l[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// push fills a registry: blobs, manifests, and the metadata under its tag.
func (l layout) push(t testing.TB, base, repo, manifest string) {
	t.Helper()
	send := func(method, path, kind string, data []byte) {
		q, err := http.NewRequest(method, base+path, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", kind)
		resp, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode >= 300 {
			t.Fatalf("%s %s: %s", method, path, resp.Status)
		}
	}
	blob := func(data []byte) {
		send("POST", "/v2/"+repo+"/blobs/uploads/?digest="+digestOf(data), "application/octet-stream", data)
	}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.DescriptorEmptyJSON}
	m.SchemaVersion = 2
	for _, name := range l.names() {
		if meta, ok := strings.CutPrefix(name, "tuf/"); ok {
			m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: "application/json", Digest: digest.FromBytes(l[name]), Size: int64(len(l[name])),
				Annotations: map[string]string{ocispec.AnnotationTitle: meta}})
			blob(l[name])
		}
		if strings.HasPrefix(name, blobDir) && name != blobPath(manifest) {
			blob(l[name])
		}
	}
	send("PUT", "/v2/"+repo+"/manifests/"+manifest, ocispec.MediaTypeImageManifest, l[blobPath(manifest)])
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	send("PUT", "/v2/"+repo+"/manifests/tuf", ocispec.MediaTypeImageManifest, raw)
}

func serveRegistry(t testing.TB) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return s
}

func opened(t testing.TB, ref string, o Options) Depot {
	t.Helper()
	d, err := Open(context.Background(), ref, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func span2(d Depot, digest string, off, n int64) ([]byte, error) {
	r, err := d.Blob(context.Background(), digest, off, n)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

// TestPlaces: the same releases, whatever the place is.
func TestPlaces(t *testing.T) {
	l, blob, manifest := sample()
	dir := t.TempDir()
	l.write(t, filepath.Join(dir, "folder"))
	if err := os.WriteFile(filepath.Join(dir, "x.bundle"), l.tar(t), 0o644); err != nil {
		t.Fatal(err)
	}
	webServer := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(dir, "folder"))))
	defer webServer.Close()
	reg := serveRegistry(t)
	l.push(t, reg.URL, "demo/releases", manifest)
	host := strings.TrimPrefix(reg.URL, "http://")
	mounted := false
	for _, row := range []struct {
		ref, name string
		o         Options
		offline   bool
	}{
		{ref: filepath.Join(dir, "folder")},
		{ref: filepath.Join(dir, "x.bundle"), offline: true},
		{ref: webServer.URL},
		{ref: webServer.URL + "/"},
		{ref: strings.Replace(webServer.URL, "http://", "http://user:secret@", 1), name: strings.Replace(webServer.URL, "http://", "http://user:xxxxx@", 1)},
		{ref: "oci://" + host + "/demo/releases"},
		{ref: "oci+http://" + host + "/demo/releases"},
		{ref: "usb:", o: Options{Mount: func(context.Context) (string, func() error, error) {
			stick := t.TempDir()
			l.write(t, filepath.Join(stick, "holdfast"))
			mounted = true
			return stick, func() error { mounted = false; return nil }, nil
		}}},
		{ref: webServer.URL, o: Options{Limit: 100 << 20}},
	} {
		t.Run(row.ref, func(t *testing.T) {
			d, err := Open(t.Context(), row.ref, row.o)
			if err != nil {
				t.Fatal(err)
			}
			if name := row.name; d.Offline() != row.offline || name != "" && d.String() != name || strings.Contains(d.String(), "secret") {
				t.Errorf("offline %v, %s", d.Offline(), d)
			}
			for _, name := range l.names() {
				meta, ok := strings.CutPrefix(name, "tuf/")
				if !ok {
					continue
				}
				b, err := d.Metadata(t.Context(), meta, int64(len(l[name])))
				if err != nil || !bytes.Equal(b, l[name]) {
					t.Errorf("%s: %q %v", meta, b, err)
				}
				if _, err := d.Metadata(t.Context(), meta, int64(len(l[name]))-1); err == nil || errors.As(err, new(*Transient)) {
					t.Errorf("%s beyond its limit: %v", meta, err)
				}
			}
			for _, missing := range []string{"2.root.json", "snapshot.json"} {
				if _, err := d.Metadata(t.Context(), missing, 100); !errors.Is(err, fs.ErrNotExist) || errors.As(err, new(*Transient)) {
					t.Errorf("%s: %v", missing, err)
				}
			}
			for _, bad := range []string{"", "../x.json", "a/b.json", "x", ".json", "0.root.json", "tuf/1.root.json", "1.ROOT.json"} {
				if _, err := d.Metadata(t.Context(), bad, 100); err == nil || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%q: %v", bad, err)
				}
			}
			want := l[blobPath(blob)]
			n := int64(len(want))
			for _, s := range [][2]int64{{0, n}, {0, 1}, {n - 1, 1}, {100, 70_000}, {5, 0}} {
				b, err := span2(d, blob, s[0], s[1])
				if err != nil || !bytes.Equal(b, want[s[0]:s[0]+s[1]]) {
					t.Errorf("%v: %d bytes, %v", s, len(b), err)
				}
			}
			b, err := span2(d, manifest, 3, 20)
			if err != nil || !bytes.Equal(b, l[blobPath(manifest)][3:23]) {
				t.Errorf("manifest: %q %v", b, err)
			}
			if b, err := span2(d, blob, n-1, 2); err == nil || len(b) > 1 {
				t.Errorf("beyond the end: %d bytes, %v", len(b), err)
			}
			if _, err := span2(d, digestOf([]byte("no")), 0, 5); !errors.Is(err, fs.ErrNotExist) || errors.As(err, new(*Transient)) {
				t.Errorf("no such blob: %v", err)
			}
			for _, bad := range []string{"", "sha256:", "sha256:../../etc/passwd", "sha512:" + strings.Repeat("a", 64), strings.Repeat("a", 64)} {
				if _, err := d.Blob(t.Context(), bad, 0, 1); err == nil || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%q: %v", bad, err)
				}
			}
			for _, s := range [][2]int64{{-1, 5}, {0, -1}, {1<<63 - 1, 1}} {
				if _, err := d.Blob(t.Context(), blob, s[0], s[1]); err == nil {
					t.Errorf("%v was taken", s)
				}
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	if mounted {
		t.Error("the stick stays mounted")
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for ref, want := range map[string]string{
		"":                         "no place to fetch releases from",
		filepath.Join(dir, "no"):   "no such file",
		"/dev/null":                "neither a folder nor a bundle",
		"ftp://x/y":                "ftp:// is not known",
		"https://":                 "no address of a folder",
		"https://x/y?z":            "no address of a folder",
		"oci://host":               "no repository",
		"oci://host/repo":          "no repository", // would mean Docker's hub
		"oci://host.example/a:1.0": "no repository",
		"oci://host.example/A":     "no repository",
		"usb:":                     "mounted on a box only",
	} {
		if _, err := Open(t.Context(), ref, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", ref, err, want)
		}
	}
	if _, err := Open(t.Context(), "https://u:secret@x/?y", Options{}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

func TestStick(t *testing.T) {
	l, _, _ := sample()
	mount := func(dir string) Options {
		return Options{Mount: func(context.Context) (string, func() error, error) { return dir, func() error { return nil }, nil }}
	}
	bundle := t.TempDir()
	layout{"holdfast/a.bundle": l.tar(t), "holdfast/README": nil}.write(t, bundle)
	d := opened(t, USB, mount(bundle))
	if _, err := d.Metadata(t.Context(), "7.targets.json", 100); err != nil || !d.Offline() || d.String() != "usb: a.bundle" {
		t.Errorf("%s: %v", d, err)
	}
	// Without a timestamp a stick is what an unpacked bundle is.
	folder := t.TempDir()
	delete(l, "tuf/timestamp.json")
	l.write(t, filepath.Join(folder, "holdfast"))
	if d := opened(t, USB, mount(folder)); !d.Offline() {
		t.Error("a stick without a timestamp is online")
	}
	if d := opened(t, filepath.Join(folder, "holdfast"), Options{}); d.Offline() {
		t.Error("a folder without a timestamp is offline")
	}
	two, none, link := t.TempDir(), t.TempDir(), t.TempDir()
	layout{"holdfast/a.bundle": nil, "holdfast/b.bundle": nil}.write(t, two)
	layout{"holdfast/x": nil}.write(t, none)
	if err := os.Symlink(folder+"/holdfast", link+"/holdfast"); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{two: "more than one bundle", none: "neither releases", link: "no folder", t.TempDir(): "no folder"} {
		if _, err := Open(t.Context(), USB, mount(dir)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := Open(t.Context(), USB, Options{Mount: func(context.Context) (string, func() error, error) { return "", nil, errors.New("no disk") }}); err == nil || err.Error() != "usb: no disk" {
		t.Errorf("%v", err)
	}
}

// A folder's own links stay within it, and what is no file is not waited for.
func TestFolderKeepsWithin(t *testing.T) {
	l, blob, _ := sample()
	dir := t.TempDir()
	l.write(t, dir)
	p := filepath.Join(dir, blobPath(blob))
	if err := errors.Join(os.Remove(p), os.Symlink("/etc/hostname", p)); err != nil {
		t.Fatal(err)
	}
	d := opened(t, dir, Options{})
	if b, err := span2(d, blob, 0, 1); err == nil {
		t.Errorf("read %q through a link out of the folder", b)
	}
	if err := errors.Join(os.Remove(p), os.Mkdir(p, 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := span2(d, blob, 0, 1); err == nil || !strings.Contains(err.Error(), "is no file") {
		t.Errorf("%v", err)
	}
}
