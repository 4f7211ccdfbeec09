// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/compose/lock"
)

func TestParseShow(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	in := "Package: b\nVersion: 2\nArchitecture: amd64\nFilename: pool/b.deb\nSize: 5\nDescription: x\n Size: 7\nSHA256: " + hash +
		"\n\nPackage: a\nVersion: 1:1\nArchitecture: all\nFilename: pool/a.deb\nSize: 3\nSHA256: " + hash +
		"\n\nPackage: b\nVersion: 1\nArchitecture: amd64\nFilename: pool/b1.deb\nSize: 5\nSHA256: " + hash + "\n"
	got, err := parseShow([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Name != "a" || got[0].Version != "1:1" || got[1].Version != "2" || got[1].Size != 5 {
		t.Errorf("%+v", got)
	}
	if _, err := parseShow([]byte("Package: a\nSize: x\n")); err == nil {
		t.Error("a stanza without size and hash is taken")
	}
}

func FuzzParseShow(f *testing.F) {
	f.Add([]byte("Package: a\nVersion: 1\nArchitecture: all\nFilename: p\nSize: 3\nSHA256: " + strings.Repeat("0", 64)))
	f.Fuzz(func(t *testing.T, b []byte) {
		pkgs, err := parseShow(b)
		if err == nil && len(pkgs) == 0 {
			t.Error("neither packages nor an error")
		}
	})
}

func TestValidName(t *testing.T) {
	for s, want := range map[string]bool{"libc6": true, "g++": true, "a": false, "x;rm": false, "-o": false, "A1": false, "lib.x-1+b": true} {
		if validName(s) != want {
			t.Errorf("%s: want %v", s, want)
		}
	}
}

func TestResolveError(t *testing.T) {
	err := resolveError([]byte("E: Unable to locate package nosuch\n"), errors.New("100"))
	if !strings.Contains(err.Error(), "no such Debian package in trixie: nosuch") {
		t.Error(err)
	}
	err = resolveError([]byte("E: Failed to fetch x  Could not connect\n"), errors.New("100"))
	if !strings.Contains(err.Error(), "mirror does not answer") || !strings.Contains(err.Error(), "--archive") {
		t.Error(err)
	}
}

func pkg(name string, content []byte) lock.Package {
	h := sha256.Sum256(content)
	return lock.Package{Name: name, Version: "1", Arch: "all", SHA256: hex.EncodeToString(h[:]), Size: int64(len(content)), Path: "pool/" + name + ".deb"}
}

func TestDownload(t *testing.T) {
	good, bad := []byte("good package"), []byte("bad package")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/m/pool/good.deb":
			w.Write(good)
		case "/m/pool/bad.deb":
			w.Write(bytes.ToUpper(bad))
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	get := func(c *Cache, pkgs ...lock.Package) error {
		want := map[string]lock.Package{}
		for _, p := range pkgs {
			want[p.SHA256] = p
		}
		return c.download(context.Background(), want, []string{srv.URL + "/n", srv.URL + "/m"}, func(int64) {})
	}
	c := &Cache{Dir: t.TempDir()}
	if err := get(c, pkg("good", good)); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(c.Path(pkg("good", good))); err != nil || !bytes.Equal(b, good) {
		t.Errorf("%q %v", b, err)
	}
	var missing *MissingError
	if err := get(c, pkg("gone", []byte("z")), pkg("good", good)); !errors.As(err, &missing) || len(missing.Packages) != 1 || missing.Packages[0] != "gone 1" {
		t.Errorf("gone: %v", err)
	}
	if err := get(c, pkg("bad", bad)); err == nil || !strings.Contains(err.Error(), "sha256 is") {
		t.Errorf("bad: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(c.Dir, "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("cache holds %v %v", left, err)
	}
}

func TestArchive(t *testing.T) {
	content := []byte("kept")
	p := pkg("kept", content)
	set := lock.PackageSet{Suite: Suite, Packages: []lock.Package{p}}
	from := &Cache{Dir: t.TempDir()}
	if err := os.WriteFile(from.Path(p), content, 0o644); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "archive")
	if err := from.Export(archive, set); err != nil {
		t.Fatal(err)
	}
	to := &Cache{Dir: t.TempDir(), Archive: archive}
	var told [2]int64
	if err := to.Fetch(context.Background(), func(d, n int64) { told = [2]int64{d, n} }, set); err != nil {
		t.Fatal(err)
	}
	if told != [2]int64{4, 4} {
		t.Errorf("progress ended at %v", told)
	}
	// A damaged archive is an error, never a package.
	if err := os.WriteFile(filepath.Join(archive, p.SHA256+".deb"), []byte("KEPT"), 0o644); err != nil {
		t.Fatal(err)
	}
	to = &Cache{Dir: t.TempDir(), Archive: archive}
	if err := to.Fetch(context.Background(), nil, set); err == nil {
		t.Error("a damaged archive is taken")
	}
}
