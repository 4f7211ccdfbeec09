// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/holdfast/holdfast/compose/lock"
)

// debianImage is an image for a box with one Debian package in it.
func debianImage(t *testing.T) v1.Image {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	status := "Package: hello\nVersion: 2.10-3\nArchitecture: amd64\n"
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "var/lib/dpkg/status", Mode: 0o644, Size: int64(len(status))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, status); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

// pinned puts an image into a layout and pins it.
func pinned(t *testing.T, img v1.Image) (pin lock.Image, dir string) {
	t.Helper()
	dir = t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return lock.Image{Ref: "holdfast.test/web:1", Digest: h.String(), Size: 1}, dir
}

// warned keeps the warnings.
type warned struct {
	heard
	text []string
}

func (w *warned) Warn(format string, args ...any) {
	w.text = append(w.text, fmt.Sprintf(format, args...))
}

// A seed bake says which images boxes will not find where it found them, and a
// bake of either kind names all images that are nowhere.
func TestImagesOfASeed(t *testing.T) {
	pin, dir := pinned(t, debianImage(t))
	for _, row := range []struct {
		factory string
		warns   int
	}{{Embedded, 0}, {Seed, 1}} {
		p := &warned{}
		w := &work{cfg: Config{Factory: row.factory, Layouts: []string{dir}}, p: p, lock: &lock.Lock{Images: []lock.Image{pin}}}
		if _, err := stepImages(context.Background(), w); err != nil {
			t.Fatal(err)
		}
		if len(p.text) != row.warns || row.warns > 0 && !strings.Contains(p.text[0], "holdfast.test/web:1 came from a layout of this host") {
			t.Errorf("%s: warned %q", row.factory, p.text)
		}
	}
	// Nothing listens on the discard port of a test host.
	gone := []lock.Image{{Ref: "127.0.0.1:9/a:1", Digest: "sha256:" + strings.Repeat("a", 64)}, {Ref: "127.0.0.1:9/b:1", Digest: "sha256:" + strings.Repeat("b", 64)}, pin}
	w := &work{cfg: Config{Factory: Seed, Layouts: []string{dir}}, p: &warned{}, lock: &lock.Lock{Images: gone}}
	_, err := stepImages(context.Background(), w)
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:9/a:1") || !strings.Contains(err.Error(), "127.0.0.1:9/b:1") || strings.Contains(err.Error(), "holdfast.test") {
		t.Errorf("%v", err)
	}
}

func TestFactoryKeyIsChecked(t *testing.T) {
	_, err := prepare(context.Background(), Config{Name: "demo", Version: "1.0.0", Factory: "none"}, &warned{})
	if err == nil || err.Error() != `factory: "none" is neither "embedded" nor "seed"` {
		t.Error(err)
	}
}

// The packages of an image are read once, and never of damaged bytes.
func TestPackagesOfAreKept(t *testing.T) {
	cache := t.TempDir()
	img := debianImage(t)
	pin, dir := pinned(t, img)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	h, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(dir, "blobs/sha256", h.Hex)
	good, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	open := func() v1.Image {
		got, err := lock.Open(context.Background(), pin, []string{dir}, lock.RegistryOptions{Offline: true})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	// The operating system in gzip's header: what it unpacks to is the same.
	bad := bytes.Clone(good)
	bad[9] ^= 1
	if err := os.WriteFile(blob, bad, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := packagesOf(context.Background(), cache, pin, open()); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a damaged layer: %v", err)
	}
	if err := os.WriteFile(blob, good, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		list, err := packagesOf(context.Background(), cache, pin, open())
		if err != nil || len(list) != 1 || list[0].Name != "hello" || list[0].Version != "2.10-3" {
			t.Errorf("%+v %v", list, err)
		}
		if err := os.Remove(blob); err != nil && !os.IsNotExist(err) { // the second turn has the cache alone
			t.Fatal(err)
		}
	}
}
