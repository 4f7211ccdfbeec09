// SPDX-License-Identifier: Apache-2.0

package depot

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// members makes a tar of headers, each with as many zeros as it says, the last
// of none.
func members(t testing.TB, hs ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		h.Mode = 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			w.Write(make([]byte, h.Size))
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func scanBytes(b []byte) (*bundle, error) {
	return scan(context.Background(), bytes.NewReader(b), int64(len(b)), "x.bundle")
}

func TestBundleRefuses(t *testing.T) {
	reg := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 5} }
	l, _, _ := sample()
	good := l.tar(t)
	var many bytes.Buffer
	w := tar.NewWriter(&many)
	for i := range maxMembers + 1 {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("blobs/sha256/%064x", i)})
	}
	w.Close()
	for _, row := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "it is empty"},
		{"text", []byte(strings.Repeat("no tar ", 200)), "member 1"},
		{"zeros", make([]byte, 10240), "holds no release"},
		{"gzip", []byte("\x1f\x8b\x08\x00aaaaaaa"), "compressed with gzip"},
		{"zstd", []byte("\x28\xb5\x2f\xfdaaaaaaa"), "compressed with zstd"},
		{"xz", []byte("\xfd7zXZ\x00aaaa"), "compressed with xz"},
		{"link", members(t, reg("oci-layout"), tar.Header{Typeflag: tar.TypeSymlink, Name: "blobs", Linkname: "/etc"}), "is no plain file"},
		{"hard link", members(t, tar.Header{Typeflag: tar.TypeLink, Name: "index.json", Linkname: "/etc/shadow"}), "is no plain file"},
		{"device", members(t, tar.Header{Typeflag: tar.TypeBlock, Name: "index.json"}), "is no plain file"},
		{"pipe", members(t, tar.Header{Typeflag: tar.TypeFifo, Name: "index.json"}), "is no plain file"},
		{"foreign folder", members(t, tar.Header{Typeflag: tar.TypeDir, Name: "etc/"}), "is no plain file"},
		{"up", members(t, reg("../oci-layout")), "no file of a release"},
		{"up in the middle", members(t, reg("tuf/../oci-layout")), "no file of a release"},
		{"absolute", members(t, reg("/oci-layout")), "no file of a release"},
		{"twice dotted", members(t, reg("././oci-layout")), "no file of a release"},
		{"another file", members(t, reg("oci-layout"), reg("install.sh")), "no file of a release"},
		{"a short digest", members(t, reg("blobs/sha256/abc")), "no file of a release"},
		{"twice", members(t, reg("oci-layout"), reg("index.json"), reg("./oci-layout")), "there twice"},
		{"extended header", members(t, tar.Header{Typeflag: tar.TypeReg, Name: "index.json", Format: tar.FormatPAX, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}}), "which no bundle has"},
		{"sparse", sparse(t), "which no bundle has"},
		{"many", many.Bytes(), "more than"},
		{"cut off", good[:len(good)-100_000], "it has been cut off"},
	} {
		_, err := scanBytes(row.data)
		var bad *BundleError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 300 {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
	if b, err := scanBytes(members(t, tar.Header{Typeflag: tar.TypeDir, Name: "./"}, tar.Header{Typeflag: tar.TypeDir, Name: "./blobs/sha256/"}, reg("./oci-layout"))); err != nil || len(b.members) != 1 {
		t.Errorf("a tar made by hand: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := scan(ctx, bytes.NewReader(good), int64(len(good)), "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	// A file that is changed afterwards gives other bytes, and no others than its own.
	p := filepath.Join(t.TempDir(), "x.bundle")
	if err := os.WriteFile(p, good, 0o644); err != nil {
		t.Fatal(err)
	}
	d := opened(t, p, Options{})
	if err := os.Truncate(p, 2000); err != nil {
		t.Fatal(err)
	}
	_, blob, _ := sample()
	if b, err := span2(d, blob, 250_000, 100); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) || len(b) != 0 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// sparse is a PAX 1.0 sparse member: a few bytes that say they are many.
func sparse(t testing.TB) []byte {
	t.Helper()
	body := []byte("1\n0\n1\n")
	body = append(body, make([]byte, 512-len(body)+512)...)
	records := ""
	for _, r := range [][2]string{{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"}, {"GNU.sparse.name", "index.json"}, {"GNU.sparse.realsize", "1099511627776"}} {
		// The length counts itself: two digits for all of these.
		records += fmt.Sprintf("%d %s=%s\n", len(r[0])+len(r[1])+5, r[0], r[1])
	}
	var b bytes.Buffer
	for _, h := range []struct {
		kind byte
		data []byte
	}{{'x', []byte(records)}, {'0', body}} {
		block := make([]byte, 512)
		copy(block, "index.json")
		copy(block[100:], "0000644\x00")
		copy(block[124:], fmt.Sprintf("%011o\x00", len(h.data)))
		copy(block[136:], "00000000000\x00")
		block[156] = h.kind
		copy(block[257:], "ustar\x0000")
		copy(block[148:], "        ")
		sum := 0
		for _, c := range block {
			sum += int(c)
		}
		copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
		b.Write(block)
		b.Write(h.data)
		b.Write(make([]byte, (512-len(h.data)%512)%512))
	}
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

// Flipped bits anywhere: refused, or the same members elsewhere in the file.
func TestBundleFlipped(t *testing.T) {
	l, _, _ := sample()
	good := l.tar(t)
	for range 200 {
		bad := bytes.Clone(good)
		for range 1 + rand.IntN(4) {
			bad[rand.IntN(len(bad))] ^= 1 << rand.IntN(8)
		}
		check(t, bad)
	}
}

func check(t testing.TB, data []byte) {
	b, err := scanBytes(data)
	if err != nil {
		if len(err.Error()) > 400 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
		return
	}
	if len(b.members) > maxMembers {
		t.Errorf("%d members", len(b.members))
	}
	for name, m := range b.members {
		if !memberForm.MatchString(name) || m.at < 512 || m.size < 0 || m.at+m.size > int64(len(data)) {
			t.Fatalf("member %q at %d of %d bytes in a file of %d", name, m.at, m.size, len(data))
		}
		if hex, ok := strings.CutPrefix(name, blobDir+"/"); ok {
			r, err := b.Blob(context.Background(), "sha256:"+hex, 0, m.size)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, r); err != nil || n != m.size {
				t.Fatalf("%d of %d bytes, %v", n, m.size, err)
			}
		}
	}
}

func FuzzBundle(f *testing.F) {
	f.Add(members(f, tar.Header{Typeflag: tar.TypeReg, Name: "oci-layout", Size: 3}, tar.Header{Typeflag: tar.TypeReg, Name: "blobs/sha256/" + strings.Repeat("a", 64), Size: 600}))
	f.Add(members(f, tar.Header{Typeflag: tar.TypeReg, Name: "tuf/1.root.json", Format: tar.FormatPAX, PAXRecords: map[string]string{"comment": "x"}}))
	f.Add(sparse(f))
	f.Fuzz(func(t *testing.T, data []byte) { check(t, data) })
}

// FuzzRegistryList: what a registry calls its metadata is checked.
func FuzzRegistryList(f *testing.F) {
	f.Add([]byte(`{"layers":[{"digest":"sha256:` + strings.Repeat("a", 64) + `","size":5,"annotations":{"org.opencontainers.image.title":"1.root.json"}}]}`))
	f.Add([]byte(`{"layers":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseList(data)
		if err != nil {
			return
		}
		for name, l := range list {
			if !metaForm.MatchString(name) || !digestForm.MatchString(l.Digest.String()) {
				t.Fatalf("%q %q", name, l.Digest)
			}
		}
	})
}
