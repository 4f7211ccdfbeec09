// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/holdfast/holdfast/compose/depot"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/images/chunk"
	"github.com/holdfast/holdfast/images/verity"
)

var signer = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		ok(t, err)
		return v
	}
}

// noise is n bytes that do not compress or repeat.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	mathrand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// squashfs is bytes that begin as one.
func squashfs(b []byte) []byte {
	b = bytes.Clone(b)
	copy(b, squashfsMagic)
	binary.LittleEndian.PutUint64(b[squashfsLength:], uint64(len(b)))
	return b
}

// made is a release as the vendor has it.
type made struct {
	dir    string // a layout
	digest string
	size   int64
	root   []byte // without tree
	uki    []byte
	desc   release.Description
	total  int64 // of all its blobs, each once
}

// parts of a release that a test makes.
type parts struct {
	version   string
	root, uki []byte
	boot      []byte
	images    map[string]v1.Image
	edit      func(*release.Description)
}

func make1(t testing.TB, p parts) made {
	t.Helper()
	work, err := os.MkdirTemp(shared, "")
	ok(t, err)
	file := func(name string, b []byte) string {
		path := filepath.Join(work, name)
		ok(t, os.WriteFile(path, b, 0o644))
		return path
	}
	index := func(b []byte) []byte {
		return must[chunk.Index](t)(chunk.Make(t.Context(), bytes.NewReader(b))).Encode()
	}
	salt := sha256.Sum256(p.root)
	var uuid [16]byte
	copy(uuid[:], salt[:])
	tree, err := os.Create(filepath.Join(work, "tree"))
	ok(t, err)
	defer tree.Close()
	hash := must[[32]byte](t)(verity.Format(t.Context(), bytes.NewReader(p.root), int64(len(p.root)), tree, 0, salt[:], uuid))
	d := release.Description{Name: "demo", Version: p.version, Created: 1, Engine: "docker-1",
		OS:     release.OS{Version: "13-" + hex.EncodeToString(salt[:6]), RootHash: hex.EncodeToString(hash[:])},
		Verity: &release.Verity{Salt: hex.EncodeToString(salt[:]), UUID: hex.EncodeToString(uuid[:]), Bytes: int64(len(p.root)) + verity.HashSize(int64(len(p.root)))}}
	if p.edit != nil {
		p.edit(&d)
	}
	if p.boot == nil {
		p.boot = noise(99, 50_000)
	}
	m := made{dir: filepath.Join(work, "release"), root: p.root, uki: p.uki}
	m.digest, err = release.WriteFull(t.Context(), m.dir, d, []byte("the stack of "+p.version), p.images, release.PartFiles{
		UKI: file("uki", p.uki), UKIChunks: file("uki.chunks", index(p.uki)), Root: file("root", p.root), RootChunks: file("root.chunks", index(p.root)),
		Boot: file("boot", p.boot), SBOM: file("sbom", []byte(`{"bom":"`+p.version+`"}`))}, signer())
	ok(t, err)
	st, err := os.Stat(blobIn(m.dir, m.digest))
	ok(t, err)
	m.size = st.Size()
	m.desc = must[release.Description](t)(described(m.dir, m.digest))
	entries, err := os.ReadDir(filepath.Join(m.dir, blobDir))
	ok(t, err)
	for _, e := range entries {
		st, err := e.Info()
		ok(t, err)
		m.total += st.Size()
	}
	return m
}

// image is an image of random layers, and those that are given.
func image(t testing.TB, size int64, shared ...v1.Layer) v1.Image {
	t.Helper()
	own := must[v1.Layer](t)(random.Layer(size, "application/vnd.oci.image.layer.v1.tar+gzip"))
	return must[v1.Image](t)(mutate.AppendLayers(empty.Image, append(shared, own)...))
}

// Two releases, the second of which changes a little of the root and of the
// kernel image and one of two images.
type pair struct{ old, new made }

const (
	rootSize = 2 << 20
	ukiSize  = 512 << 10
)

func newPair(t testing.TB) pair {
	t.Helper()
	base := must[v1.Layer](t)(random.Layer(400_000, "application/vnd.oci.image.layer.v1.tar+gzip"))
	db, web, web2 := image(t, 300_000, base), image(t, 200_000, base), image(t, 200_000, base)
	root, uki := noise(1, rootSize), noise(2, ukiSize)
	root2 := append(append(append(bytes.Clone(root[:700_000]), noise(3, 100_000)...), root[700_000:1_400_000]...), root[1_450_000:]...)
	root2 = append(root2, make([]byte, (4096-len(root2)%4096)%4096)...)
	uki2 := append(append(bytes.Clone(uki[:300_000]), noise(4, 5_000)...), uki[310_000:]...)
	return pair{
		old: make1(t, parts{version: "1.0.0", root: squashfs(root), uki: uki, images: map[string]v1.Image{"demo/db:1": db, "demo/web:1": web}}),
		new: make1(t, parts{version: "1.1.0", root: squashfs(root2), uki: uki2, images: map[string]v1.Image{"demo/db:1": db, "demo/web:2": web2}}),
	}
}

