// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/holdfast/holdfast/appliance/prepare"
	"github.com/holdfast/holdfast/compose/depot"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/compose/trust"
	"github.com/holdfast/holdfast/images/chunk"
	"github.com/holdfast/holdfast/images/verity"
)

// start is the time of signing.
var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// soak asks for every row.
var soak = os.Getenv("HOLDFAST_SOAK") != ""

var signer = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// vendor is a vendor: its keys and what it has published so far.
type vendor struct {
	repo   *trust.Repository
	sealed []byte
	// depot is the published folder.
	depot string
}

func newVendor(t testing.TB) *vendor {
	t.Helper()
	v := &vendor{repo: &trust.Repository{Now: start}, depot: t.TempDir()}
	keys := filepath.Join(t.TempDir(), "keys")
	if err := trust.Init(t.Context(), keys, trust.DefaultKeys(), v.repo); err != nil {
		t.Fatal(err)
	}
	files, err := v.repo.Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name == "1.root.json" {
			v.sealed = f.Data
		}
	}
	return v
}

// content is n bytes that follow from a seed.
func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := mrand.New(mrand.NewPCG(seed, 7))
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b
}

const (
	rootSize = 256 << 10
	slotSize = 1 << 20
)

// root is a root image: most of it the same in every version.
func root(seed uint64) []byte {
	b := content(1, rootSize)
	copy(b[rootSize/2:], content(seed, 32<<10))
	copy(b, "hsqs")
	binary.LittleEndian.PutUint64(b[40:], rootSize)
	return b
}

// sealRoot writes a root with its hash tree into a slot file.
func sealRoot(t testing.TB, path string, data []byte) (hash [32]byte, end int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	size := int64(len(data))
	if hash, err = verity.Format(t.Context(), f, size, f, size, salt, uuid); err != nil {
		t.Fatal(err)
	}
	return hash, size + verity.HashSize(size)
}

var (
	salt = bytes.Repeat([]byte{5}, 32)
	uuid = [16]byte{1, 2, 3}
)

