// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/holdfast/holdfast/appliance/engine/fake"
	"github.com/holdfast/holdfast/appliance/prepare"
	"github.com/holdfast/holdfast/appliance/slot/slottest"
	"github.com/holdfast/holdfast/appliance/upgrade"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/compose/stack"
	"github.com/holdfast/holdfast/compose/trust"
	"github.com/holdfast/holdfast/images/chunk"
	"github.com/holdfast/holdfast/images/verity"
)

// The test's program is also the child that prepares.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "upgrade-prepare" {
		if err := prepare.Main(context.Background(), os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// vendorFolder makes a folder with demo 1.0.1 as a vendor publishes it; sealed is
// the root of trust.
func vendorFolder(t *testing.T, expires time.Duration) (folder, sealed string) {
	t.Helper()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	work := t.TempDir()
	img, err := random.Image(50_000, 2)
	ok(err)
	digest, err := img.Digest()
	ok(err)
	ok(os.WriteFile(filepath.Join(work, "compose.yaml"), []byte("name: demo\nservices:\n  web:\n    image: x.test/web:2\n"), 0o644))
	st, err := stack.Load(t.Context(), work, stack.Options{Digests: map[string]string{"x.test/web:2": digest.String()}})
	ok(err)
	var tar bytes.Buffer
	ok(st.Tar(&tar))
	file := func(name string, b []byte) string {
		path := filepath.Join(work, name)
		ok(os.WriteFile(path, b, 0o644))
		return path
	}
	uki, root := bytes.Repeat([]byte("kernel"), 20_000), bytes.Repeat([]byte("system"), 40_000)
	root = root[:len(root)/4096*4096]
	index := func(b []byte) []byte {
		x, err := chunk.Make(t.Context(), bytes.NewReader(b))
		ok(err)
		return x.Encode()
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	ok(err)
	folder = filepath.Join(work, "published")
	d := release.Description{Name: "demo", Version: "1.0.1", Created: 1, Engine: "docker-1", OS: release.OS{Version: "os", RootHash: slottest.Hash},
		Verity: &release.Verity{Salt: strings.Repeat("ab", 32), UUID: strings.Repeat("12", 16), Bytes: int64(len(root)) + verity.HashSize(int64(len(root)))}}
	manifest, err := release.WriteFull(t.Context(), folder, d, tar.Bytes(), map[string]v1.Image{"x.test/web:2": img}, release.PartFiles{
		UKI: file("uki", uki), UKIChunks: file("uki.chunks", index(uki)), Root: file("root", root), RootChunks: file("root.chunks", index(root)),
		Boot: file("boot", []byte("loader")), SBOM: file("sbom", []byte("{}"))}, key)
	ok(err)
	size, err := os.Stat(filepath.Join(folder, "blobs/sha256", strings.TrimPrefix(manifest, "sha256:")))
	ok(err)

	r := &trust.Repository{Now: time.Now().Add(-expires)}
	ok(trust.Init(t.Context(), filepath.Join(work, "keys"), trust.DefaultKeys(), r))
	_, err = r.Offer(t.Context(), trust.Target{Name: "demo", Version: "1.0.1", Digest: manifest, Size: size.Size(), Channels: []string{"stable"}, Rollout: 100})
	ok(err)
	ok(r.Settle(t.Context()))
	files, err := r.Files()
	ok(err)
	ok(os.MkdirAll(filepath.Join(folder, "tuf"), 0o755))
	for _, f := range files {
		ok(os.WriteFile(filepath.Join(folder, "tuf", f.Name), f.Data, 0o644))
		if f.Name == "1.root.json" {
			sealed = file("root.json", f.Data)
		}
	}
	return folder, sealed
}

// bytesBox is a real box of which only the disks are imagined.
func bytesBox(t *testing.T, sealed string) (*upgradeBox, *Daemon) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o, c := world(t)
	_ = o
	twoCores(t, c.Root)
	c.State, c.Run = t.TempDir(), t.TempDir()
	c.Console = &lines{}
	c.Upgrades = &Upgrades{Root: sealed, Engine: "usr/lib/holdfast/engine", Program: program}
	slottest.Put(t, c.Root, "usr/lib/holdfast/engine", "docker-1\n")
	d := New(c)
	if err := d.identify(); err != nil {
		t.Fatal(err)
	}
	return newUpgradeBox(d).(*upgradeBox), d
}

// takes is an engine that has an image once it was given all of it.
type takes struct {
	*fake.Engine
	ref string
}

func (e *takes) LoadImage(_ context.Context, r io.Reader, _ time.Duration) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	e.AddImage(e.ref)
	return nil
}

