// SPDX-License-Identifier: Apache-2.0

package stackimage

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/compose/lock"
)

// file is one member of a tar in a test.
type file struct {
	name, body string
	kind       byte
	mode       int64
	uid        int
}

func tarOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Typeflag: f.kind, Mode: f.mode, Uid: f.uid, Gid: f.uid, ModTime: time.Unix(2_000_000_000, 0)}
		switch f.kind {
		case tar.TypeSymlink, tar.TypeLink:
			h.Linkname = f.body
		case tar.TypeReg:
			h.Size = int64(len(f.body))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if f.kind == tar.TypeReg {
			if _, err := w.Write([]byte(f.body)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// debOf is a Debian package (deb(5)) with uncompressed members.
func debOf(t testing.TB, name, fields string, files ...file) []byte {
	t.Helper()
	control := fmt.Sprintf("Package: %s\nVersion: 1.0-1\nArchitecture: amd64\nMaintainer: nobody <nobody@example.org>\n%sDescription: test\n", name, fields)
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar", tarOf(t, file{"./control", control, tar.TypeReg, 0o644, 0})}, {"data.tar", tarOf(t, files...)}} {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 0, 0, 0, "100644", len(m.data))
		b.Write(m.data)
		if len(m.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

// repo is a folder of packages for Options.Packages.
type repo struct {
	dir string
	set lock.PackageSet
}

func newRepo(t testing.TB) *repo {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Fatal("these tests need dpkg-deb: apt-get install dpkg")
	}
	return &repo{dir: t.TempDir(), set: lock.PackageSet{Suite: "test"}}
}

func (r *repo) add(t testing.TB, name, fields string, files ...file) string {
	t.Helper()
	b := debOf(t, name, fields, files...)
	sum := sha256.Sum256(b)
	h := hex.EncodeToString(sum[:])
	if err := os.WriteFile(filepath.Join(r.dir, h+".deb"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	r.set.Packages = append(r.set.Packages, lock.Package{Name: name, Version: "1.0-1", Arch: "amd64", SHA256: h, Size: int64(len(b))})
	return filepath.Join(r.dir, h+".deb")
}

func (r *repo) packages(context.Context, []string) (lock.PackageSet, string, error) {
	return r.set, r.dir, nil
}

// baseFiles has what matters of the real one.
func (r *repo) baseFiles(t testing.TB) {
	t.Helper()
	r.add(t, "base-files", "Pre-Depends: awk\n",
		file{"./", "", tar.TypeDir, 0o755, 0},
		file{"./bin", "usr/bin", tar.TypeSymlink, 0o777, 0},
		file{"./lib", "usr/lib", tar.TypeSymlink, 0o777, 0},
		file{"./tmp/", "", tar.TypeDir, 0o1777, 0},
		file{"./usr/", "", tar.TypeDir, 0o755, 0},
		file{"./usr/bin/", "", tar.TypeDir, 0o755, 0},
		file{"./usr/lib/os-release", "ID=debian\n", tar.TypeReg, 0o644, 0},
		file{"./usr/share/doc/base-files/copyright", "free\n", tar.TypeReg, 0o644, 0},
		file{"./usr/share/doc/base-files/README", "long\n", tar.TypeReg, 0o644, 0},
		file{"./usr/share/man/man1/x.1", "manual\n", tar.TypeReg, 0o644, 0})
}

func TestReadTarRefuses(t *testing.T) {
	s := &spool{f: scratch(t)}
	for name, f := range map[string]file{
		"leaves the root": {"../etc/passwd", "x", tar.TypeReg, 0o644, 0},
		"leaves inside":   {"./usr/../../x", "x", tar.TypeReg, 0o644, 0},
		"device":          {"./dev/null", "", tar.TypeChar, 0o666, 0},
		"dangling link":   {"./x", "./y", tar.TypeLink, 0o644, 0},
	} {
		if _, err := readTar(bytes.NewReader(tarOf(t, f)), s); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	good := tarOf(t, file{"./x", strings.Repeat("x", 2000), tar.TypeReg, 0o644, 0})
	if _, err := readTar(bytes.NewReader(good[:1024]), s); err == nil {
		t.Error("a tar cut short: no error")
	}
}

func scratch(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "spool"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func FuzzReadTar(f *testing.F) {
	f.Add(tarOf(f, file{"./a/", "", tar.TypeDir, 0o755, 0}, file{"./a/b", "x", tar.TypeReg, 0o644, 7}, file{"./c", "./a/b", tar.TypeLink, 0, 0}))
	f.Add([]byte("not a tar"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &spool{f: scratch(t)}
		nodes, err := readTar(bytes.NewReader(b), s)
		if err != nil {
			return
		}
		tree := &tree{nodes: map[string]*node{}, spool: s, epoch: 5}
		if tree.settle("fuzz", nodes) != nil || tree.parents() != nil {
			return
		}
		for p, n := range tree.nodes {
			if !strings.HasPrefix(p, "/") || strings.Contains(p+"/", "/../") || n.mtime > 5 {
				t.Errorf("%q with time %d in the tree", p, n.mtime)
			}
		}
	})
}

func TestClauses(t *testing.T) {
	got := fmt.Sprint(clauses("libc6 (>= 2.38), debconf (>= 0.5) | debconf-2.0, python3:any,, x(= 1)"))
	if want := "[[libc6] [debconf debconf-2.0] [python3] [x]]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := controlField("Package: x\nDepends: a,\n b,\n\tc\nDescription: y\n Depends: no\n", "depends"); got != "a, b,\tc" {
		t.Errorf("got %q", got)
	}
}
