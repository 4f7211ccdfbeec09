// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/compose/stack"
	"github.com/holdfast/holdfast/images/chunk"
	"github.com/holdfast/holdfast/images/sign"
	"github.com/holdfast/holdfast/images/verity"
)

func TestCheckUpgrade(t *testing.T) {
	good := Config{Version: "2.0.0", Epoch: 7, MinFrom: "1.0.0", UpdateSource: "https://updates.test/demo", UpdateChannel: "beta",
		GateDeadline: 10 * time.Minute, GateWindow: time.Minute}
	if err := good.CheckUpgrade(); err != nil {
		t.Error(err)
	}
	if err := (Config{Version: "1.0.0"}).CheckUpgrade(); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		want   string
		change func(*Config)
	}{
		{"epoch: -1 is not", func(c *Config) { c.Epoch = -1 }},
		{"epoch: 1000001 is not", func(c *Config) { c.Epoch = release.MaxEpoch + 1 }},
		{"min_from: \"v1\" is no version", func(c *Config) { c.MinFrom = "v1" }},
		{"min_from: 2.0.1 is newer than the release, 2.0.0", func(c *Config) { c.MinFrom = "2.0.1" }},
		{"update_source: ", func(c *Config) { c.UpdateSource = "https://a b" }},
		{"update_channel: ", func(c *Config) { c.UpdateChannel = "A" }},
		{"gate_deadline: 1.5s must be whole seconds", func(c *Config) { c.GateDeadline = 1500 * time.Millisecond }},
		{"gate_deadline: ", func(c *Config) { c.GateDeadline = 48 * time.Hour }},
		{"gate_window: -1s", func(c *Config) { c.GateWindow = -time.Second }},
		{"gate_window: it must be shorter", func(c *Config) { c.GateWindow = c.GateDeadline }},
	} {
		bad := good
		c.change(&bad)
		if err := bad.CheckUpgrade(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

func TestReadTrustRoot(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct{ data, want string }{
		"root.json":     {`{"signatures":[],"signed":{"_type":"root","version":1}}`, ""},
		"targets.json":  {`{"signed":{"_type":"targets"}}`, "is no TUF root metadata"},
		"release.crt":   {"-----BEGIN CERTIFICATE-----", "is no TUF root metadata"},
		"large.json":    {strings.Repeat(" ", maxTrustRoot+1), "has more than"},
		"not/there.pem": {"", "make one with `holdfast-release keys init`"},
	} {
		path := filepath.Join(dir, name)
		if c.data != "" {
			if err := os.WriteFile(path, []byte(c.data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		b, err := readTrustRoot(path)
		if c.want == "" && (err != nil || string(b) != c.data) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %q %v, want %q", name, b, err, c.want)
		}
	}
	if b, err := readTrustRoot(""); b != nil || err != nil {
		t.Errorf("%q %v", b, err)
	}
}

func TestEngineOf(t *testing.T) {
	set := lock.PackageSet{Packages: []lock.Package{{Name: "containerd", Version: "1.7.24~ds1-6"}, {Name: "docker.io", Version: "2:26.1.5+dfsg1-9"}}}
	got, err := engineOf(set)
	if err != nil || got != "docker.io-2_26.1.5+dfsg1-9_containerd-1.7.24~ds1-6" {
		t.Errorf("%q %v", got, err)
	}
	set.Packages = set.Packages[:1]
	if _, err := engineOf(set); err == nil || !strings.Contains(err.Error(), "names no package docker.io") {
		t.Errorf("%v", err)
	}
}

// releaseWork is what stepRelease needs, of a few small files.
func releaseWork(t *testing.T, version string) *work {
	t.Helper()
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	compose := file("compose.yaml", []byte("name: demo\nservices: {web: {image: holdfast.test/web:1, mem_limit: 64m, cpus: 0.25}}\n"))
	st, err := stack.Load(t.Context(), compose, stack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sizes, err := budget.Prove(st)
	if err != nil {
		t.Fatal(err)
	}
	key, cert := filepath.Join(dir, "key"), filepath.Join(dir, "crt")
	if err := sign.MakePair(key, cert, "test", time.Unix(1700000000, 0)); err != nil {
		t.Fatal(err)
	}
	img := debianImage(t)
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	size, err := img.Size()
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range append(m.Layers, m.Config) {
		size += l.Size
	}
	stackDigest, err := st.Digest()
	if err != nil {
		t.Fatal(err)
	}
	w := &work{cfg: Config{Name: "demo", Version: version, Cache: filepath.Join(dir, "cache"), Epoch: 2, MinFrom: "0.5.0", GateWindow: 30 * time.Second},
		stack: st, sizes: sizes, images: map[string]v1.Image{"holdfast.test/web:1": img}, tmp: filepath.Join(dir, "out"), engine: "docker.io-1_containerd-2",
		lock: &lock.Lock{Epoch: 1700000000, Stack: lock.StackPin{Digest: stackDigest},
			Images: []lock.Image{{Ref: "holdfast.test/web:1", Digest: digest.String(), Size: size}}}}
	if w.key, w.cert, err = sign.LoadPair(key, cert); err != nil {
		t.Fatal(err)
	}
	root := make([]byte, 40*4096)
	for i := range root {
		root[i] = byte(i * i >> 7)
	}
	if err := os.WriteFile(filepath.Join(dir, rootFile), root, 0o644); err != nil {
		t.Fatal(err)
	}
	if w.seal.meta, err = makeVerity(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	w.seal.image, w.seal.tree, w.seal.key = filepath.Join(dir, rootFile), filepath.Join(dir, treeFile), "seal"
	w.uki, w.bootloader, w.ukiKey = file("holdfast.efi", []byte("MZ uki")), file("systemd-boot.efi", []byte("MZ boot")), "uki"
	if err := os.Mkdir(w.tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.tmp, "sbom.cdx.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	return w
}

// TestStepRelease: the release has all a box needs to make the slot's bytes,
// and what the configuration says of upgrades.
func TestStepRelease(t *testing.T) {
	w := releaseWork(t, "1.0.0")
	if _, err := stepRelease(context.Background(), w); err != nil {
		t.Fatal(err)
	}
	r, err := release.OpenInstalled(os.DirFS(filepath.Join(w.tmp, ReleaseName)), w.release)
	if err != nil {
		t.Fatal(err)
	}
	d := r.Description()
	if d.Name != "demo" || d.Epoch != 2 || d.MinFrom != "0.5.0" || d.Engine != w.engine || d.Gate.Window != 30 || d.Factory != "" {
		t.Errorf("%+v", d)
	}
	q := d.Requirements
	if q.Memory < 64<<20 || q.Memory > 2<<30 || q.CPUs <= 0 || q.CPUs > 2000 || q.Images <= 0 {
		t.Errorf("requirements %+v", q)
	}
	// The tree that a box makes of the root is the one in the slot.
	root, err := os.Open(filepath.Join(w.tmp, ReleaseName, "blobs/sha256", strings.TrimPrefix(d.Parts.Root.Digest, "sha256:")))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	tree, err := os.Create(filepath.Join(t.TempDir(), "tree"))
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	salt, _ := hex.DecodeString(d.Verity.Salt)
	uuid, _ := hex.DecodeString(d.Verity.UUID)
	hash, err := verity.Format(t.Context(), root, d.Parts.Root.Size, tree, 0, salt, [16]byte(uuid))
	if err != nil || hex.EncodeToString(hash[:]) != d.OS.RootHash {
		t.Errorf("root hash %x, want %s, %v", hash, d.OS.RootHash, err)
	}
	a, err := os.ReadFile(tree.Name())
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(w.seal.tree)
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(a) != sha256.Sum256(b) || d.Verity.Bytes != d.Parts.Root.Size+int64(len(b)) {
		t.Errorf("another tree; verity of %d bytes for %d and %d", d.Verity.Bytes, d.Parts.Root.Size, len(b))
	}
	for _, p := range []struct{ chunks, of release.PartBlob }{{d.Parts.RootChunks, d.Parts.Root}, {d.Parts.UKIChunks, d.Parts.UKI}} {
		b, err := r.ReadPart(p.chunks)
		if err != nil {
			t.Fatal(err)
		}
		if x, err := chunk.Decode(b, release.MaxRoot); err != nil || x.Size != p.of.Size {
			t.Errorf("chunks of %d bytes, want %d, %v", x.Size, p.of.Size, err)
		}
	}

	// The factory's description is the same without the parts, and a seed has
	// no image in its release either.
	f, err := w.describe()
	if err != nil {
		t.Fatal(err)
	}
	if f.Parts != nil || f.Verity != nil || f.Engine != d.Engine || f.Epoch != d.Epoch || f.Gate != d.Gate {
		t.Errorf("%+v", f)
	}
	w.cfg.Factory = Seed
	if err := os.RemoveAll(filepath.Join(w.tmp, ReleaseName)); err != nil {
		t.Fatal(err)
	}
	if _, err := stepRelease(context.Background(), w); err != nil {
		t.Fatal(err)
	}
	if blobs, err := os.ReadDir(filepath.Join(w.tmp, ReleaseName, "blobs/sha256")); err != nil || len(blobs) != 9 {
		t.Errorf("a seed has %d blobs, %v", len(blobs), err)
	}
}

// TestRootKnowsNoRelease: what the root is made of follows from the OS, the
// keys and the engine, never from name, version or stack.
func TestRootKnowsNoRelease(t *testing.T) {
	list, err := overlay(OS{Files: os.DirFS(t.TempDir()), Supervisor: []byte("s")}, []byte("pem"), []byte("{}"), "docker.io-1_containerd-2")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if strings.Contains(string(e.data), "demo") {
			t.Errorf("%s holds %q", e.path, e.data)
		}
	}
}