// box is a box's disks.
type box struct {
	t     testing.TB
	state string
	slots [2]string
}

const slotSize = rootSize + 2<<20

func newBox(t testing.TB, running *made) *box {
	t.Helper()
	dir := t.TempDir()
	b := &box{t: t, state: filepath.Join(dir, "state"), slots: [2]string{filepath.Join(dir, "root-a"), filepath.Join(dir, "root-b")}}
	ok(t, os.Mkdir(b.state, 0o755))
	for _, s := range b.slots {
		ok(t, errors.Join(os.WriteFile(s, nil, 0o600), os.Truncate(s, slotSize)))
	}
	if running != nil {
		f, err := os.OpenFile(b.slots[0], os.O_RDWR, 0)
		ok(t, err)
		_, err = f.WriteAt(running.root, 0)
		ok(t, errors.Join(err, f.Close()))
	}
	return b
}

// request is for a whole upgrade.
func (b *box) request(m made) Request {
	return Request{Ref: m.dir, Digest: m.digest, ManifestSize: m.size, State: b.state, Target: b.slots[1], Running: b.slots[0]}
}

// check wants all of a release to be there and right, and nothing unverified.
func (b *box) check(m made, res Result) {
	b.t.Helper()
	slot, err := os.Open(b.slots[1])
	ok(b.t, err)
	defer slot.Close()
	got := make([]byte, len(m.root))
	_, err = slot.ReadAt(got, 0)
	ok(b.t, err)
	if !bytes.Equal(got, m.root) {
		b.t.Error("the slot holds another root")
	}
	var hash [32]byte
	hex.Decode(hash[:], []byte(m.desc.OS.RootHash))
	if err := verity.Verify(b.t.Context(), slot, int64(len(m.root)), hash, nil); err != nil {
		b.t.Error(err)
	}
	uki, err := os.ReadFile(res.UKI)
	if err != nil || !bytes.Equal(uki, m.uki) {
		b.t.Errorf("the kernel image: %d bytes, %v", len(uki), err)
	}
	if _, err := os.Stat(res.Boot); err != nil {
		b.t.Error(err)
	}
	b.checkStack(m, res)
}

func (b *box) checkStack(m made, res Result) {
	b.t.Helper()
	rel, err := release.OpenInstalled(os.DirFS(res.Folder), m.digest)
	ok(b.t, err)
	if res.Name != "demo" || res.Version != m.desc.Version || res.RootHash != m.desc.OS.RootHash {
		b.t.Errorf("%+v", res)
	}
	for _, im := range m.desc.Images {
		if err := Images(b.state, rel).WriteImage(b.t.Context(), io.Discard, im.Digest, nil); err != nil {
			b.t.Error(err)
		}
	}
	ok(b.t, filepath.WalkDir(b.state, func(path string, _ os.DirEntry, err error) error {
		if filepath.Ext(path) == unverified {
			b.t.Errorf("left behind: %s", path)
		}
		return err
	}))
}

// tap is a depot that counts what it gives, and may do harm.
type tap struct {
	depot.Depot
	n atomic.Int64
	// harm, where set, is asked before each blob, and may change its bytes.
	// One at a time.
	harm func(digest string, offset, length int64) (func([]byte), error)
	mu   sync.Mutex
	// broken connections: each answer ends after so many bytes; 0 for none.
	broken int
	// after so many bytes cut is called, once.
	after int64
	cut   func()
}

func (p *tap) Blob(ctx context.Context, digest string, offset, length int64) (io.ReadCloser, error) {
	var change func([]byte)
	if p.harm != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		var err error
		if change, err = p.harm(digest, offset, length); err != nil {
			return nil, err
		}
	}
	b, err := p.Depot.Blob(ctx, digest, offset, length)
	if err != nil {
		return nil, err
	}
	return &tapped{b, p, ctx, change, p.broken}, nil
}

type tapped struct {
	io.ReadCloser
	p      *tap
	ctx    context.Context
	change func([]byte)
	left   int
}

func (b *tapped) Read(buf []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	if b.p.broken > 0 {
		if b.left == 0 {
			return 0, &depot.Transient{Err: errors.New("connection reset")}
		}
		buf = buf[:min(len(buf), b.left)]
		defer func() { b.left -= len(buf) }()
	}
	n, err := b.ReadCloser.Read(buf)
	if b.change != nil {
		b.change(buf[:n])
	}
	if at := b.p.n.Add(int64(n)); b.p.cut != nil && at >= b.p.after && at-int64(n) < b.p.after {
		b.p.cut()
	}
	return n, err
}

func tapOf(t testing.TB, dir string) *tap {
	t.Helper()
	d, err := depot.Open(t.Context(), dir, depot.Options{})
	ok(t, err)
	t.Cleanup(func() { d.Close() })
	return &tap{Depot: d}
}

func mb(n int64) string { return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20)) }
