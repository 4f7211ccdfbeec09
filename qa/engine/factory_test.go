// SPDX-License-Identifier: Apache-2.0

//go:build engine

package engine

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/compose/stack"
	"github.com/holdfast/holdfast/qa/dockerd"
)

// factoryStack uses two references; each test's images are its own, so that
// no test finds them in the engine.
const factoryStack = `
services:
  db:
    image: holdfast.test/db:1.0.0
    command: [serve]
    healthcheck: {test: [CMD, /standin, check], interval: 1s, start_period: 10s, start_interval: 200ms}
  web:
    image: registry.example:5000/shop/web:1.0.0
    command: [serve, --need, /etc/web.conf]
    volumes: ["./web.conf:/etc/web.conf:ro"]
    depends_on: {db: {condition: service_healthy}}
`

// factory makes a release with its images and points the box at it.
func (b *box) factory() (dir string, images map[string]v1.Image) {
	b.t.Helper()
	return b.release(factoryStack, "", "holdfast.test/db:1.0.0", "registry.example:5000/shop/web:1.0.0")
}

// release makes a signed release of images as the bake does, with them or as a
// seed, and points the box at it.
func (b *box) release(yaml, factory string, refs ...string) (dir string, images map[string]v1.Image) {
	b.t.Helper()
	b.stack(yaml)
	b.write("web.conf", "x = 1\n")
	images = map[string]v1.Image{}
	digests := map[string]string{}
	for _, ref := range refs {
		img, err := dockerd.StandinImage(filepath.Join(base, "standin"), b.t.Name()+ref)
		if err != nil {
			b.t.Fatal(err)
		}
		h, err := img.Digest()
		if err != nil {
			b.t.Fatal(err)
		}
		images[ref], digests[ref] = img, h.String()
	}
	st, err := stack.Load(b.t.Context(), filepath.Join(b.dir, "stack"), stack.Options{Digests: digests})
	if err != nil {
		b.t.Fatal(err)
	}
	var tar bytes.Buffer
	if err := st.Tar(&tar); err != nil {
		b.t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.t.Fatal(err)
	}
	dir = filepath.Join(b.dir, "factory")
	d := release.Description{Name: b.project, Version: "1.0.0", Created: 1, Factory: factory, OS: release.OS{Version: "os-1", RootHash: strings.Repeat("0", 64)}}
	if err := release.Write(b.t.Context(), dir, d, tar.Bytes(), images, key); err != nil {
		b.t.Fatal(err)
	}
	trust := filepath.Join(b.dir, "trust")
	if err := os.MkdirAll(trust, 0o755); err != nil {
		b.t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(trust, "a.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		b.t.Fatal(err)
	}
	b.args = []string{"--factory", dir, "--trust", trust}
	return dir, images
}

// flip changes one byte in the middle of a file.
func flip(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	if _, err := f.ReadAt(one, st.Size()/2); err != nil {
		t.Fatal(err)
	}
	one[0] ^= 1
	if _, err := f.WriteAt(one, st.Size()/2); err != nil {
		t.Fatal(err)
	}
}

func TestFactoryBoots(t *testing.T) {
	b := newBox(t)
	_, images := b.factory()
	b.start()
	r := b.healthy()
	if r.Release != (status.Release{Name: "factoryboots", Version: "1.0.0", OS: "os-1"}) {
		t.Errorf("release %+v", r.Release)
	}
	if r.Timings.ImagesLoaded <= 0 || r.Timings.StackHealthy < r.Timings.ImagesLoaded || r.Timings.ImagesLoaded < r.Timings.DaemonStarted {
		t.Errorf("timings %+v", r.Timings)
	}
	for ref, img := range images {
		h, _ := img.Digest()
		name := ref[:strings.LastIndex(ref, ":")]
		b.docker("image", "inspect", name+"@"+h.String())
		if got := b.docker("image", "inspect", "--format", "{{.Id}}", ref); got != h.String() {
			t.Errorf("%s is %s in the engine, want %s", ref, got, h)
		}
	}
	b.said("holdfast: loaded ", 2)
	if n := strings.Count(b.out.String(), "holdfast: loaded "); n != 2 {
		t.Errorf("%d images were loaded, want 2:\n%s", n, b.out.String())
	}
	before := b.containers()
	b.signal(syscall.SIGKILL)
	b.start()
	again := b.healthy()
	if n := strings.Count(b.out.String(), "holdfast: loaded "); n != 2 {
		t.Errorf("images were loaded again:\n%s", b.out.String())
	}
	if again.Timings != r.Timings {
		t.Errorf("the timings of the boot went from %+v to %+v", r.Timings, again.Timings)
	}
	for name, c := range b.containers() {
		if c.ID != before[name].ID || !c.Started.Equal(before[name].Started) {
			t.Errorf("%s was touched", name)
		}
	}
}

func TestFactoryCorruptImage(t *testing.T) {
	b := newBox(t)
	dir, images := b.factory()
	layers, err := images["registry.example:5000/shop/web:1.0.0"].Layers()
	if err != nil {
		t.Fatal(err)
	}
	h, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(dir, "blobs/sha256", h.Hex)
	flip(t, blob)
	b.start()
	r := b.await("a held stack", func(r status.Report) bool { return r.Stack == "held" })
	if len(r.Conditions) != 1 || r.Conditions[0].Code != "factory-image-corrupt" ||
		!strings.Contains(r.Conditions[0].Text, "registry.example:5000/shop/web:1.0.0") {
		t.Errorf("conditions %+v", r.Conditions)
	}
	b.said("registry.example:5000/shop/web:1.0.0 on the factory partition is damaged", 1)
	if c := b.containers(); len(c) != 0 {
		t.Errorf("%d containers were made of a stack with a corrupt image", len(c))
	}
	m, _ := images["registry.example:5000/shop/web:1.0.0"].Digest()
	if ok, err := b.cli.HasImage(t.Context(), "registry.example:5000/shop/web@"+m.String()); ok || err != nil {
		t.Errorf("the corrupt image is in the engine: %v %v", ok, err)
	}
	b.signal(syscall.SIGTERM)
	flip(t, blob)
	b.start()
	b.healthy()
}

func TestFactoryUntrusted(t *testing.T) {
	b := newBox(t)
	dir, _ := b.factory()
	flip(t, filepath.Join(dir, release.SignatureFile))
	b.start()
	r := b.await("a held stack", func(r status.Report) bool { return r.Stack == "held" })
	if len(r.Conditions) != 1 || r.Conditions[0].Code != "factory-release-untrusted" {
		t.Errorf("conditions %+v", r.Conditions)
	}
	if c := b.containers(); len(c) != 0 {
		t.Errorf("%d containers were made", len(c))
	}
}

// TestBrokenFactoryAfterFirstBoot: a box whose images are loaded starts from
// the release it kept, and says what is wrong.
func TestBrokenFactoryAfterFirstBoot(t *testing.T) {
	b := newBox(t)
	dir, _ := b.factory()
	b.start()
	b.healthy()
	b.signal(syscall.SIGTERM)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	b.start()
	r := b.healthy()
	if c := notable(r); len(c) != 1 || c[0].Code != "factory-missing" || c[0].Severity != "warning" {
		t.Errorf("conditions %+v", r.Conditions)
	}
}

func TestTamperedStackFolderIsReplaced(t *testing.T) {
	b := newBox(t)
	b.factory()
	b.start()
	b.healthy()
	b.signal(syscall.SIGTERM)
	confs, err := filepath.Glob(filepath.Join(b.dir, "state/stacks/*/web.conf"))
	if err != nil || len(confs) != 1 {
		t.Fatal(confs, err)
	}
	if err := os.WriteFile(confs[0], []byte("x = 2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.healthy()
	if got := readFile(t, confs[0]); got != "x = 1\n" {
		t.Errorf("the stack folder has %q, want what was signed", got)
	}
}
