// SPDX-License-Identifier: Apache-2.0

package release

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// full is the description of a release that boxes upgrade to, without what
// WriteFull fills in.
func full() Description {
	d := description
	d.Verity = &Verity{Salt: strings.Repeat("ab", 32), UUID: strings.Repeat("c", 32), Bytes: 5 * 4096}
	d.Epoch, d.MinFrom, d.Engine = 3, "0.9.0", "docker.io-26.1.5+dfsg1-9_containerd-1.7.24~ds1-6"
	d.Requirements = Requirements{Memory: 1 << 30, CPUs: 500, Data: 1 << 30, Images: 1 << 20}
	d.Gate, d.Update = Gate{Deadline: 600, Window: 20}, Update{Source: "oci://updates.test/demo", Channel: "stable"}
	return d
}

// partFiles are files in the place of the parts.
func partFiles(t testing.TB) PartFiles {
	t.Helper()
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return PartFiles{UKI: file("uki", []byte("MZ uki")), UKIChunks: file("ukichunks", []byte("chunks of the uki")),
		Root: file("root", bytes.Repeat([]byte("root"), 4096)), RootChunks: file("rootchunks", []byte("chunks of the root")),
		Boot: file("boot", []byte("MZ boot")), SBOM: file("sbom", []byte("{}"))}
}

func writtenFull(t testing.TB, images map[string]v1.Image, files PartFiles) (dir, digest string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "release")
	digest, err := WriteFull(context.Background(), dir, full(), stackTar, images, files, keys()[0])
	if err != nil {
		t.Fatal(err)
	}
	return dir, digest
}

func TestWriteFull(t *testing.T) {
	imgs, files := images(t), partFiles(t)
	dir, digest := writtenFull(t, imgs, files)
	r, err := Open(os.DirFS(dir), []*x509.Certificate{certificate(t, keys()[0])})
	if err != nil {
		t.Fatal(err)
	}
	if r.Digest() != digest {
		t.Errorf("the manifest is %s, WriteFull said %s", r.Digest(), digest)
	}
	good := content(t, dir)
	d := r.Description()
	for i, path := range []string{files.UKI, files.UKIChunks, files.Root, files.RootChunks, files.Boot, files.SBOM} {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		l := d.Parts.layers()[i]
		if got := good[blobPath(l.Digest)]; got != string(want) || l.Size != int64(len(want)) {
			t.Errorf("%s is %q, want %q", l.name, got, want)
		}
		if got, err := r.ReadPart(l.PartBlob); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %q %v", l.name, got, err)
		}
	}
	_, layers, err := ParseManifest([]byte(good[blobPath(digest)]))
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, l := range layers {
		types = append(types, l.Type)
	}
	if want := []string{StackType, UKIType, ChunksType, RootType, ChunksType, BootType, SBOMType}; !slices.Equal(types, want) {
		t.Errorf("layers %v, want %v", types, want)
	}

	// Links and kept layers make the same folder, and the second time as well.
	files.Link, files.Keep = true, t.TempDir()
	for range 2 {
		linked, _ := writtenFull(t, imgs, files)
		if !maps.Equal(content(t, linked), good) {
			t.Error("another release with links")
		}
		one, err := os.Stat(filepath.Join(linked, blobPath(d.Parts.Root.Digest)))
		if err != nil {
			t.Fatal(err)
		}
		two, err := os.Stat(files.Root)
		if err != nil {
			t.Fatal(err)
		}
		if !os.SameFile(one, two) {
			t.Error("the root is no link")
		}
	}
	kept, err := os.ReadDir(files.Keep)
	if err != nil || len(kept) != 7 {
		t.Fatalf("%d layers are kept, %v", len(kept), err)
	}
	// What was damaged there is made anew.
	path := filepath.Join(files.Keep, kept[0].Name())
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if linked, _ := writtenFull(t, imgs, files); !maps.Equal(content(t, linked), good) {
		t.Error("another release after a kept layer was damaged")
	}

	// Other tools read it too.
	if _, err := layout.ImageIndexFromPath(dir); err != nil {
		t.Error(err)
	}
}