// publish makes and signs a release and puts it into the depot; its content
// follows from seed. It returns the manifest's digest.
func (v *vendor) publish(t testing.TB, version string, seed uint64) string {
	t.Helper()
	digest := v.put(t, v.depot, version, seed)
	info, err := os.Stat(filepath.Join(v.depot, "blobs/sha256", strings.TrimPrefix(digest, "sha256:")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.repo.Offer(t.Context(), trust.Target{Name: "demo", Version: version, Digest: digest, Size: info.Size(), Epoch: 1, Channels: []string{"stable"}, Rollout: 100}); err != nil {
		t.Fatal(err)
	}
	v.settle(t)
	return digest
}

// settle signs what is stale and publishes the metadata.
func (v *vendor) settle(t testing.TB) {
	t.Helper()
	if err := v.repo.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, err := v.repo.Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		write(t, filepath.Join(v.depot, "tuf", f.Name), f.Data)
	}
}

// put writes a release's layout into a folder, unsigned by TUF.
func (v *vendor) put(t testing.TB, dir, version string, seed uint64) string {
	t.Helper()
	tmp := t.TempDir()
	file := func(name string, data []byte) string {
		write(t, filepath.Join(tmp, name), data)
		return filepath.Join(tmp, name)
	}
	index := func(data []byte) []byte {
		x, err := chunk.Make(context.Background(), bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		return x.Encode()
	}
	rootData, uki := root(seed), content(seed+1000, 64<<10)
	hash, end := sealRoot(t, filepath.Join(tmp, "sealed"), rootData)
	img, err := random.Image(20000, 2)
	if err != nil {
		t.Fatal(err)
	}
	d := release.Description{
		Name: "demo", Version: version, Created: start.Unix(), Epoch: 1, Engine: "docker-1",
		OS:     release.OS{Version: "13-abc", RootHash: hex.EncodeToString(hash[:])},
		Verity: &release.Verity{Salt: hex.EncodeToString(salt), UUID: hex.EncodeToString(uuid[:]), Bytes: end},
	}
	parts := release.PartFiles{
		UKI: file("uki", uki), UKIChunks: file("uki.chunks", index(uki)), Root: file("root", rootData), RootChunks: file("root.chunks", index(rootData)),
		Boot: file("boot", content(seed+2000, 8<<10)), SBOM: file("sbom", []byte(`{"bomFormat":"CycloneDX"}`)),
	}
	layout := filepath.Join(tmp, "layout")
	digest, err := release.WriteFull(t.Context(), layout, d, []byte(fmt.Sprint("stack of ", version, seed)), map[string]v1.Image{"holdfast.demo/web:" + version: img}, parts, signer())
	if err != nil {
		t.Fatal(err)
	}
	copyInto(t, layout, dir)
	return digest
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// copyInto copies a folder over another.
func copyInto(t testing.TB, from, to string) {
	t.Helper()
	for name, data := range files(t, from) {
		write(t, filepath.Join(to, name), data)
	}
}

// files are the plain files below a folder, by their path in it.
func files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		all[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// bundle packs a depot as a file for air gaps.
func (v *vendor) bundle(t testing.TB) []byte {
	t.Helper()
	all := map[string][]byte{}
	for name, data := range files(t, v.depot) {
		if !strings.HasPrefix(name, "tuf/") {
			all[name] = data
		}
	}
	meta, err := v.repo.BundleFiles()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range meta {
		all["tuf/"+f.Name] = f.Data
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(all[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(all[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// box is a folder that stands for one: slot A runs a root, slot B is free.
type box struct {
	dir    string
	sealed []byte
	now    time.Time
	// deadline ends the tries of a fetch.
	deadline time.Duration
}

func newBox(t testing.TB, v *vendor) *box {
	t.Helper()
	b := &box{dir: t.TempDir(), sealed: v.sealed, now: start.Add(time.Hour), deadline: time.Second}
	for _, slot := range []string{"a", "b"} {
		path := filepath.Join(b.dir, "slot-"+slot)
		if slot == "a" {
			sealRoot(t, path, root(0))
		} else {
			write(t, path, nil)
		}
		if err := os.Truncate(path, slotSize); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(b.dir, "state/generation.json.1"), []byte("the record"))
	write(t, filepath.Join(b.dir, "state/upgrade/prepare.lock"), nil)
	return b
}

// take is what an upgrade does up to arming: look, choose, bring.
func (b *box) take(ctx context.Context, ref, version string) error {
	d, err := depot.Open(ctx, ref, depot.Options{})
	if err != nil {
		return err
	}
	defer d.Close()
	store, err := trust.Open(filepath.Join(b.dir, "state/trust"), b.sealed)
	if err != nil {
		return err
	}
	targets, err := store.Refresh(ctx, d, trust.Options{Now: b.now, Offline: d.Offline()})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(targets, func(t trust.Target) bool { return t.Version == version })
	if i < 0 {
		return fmt.Errorf("%s offers no %s", d, version)
	}
	_, err = prepare.Run(ctx, prepare.Request{
		Ref: ref, Digest: targets[i].Digest, ManifestSize: targets[i].Size, State: filepath.Join(b.dir, "state"),
		Target: filepath.Join(b.dir, "slot-b"), Running: filepath.Join(b.dir, "slot-a"), Deadline: time.Now().Add(b.deadline),
	}, func(prepare.Progress) {})
	return err
}

// unchanged fails unless the box is as it was, besides what lies under an
// unverified name, is what its digest says, or is slot B without a root.
func (b *box) unchanged(t testing.TB, before map[string][]byte, trustToo bool) {
	t.Helper()
	after := files(t, b.dir)
	for name, data := range before {
		if name == "slot-b" || !trustToo && strings.HasPrefix(name, "state/trust/") {
			continue
		}
		if got, ok := after[name]; !ok || !bytes.Equal(got, data) {
			t.Errorf("a refused release changed %s", name)
		}
	}
	for name, data := range after {
		if _, was := before[name]; was || strings.Contains(name, ".unverified") || !trustToo && strings.HasPrefix(name, "state/trust/") {
			continue
		}
		sum := sha256.Sum256(data)
		if dir, base := filepath.Split(name); strings.HasSuffix(dir, "blobs/sha256/") && base == hex.EncodeToString(sum[:]) {
			continue
		}
		// Kernel image and loader are verified as wholes before they get
		// their names, and nothing names the folder before it is complete.
		if base := filepath.Base(name); base == prepare.UKIFile || base == prepare.BootFile || base == "oci-layout" {
			continue
		}
		t.Errorf("a refused release left %s", name)
	}
}

// sentence fails unless an error is one that a person can read.
func sentence(t testing.TB, what string, err error) {
	t.Helper()
	text := err.Error()
	if strings.Contains(text, "\n") || len(text) < 15 || len(text) > 600 {
		t.Errorf("%s: %q is no sentence", what, text)
	}
}

// refused wants a refusal that says one of the words and changes nothing.
func (b *box) refused(t *testing.T, what, ref, version string, trustToo bool, words ...string) {
	t.Helper()
	before := files(t, b.dir)
	err := b.take(t.Context(), ref, version)
	if err == nil {
		t.Errorf("%s: it was taken", what)
		return
	}
	sentence(t, what, err)
	if len(words) > 0 && !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(err.Error(), w) }) {
		t.Errorf("%s: %q names none of %q", what, err, words)
	}
	b.unchanged(t, before, trustToo)
}
