// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/holdfast/holdfast/compose/release"
)

// bundleOf packs a layout.
func bundleOf(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.bundle")
	f, err := os.Create(path)
	ok(t, err)
	defer f.Close()
	w := tar.NewWriter(f)
	ok(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	}))
	ok(t, w.Close())
	return path
}

// registryOf pushes a layout: what looks like a manifest as one, the rest as
// blobs.
func registryOf(t testing.TB, m made) string {
	t.Helper()
	srv := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	send := func(method, path, kind string, data []byte) {
		q, err := http.NewRequest(method, srv.URL+"/v2/demo/"+path, bytes.NewReader(data))
		ok(t, err)
		q.Header.Set("Content-Type", kind)
		resp, err := http.DefaultClient.Do(q)
		ok(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("%s: %s", path, resp.Status)
		}
	}
	manifests := map[string]string{m.digest: "application/vnd.oci.image.manifest.v1+json"}
	for _, im := range m.desc.Images {
		manifests[im.Digest] = im.MediaType
	}
	entries, err := os.ReadDir(filepath.Join(m.dir, blobDir))
	ok(t, err)
	for _, last := range []bool{false, true} {
		for _, e := range entries {
			digest := "sha256:" + e.Name()
			data, err := os.ReadFile(blobIn(m.dir, digest))
			ok(t, err)
			switch kind := manifests[digest]; {
			case kind == "" && !last:
				send("POST", "blobs/uploads/?digest="+digest, "application/octet-stream", data)
			case kind != "" && last:
				send("PUT", "manifests/"+digest, kind, data)
			}
		}
	}
	return "oci://" + strings.TrimPrefix(srv.URL, "http://") + "/demo"
}

// TestPlaces: an upgrade from each kind of place.
func TestPlaces(t *testing.T) {
	p := makePair(t)
	web := httptest.NewServer(http.FileServer(http.Dir(p.new.dir)))
	defer web.Close()
	whole := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		q.Header.Del("Range")
		http.FileServer(http.Dir(p.new.dir)).ServeHTTP(w, q)
	}))
	defer whole.Close()
	stick := t.TempDir()
	ok(t, os.MkdirAll(filepath.Join(stick, "holdfast"), 0o755))
	ok(t, os.CopyFS(filepath.Join(stick, "holdfast"), os.DirFS(p.new.dir)))
	ok(t, os.Mkdir(filepath.Join(stick, "holdfast", "tuf"), 0o755))
	for name, ref := range map[string]string{"folder": p.new.dir, "bundle": bundleOf(t, p.new.dir), "web": web.URL, "web without ranges": whole.URL,
		"registry": registryOf(t, p.new), "usb": "usb:"} {
		t.Run(name, func(t *testing.T) {
			for _, running := range []*made{nil, &p.old} {
				b := newBox(t, running)
				q := b.request(p.new)
				q.Ref, q.Stick = ref, stick
				var last Progress
				res, err := Run(t.Context(), q, func(g Progress) { last = g })
				if err != nil {
					t.Fatal(err)
				}
				b.check(p.new, res)
				if last.Done != last.Total || last.Fetched != res.Fetched || last.Reused != res.Reused || last.Fetched+last.Reused < last.Total {
					t.Errorf("%+v after all", last)
				}
				root := res.Parts["root"]
				if running == nil && (root.Fetched != root.Size || res.Fetched != p.new.total) {
					t.Errorf("fetched %d of %d bytes in all, %+v", res.Fetched, p.new.total, root)
				}
				if running != nil && (root.Fetched > 300_000 || root.Fetched+root.Reused < root.Size) {
					t.Errorf("with the old root at hand: %+v", root)
				}
			}
		})
	}
}