func TestWriteFullRefuses(t *testing.T) {
	for _, c := range []struct {
		name, want string
		change     func(*Description, *PartFiles)
	}{
		{"no engine", "engine: a release that boxes upgrade to names it", func(d *Description, _ *PartFiles) { d.Engine = "" }},
		{"engine as a path", "engine: \"../x\"", func(d *Description, _ *PartFiles) { d.Engine = "../x" }},
		{"engine with dots", "engine: \"a..b\"", func(d *Description, _ *PartFiles) { d.Engine = "a..b" }},
		{"no verity", "verity: it goes with parts", func(d *Description, _ *PartFiles) { d.Verity = nil }},
		{"salt", "verity.salt", func(d *Description, _ *PartFiles) { d.Verity.Salt = "xy" }},
		{"long salt", "verity.salt", func(d *Description, _ *PartFiles) { d.Verity.Salt = strings.Repeat("00", 257) }},
		{"uuid", "verity.uuid", func(d *Description, _ *PartFiles) { d.Verity.UUID = "abc" }},
		{"no tree", "verity.bytes", func(d *Description, _ *PartFiles) { d.Verity.Bytes = 4 * 4096 }},
		{"large tree", "verity.bytes", func(d *Description, _ *PartFiles) { d.Verity.Bytes = 1 << 30 }},
		{"half a block", "verity.bytes", func(d *Description, _ *PartFiles) { d.Verity.Bytes += 2 }},
		{"epoch", "epoch: -1", func(d *Description, _ *PartFiles) { d.Epoch = -1 }},
		{"high epoch", "epoch: 1000001", func(d *Description, _ *PartFiles) { d.Epoch = MaxEpoch + 1 }},
		{"min_from", "min_from: \"1\"", func(d *Description, _ *PartFiles) { d.MinFrom = "1" }},
		{"min_from newer", "no box could ever take it", func(d *Description, _ *PartFiles) { d.MinFrom = "1.0.1" }},
		{"requirements", "requirements", func(d *Description, _ *PartFiles) { d.Requirements.Data = -1 }},
		{"requirements without end", "requirements", func(d *Description, _ *PartFiles) { d.Requirements.Memory = 1 << 60 }},
		{"deadline", "gate.deadline", func(d *Description, _ *PartFiles) { d.Gate.Deadline = MaxDeadline + 1 }},
		{"window", "gate.window: -1", func(d *Description, _ *PartFiles) { d.Gate.Window = -1 }},
		{"window as long as the deadline", "no shorter than the deadline of 900", func(d *Description, _ *PartFiles) { d.Gate = Gate{Window: 900} }},
		{"source", "update.source", func(d *Description, _ *PartFiles) { d.Update.Source = "a b" }},
		{"channel", "update.channel", func(d *Description, _ *PartFiles) { d.Update.Channel = "Stable" }},
		{"no root", "parts.root: ", func(_ *Description, f *PartFiles) { f.Root += "x" }},
		{"root of half a block", "parts.root: 6 bytes are no whole", func(_ *Description, f *PartFiles) { f.Root = f.UKI }},
		{"other uki", "parts.uki is sha256:", func(d *Description, _ *PartFiles) { d.Parts = &Parts{UKI: PartBlob{description.Stack, 1}} }},
	} {
		d, files := full(), partFiles(t)
		c.change(&d, &files)
		if _, err := WriteFull(context.Background(), filepath.Join(t.TempDir(), "x"), d, stackTar, nil, files, keys()[0]); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	empty := partFiles(t)
	if err := os.Truncate(empty.Boot, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := WriteFull(context.Background(), filepath.Join(t.TempDir(), "x"), full(), stackTar, nil, empty, keys()[0]); err == nil || !strings.Contains(err.Error(), "parts.boot") {
		t.Errorf("%v", err)
	}
	if err := os.Truncate(empty.Boot, MaxBoot+1); err != nil {
		t.Fatal(err)
	}
	if _, err := WriteFull(context.Background(), filepath.Join(t.TempDir(), "x"), full(), stackTar, nil, empty, keys()[0]); err == nil || !strings.Contains(err.Error(), "parts.boot") {
		t.Errorf("%v", err)
	}
	d := full()
	d.Parts = &Parts{}
	if err := Write(context.Background(), filepath.Join(t.TempDir(), "x"), d, stackTar, nil, keys()[0]); err == nil || !strings.Contains(err.Error(), "described and not given") {
		t.Errorf("%v", err)
	}
}

// TestOpenInstalled: by its digest a release opens without index, signature and
// large parts, and nothing that differs from it in one bit does.
func TestOpenInstalled(t *testing.T) {
	dir, digest := writtenFull(t, images(t), partFiles(t))
	good := content(t, dir)
	r, err := OpenInstalled(os.DirFS(dir), digest)
	if err != nil {
		t.Fatal(err)
	}
	d := r.Description()
	fsys := mapFS(good)
	for _, name := range []string{"index.json", SignatureFile, blobPath(d.Parts.UKI.Digest), blobPath(d.Parts.Root.Digest)} {
		delete(fsys, name)
	}
	if _, err := OpenInstalled(fsys, digest); err != nil {
		t.Error(err)
	}
	config, _, err := ParseManifest([]byte(good[blobPath(digest)]))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"oci-layout": "oci-layout", blobPath(digest): "release manifest: blob " + digest + " is damaged",
		blobPath(config.Digest): "release description: blob", blobPath(d.Stack): "stack layer: blob"} {
		for at := range good[name] {
			if at > 200 && at < len(good[name])-50 && at%101 != 0 {
				continue
			}
			fsys := mapFS(good)
			fsys[name].Data[at] ^= 1 << (at % 8)
			if _, err := OpenInstalled(fsys, digest); err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("%s with a bit of byte %d flipped: %v, want %q", name, at, err, want)
			}
		}
	}
	for _, bad := range []string{"", "sha256:abc", "../../etc/passwd", "sha512:" + strings.Repeat("a", 64)} {
		if _, err := OpenInstalled(os.DirFS(dir), bad); err == nil || !strings.Contains(err.Error(), "is no digest") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := OpenInstalled(os.DirFS(dir), "sha256:"+strings.Repeat("a", 64)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	fsys = mapFS(good)
	fsys[blobPath(d.Parts.Boot.Digest)].Data[2] ^= 1
	r, err = OpenInstalled(fsys, digest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadPart(d.Parts.Boot); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("%v", err)
	}
	if _, err := r.ReadPart(PartBlob{d.Parts.Boot.Digest, MaxSBOM + 1}); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("%v", err)
	}
}

// TestMatches: a manifest of one release with the parts of another is refused.
func TestMatches(t *testing.T) {
	dir, digest := writtenFull(t, nil, partFiles(t))
	r, err := OpenInstalled(os.DirFS(dir), digest)
	if err != nil {
		t.Fatal(err)
	}
	d := r.Description()
	_, good, err := ParseManifest([]byte(content(t, dir)[blobPath(digest)]))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		change     func(l []Layer) []Layer
	}{
		{"none", "the stack is", func([]Layer) []Layer { return nil }},
		{"other stack", "the stack is", func(l []Layer) []Layer { l[0].Digest = l[1].Digest; return l }},
		{"a part less", "6 parts, the manifest has 5", func(l []Layer) []Layer { return l[:6] }},
		{"other uki", "parts.uki is", func(l []Layer) []Layer { l[1].Digest = l[3].Digest; return l }},
		{"other size", "parts.root is", func(l []Layer) []Layer { l[3].Size++; return l }},
		{"other type", "parts.boot is", func(l []Layer) []Layer { l[5].Type = UKIType; return l }},
		{"swapped", "parts.uki is", func(l []Layer) []Layer { l[1], l[3] = l[3], l[1]; return l }},
		{"a second uki", "a layer of type " + UKIType + " too many", func(l []Layer) []Layer { return append(l, l[1]) }},
		{"something new", "", func(l []Layer) []Layer { return append(l, Layer{Type: "application/x", PartBlob: l[0].PartBlob}) }},
	} {
		err := d.Matches(c.change(slices.Clone(good)))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	// A factory has no parts, and none hide behind it.
	d.Parts = nil
	if err := d.Matches(good); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("%v", err)
	}
}

// FuzzManifest: what a depot serves as manifest and description is an error or
// a release that holds together; nothing panics.
func FuzzManifest(f *testing.F) {
	dir, digest := writtenFull(f, nil, partFiles(f))
	good := content(f, dir)
	config, _, err := ParseManifest([]byte(good[blobPath(digest)]))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(good[blobPath(digest)]), []byte(good[blobPath(config.Digest)]))
	f.Fuzz(func(t *testing.T, manifest, description []byte) {
		_, layers, err := ParseManifest(manifest)
		if err != nil {
			return
		}
		d, err := ParseDescription(description)
		if err != nil || d.Matches(layers) != nil {
			return
		}
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseDescription(b); err != nil || again.Matches(layers) != nil {
			t.Fatalf("%+v is refused once written, %v", d, err)
		}
		fsys := fstest.MapFS{"oci-layout": {Data: layoutFile}, blobPath(v1Hash(manifest).String()): {Data: manifest}}
		if _, err := OpenInstalled(fsys, v1Hash(manifest).String()); err == nil {
			t.Fatal("opened without a description")
		}
	})
}