// TestRealBytes takes a release of the stack alone from a folder to a stack
// that may run, with every byte verified on the way.
func TestRealBytes(t *testing.T) {
	folder, sealed := vendorFolder(t, 0)
	b, d := bytesBox(t, sealed)
	ctx := t.Context()
	list, expires, err := b.Targets(ctx, upgrade.Look{Ref: folder})
	if err != nil || len(list) != 1 || list[0].Version != "1.0.1" || expires.Before(time.Now()) {
		t.Fatalf("%+v, %s, %v", list, expires, err)
	}
	c, err := b.Describe(ctx, folder, list[0])
	if err != nil || c.Description.Parts == nil {
		t.Fatalf("%+v, %v", c, err)
	}
	pinned, err := stack.PinnedName("x.test/web:2", c.Description.Images[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	d.c.Engine = &takes{fake.New(), pinned}
	if no, err := b.CheckConfig(ctx, c); err != nil || len(no) > 0 {
		t.Fatalf("%+v, %v", no, err)
	}
	find := Installed{Digest: c.Digest, State: d.c.State, Root: sealed}
	if _, err := find.Find(ctx); err == nil {
		t.Fatal("it runs before it is there")
	}
	var steps []string
	p, err := b.Prepare(ctx, c, "", func(p upgrade.Progress) {
		if !slices.Contains(steps, p.Step) {
			steps = append(steps, p.Step)
		}
	})
	if err != nil || p.Fetched == 0 || len(steps) == 0 {
		t.Fatalf("%+v, %v, %v", p, steps, err)
	}
	found, err := find.Find(ctx)
	if err != nil || found.Release.Version != "1.0.1" || len(found.Images) != 1 || found.Stack.Services[0] != "web" {
		t.Fatalf("%+v, %v", found, err)
	}
	if ok, err := d.c.Engine.HasImage(ctx, found.Images[0].Pinned); err != nil || !ok {
		t.Errorf("the image was not loaded ahead: %v, %v", ok, err)
	}
	if desc, err := b.Installed(ctx, c.Digest); err != nil || desc.Version != "1.0.1" {
		t.Errorf("%+v, %v", desc, err)
	}
	// One flipped bit of what is on state, and nothing of it runs.
	path := filepath.Join(releaseDir(d.c.State, c.Digest), "blobs/sha256", strings.TrimPrefix(c.Description.Stack, "sha256:"))
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[100] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := find.Find(ctx); err == nil || conditionOf(err).Code != "release-damaged" {
		t.Errorf("damaged: %v", err)
	}
	// What the record does not name goes.
	rec, err := b.Record()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Free(ctx, rec, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(find.folder()); !os.IsNotExist(err) {
		t.Errorf("the release is still there: %v", err)
	}
}

// TestSourcesAreSorted: one that does not answer may be asked again, one that
// says what is not signed may not.
func TestSourcesAreSorted(t *testing.T) {
	folder, sealed := vendorFolder(t, 40*24*time.Hour)
	b, _ := bytesBox(t, sealed)
	ctx := t.Context()
	var away *upgrade.Unreachable
	if _, _, err := b.Targets(ctx, upgrade.Look{Ref: filepath.Join(folder, "nowhere")}); !errors.As(err, &away) {
		t.Errorf("nowhere: %v", err)
	}
	var no *upgrade.Refused
	if _, _, err := b.Targets(ctx, upgrade.Look{Ref: folder}); !errors.As(err, &no) || no.Code != upgrade.CodeTrust || !strings.Contains(no.Remedy, "--accept-expired") {
		t.Errorf("expired: %v", err)
	}
	list, _, err := b.Targets(ctx, upgrade.Look{Ref: folder, AcceptExpired: true})
	if err != nil || len(list) != 1 {
		t.Fatalf("accepted: %+v, %v", list, err)
	}
	manifest := filepath.Join(folder, "blobs/sha256", strings.TrimPrefix(list[0].Digest, "sha256:"))
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(manifest, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Describe(ctx, folder, list[0]); !errors.As(err, &no) || no.Code != upgrade.CodeTrust {
		t.Errorf("a flipped bit: %v", err)
	}
	_, others := vendorFolder(t, 0)
	b, _ = bytesBox(t, others)
	if _, _, err := b.Targets(ctx, upgrade.Look{Ref: folder, AcceptExpired: true}); !errors.As(err, &no) || no.Code != upgrade.CodeTrust {
		t.Errorf("another vendor's: %v", err)
	}
}