// What the running release has on the box is not fetched.
func TestReuse(t *testing.T) {
	p := makePair(t)
	b := newBox(t, nil)
	res, err := Run(t.Context(), b.request(p.old), nil)
	ok(t, err)
	b.check(p.old, res)
	b.slots[0], b.slots[1] = b.slots[1], b.slots[0]
	q := b.request(p.new)
	q.RunningDigest = p.old.digest
	d := tapOf(t, p.new.dir)
	fetched := map[string]int64{}
	d.harm = func(digest string, _, length int64) (func([]byte), error) { fetched[digest] += length; return nil, nil }
	res, err = from(t.Context(), d, q, nil)
	ok(t, err)
	b.check(p.new, res)
	for name, most := range map[string]int64{"root": 300_000, "uki": 100_000, "boot": 0, "images": 250_000} {
		if got := res.Parts[name]; got.Fetched > most || got.Fetched+got.Reused < got.Size {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if res.Fetched != d.n.Load() {
		t.Errorf("counted %d, given were %d", res.Fetched, d.n.Load())
	}
	// Again, and nothing is fetched at all; the running index may be damaged.
	index := blobIn(ReleaseDir(b.state, p.old.digest), p.old.desc.Parts.RootChunks.Digest)
	ok(t, os.WriteFile(index, []byte("damaged"), 0o644))
	res, err = Run(t.Context(), q, nil)
	ok(t, err)
	b.check(p.new, res)
	if res.Fetched != 0 {
		t.Errorf("fetched %d bytes of what is there", res.Fetched)
	}
	// A file that went bad under its final name is fetched anew.
	stack := blobIn(res.Folder, p.new.desc.Stack)
	ok(t, os.WriteFile(stack, bytes.Repeat([]byte("x"), len("the stack of 1.1.0")), 0o644))
	ok(t, os.WriteFile(res.UKI, make([]byte, len(p.new.uki)), 0o644))
	res, err = Run(t.Context(), q, nil)
	ok(t, err)
	b.check(p.new, res)
}

// Only the stack comes: no slot, no kernel image.
func TestStackOnly(t *testing.T) {
	p := makePair(t)
	b := newBox(t, &p.old)
	q := b.request(p.new)
	q.Target, q.Running = "", ""
	res, err := Run(t.Context(), q, nil)
	ok(t, err)
	b.checkStack(p.new, res)
	if res.UKI != "" || res.Boot != "" || res.Parts["root"].Size != 0 || res.Fetched > 2<<20 {
		t.Errorf("%+v", res)
	}
	slot, err := os.ReadFile(b.slots[1])
	ok(t, err)
	if !bytes.Equal(slot, make([]byte, slotSize)) {
		t.Error("the slot was written to")
	}
}

// The running slot is never written to, by whatever name.
func TestNotTheRunningSlot(t *testing.T) {
	p := makePair(t)
	b := newBox(t, &p.old)
	link := filepath.Join(t.TempDir(), "link")
	ok(t, os.Symlink(b.slots[0], link))
	for _, target := range []string{b.slots[0], link} {
		q := b.request(p.new)
		q.Target = target
		if _, err := Run(t.Context(), q, nil); err == nil || !strings.Contains(err.Error(), "is the running one") {
			t.Errorf("%v", err)
		}
	}
	slot, err := os.ReadFile(b.slots[0])
	ok(t, err)
	if !bytes.HasPrefix(slot, p.old.root) {
		t.Error("the running slot was written to")
	}
}

// Blobs of the factory are used where they lie, those of an engine's store are
// copied, and wrong ones are passed by.
func TestBlobsOnTheBox(t *testing.T) {
	p := makePair(t)
	images := func(res Result) Part { return res.Parts["images"] }
	b := newBox(t, nil)
	q := b.request(p.new)
	q.Layouts = []string{p.old.dir}
	res, err := Run(t.Context(), q, nil)
	ok(t, err)
	if got := images(res); got.Fetched > 250_000 {
		t.Errorf("%+v", got)
	}
	rel, err := release.OpenInstalled(os.DirFS(res.Folder), p.new.digest)
	ok(t, err)
	for _, im := range p.new.desc.Images {
		ok(t, Images(b.state, rel, p.old.dir).WriteImage(t.Context(), io.Discard, im.Digest, nil))
	}
	b = newBox(t, nil)
	q = b.request(p.new)
	q.Contents = []string{p.old.dir}
	res, err = Run(t.Context(), q, nil)
	ok(t, err)
	b.check(p.new, res)
	if got := images(res); got.Fetched > 250_000 {
		t.Errorf("%+v", got)
	}
	// Of the right size and name, with other bytes.
	bad := filepath.Join(t.TempDir(), "bad")
	ok(t, os.CopyFS(bad, os.DirFS(p.new.dir)))
	entries, err := os.ReadDir(filepath.Join(bad, blobDir))
	ok(t, err)
	for _, e := range entries {
		path := filepath.Join(bad, blobDir, e.Name())
		data, err := os.ReadFile(path)
		ok(t, err)
		data[len(data)/2] ^= 1
		ok(t, os.WriteFile(path, data, 0o644))
	}
	b = newBox(t, nil)
	q = b.request(p.new)
	q.Layouts, q.Contents, q.UKIs = []string{bad}, []string{bad}, []string{blobIn(bad, p.new.desc.Parts.UKI.Digest), "/nowhere"}
	res, err = Run(t.Context(), q, nil)
	ok(t, err)
	b.check(p.new, res)
	if got := images(res); got.Fetched != got.Size {
		t.Errorf("%+v", got)
	}
	if got := res.Parts["uki"]; got.Fetched > 100_000 {
		t.Errorf("one flipped byte in the local kernel image: %+v", got)
	}
}

// A copy in the store that went bad is let go of, and fetched anew.
func TestStoreGoesBad(t *testing.T) {
	p := makePair(t)
	b := newBox(t, nil)
	res, err := Run(t.Context(), b.request(p.new), nil)
	ok(t, err)
	rel, err := release.OpenInstalled(os.DirFS(res.Folder), p.new.digest)
	ok(t, err)
	im := p.new.desc.Images[0]
	raw, err := os.ReadFile(blobIn(ImagesDir(b.state), im.Digest))
	ok(t, err)
	blobs, err := im.Blobs(raw)
	ok(t, err)
	path := blobIn(ImagesDir(b.state), blobs[0].Digest)
	data, err := os.ReadFile(path)
	ok(t, err)
	data[7] ^= 1
	ok(t, os.WriteFile(path, data, 0o644))
	if err := Images(b.state, rel).WriteImage(t.Context(), io.Discard, im.Digest, nil); err == nil {
		t.Fatal("a damaged layer was handed out")
	}
	res, err = Run(t.Context(), b.request(p.new), nil)
	ok(t, err)
	b.check(p.new, res)
}

func TestChild(t *testing.T) {
	p := makePair(t)
	b := newBox(t, &p.old)
	in, err := json.Marshal(b.request(p.new))
	ok(t, err)
	var out bytes.Buffer
	ok(t, Main(t.Context(), bytes.NewReader(in), &out))
	n := 0
	res, err := Follow(&out, func(Progress) { n++ })
	ok(t, err)
	b.check(p.new, res)
	if n < 3 {
		t.Errorf("%d reports", n)
	}
	for _, row := range []struct{ in, code, text string }{
		{"", CodeInternal, "the request"},
		{`{"digest":"x"}`, CodeInternal, "can't be asked for"},
		{strings.Replace(string(in), p.new.dir, "/nowhere", 1), CodeSource, "no such file"},
		{strings.Replace(string(in), p.new.digest, "sha256:"+strings.Repeat("0", 64), 1), CodeSource, "the release manifest cannot be had: " + p.new.dir + " has no blob"},
		{strings.Repeat(" ", maxRequest+1), CodeInternal, "more than"},
	} {
		out.Reset()
		if Main(t.Context(), strings.NewReader(row.in), &out) == nil {
			t.Error("no error")
		}
		_, err := Follow(&out, nil)
		var f *Failure
		if !errors.As(err, &f) || f.Code != row.code || !strings.Contains(f.Text, row.text) {
			t.Errorf("%#v %v, want %s %q", f, err, row.code, row.text)
		}
	}
	// A second run while one is at work; one that is cancelled; one that dies.
	unlock, err := alone(b.state)
	ok(t, err)
	if _, err := Run(t.Context(), b.request(p.new), nil); !errors.Is(err, ErrBusy) || FailureOf(err).Code != CodeBusy {
		t.Errorf("%v", err)
	}
	unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, newBox(t, nil).request(p.new), nil); FailureOf(err).Code != CodeCancelled {
		t.Errorf("%v", err)
	}
	for _, said := range []string{"", `{"progress":{}}` + "\n", "panic: x\n", strings.Repeat("x", maxLine+1)} {
		if _, err := Follow(strings.NewReader(said), nil); err == nil {
			t.Errorf("%.40q is no end", said)
		}
	}
}

// FuzzFollow: what a child says, whole or cut off, ends in a result or an error.
func FuzzFollow(f *testing.F) {
	f.Add(`{"progress":{"step":"x","done":1}}` + "\n" + `{"result":{"folder":"/x","parts":{"root":{"size":1}}}}` + "\n")
	f.Add(`{"error":{"code":"refused","text":"x"}}`)
	f.Add("{}\n{\n")
	f.Fuzz(func(t *testing.T, said string) {
		res, err := Follow(strings.NewReader(said), func(Progress) {})
		if err != nil && (res.Folder != "" || err.Error() == "" && !strings.Contains(said, "{")) {
			t.Errorf("%q: %+v, %v", said, res, err)
		}
	})
}
