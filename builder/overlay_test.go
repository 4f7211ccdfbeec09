// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// tarOf makes a tar of headers; regular files hold their own name.
func tarOf(t *testing.T, heads ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, h := range heads {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(2000, 0)
		}
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(tw, h.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// list prints a tar, a line an entry: type, mode, name, link or content, time.
func list(t *testing.T, r io.Reader) string {
	t.Helper()
	var b strings.Builder
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%c %o %s %s%s %d\n", h.Typeflag, h.Mode, h.Name, h.Linkname, body, h.ModTime.Unix())
	}
}

func TestMerge(t *testing.T) {
	base := tarOf(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeDir, Name: "./etc/", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeReg, Name: "./etc/hostname", Mode: 0o644},
		tar.Header{Typeflag: tar.TypeReg, Name: "./etc/old", Mode: 0o600, ModTime: time.Unix(500, 0)},
		tar.Header{Typeflag: tar.TypeDir, Name: "./var/", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeDir, Name: "./var/lib/", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeDir, Name: "./var/lib/dpkg/", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeReg, Name: "./var/lib/dpkg/status", Mode: 0o644},
		tar.Header{Typeflag: tar.TypeReg, Name: "./boot/vmlinuz-1", Mode: 0o644},
		tar.Header{Typeflag: tar.TypeDir, Name: "./boot/", Mode: 0o755},
	)
	o := OS{Remove: []string{"boot/*", "var/*"}, Move: map[string]string{"var/lib/dpkg": "usr/lib/sysimage/dpkg"}}
	add := []entry{
		{path: "etc/hostname", mode: 0o644, data: []byte("new")},
		{path: "etc/x.d", mode: fs.ModeDir | 0o755},
		{path: "usr/bin/holdfast", mode: 0o755, data: []byte("ELF")},
		{path: "usr/link", mode: fs.ModeSymlink | 0o777, link: "bin/holdfast"},
	}
	var out bytes.Buffer
	if err := merge(&out, base, add, o, 1000); err != nil {
		t.Fatal(err)
	}
	want := `5 755 etc  1000
0 600 etc/old ./etc/old 500
5 755 var  1000
5 755 usr  1000
5 755 usr/lib  1000
5 755 usr/lib/sysimage  1000
5 755 usr/lib/sysimage/dpkg  1000
0 644 usr/lib/sysimage/dpkg/status ./var/lib/dpkg/status 1000
5 755 boot  1000
0 644 etc/hostname new 1000
5 755 etc/x.d  1000
5 755 usr/bin  1000
0 755 usr/bin/holdfast ELF 1000
2 777 usr/link bin/holdfast 1000
`
	if got := list(t, &out); got != want {
		t.Errorf("merged root:\n%s\nwant:\n%s", got, want)
	}
}

func TestMergeRefusesLinkToRemoved(t *testing.T) {
	base := tarOf(t,
		tar.Header{Typeflag: tar.TypeReg, Name: "./boot/a", Mode: 0o644},
		tar.Header{Typeflag: tar.TypeLink, Name: "./usr/a", Linkname: "./boot/a"})
	err := merge(io.Discard, base, nil, OS{Remove: []string{"boot/*"}}, 1)
	if err == nil || !strings.Contains(err.Error(), "/usr/a is a hard link to /boot/a") {
		t.Errorf("got %v", err)
	}
}

func TestOverlay(t *testing.T) {
	o := OS{Files: fstest.MapFS{"usr/lib/a": {Data: []byte("1")}, "usr/lib/run": {Data: []byte("2")}},
		Modes: map[string]fs.FileMode{"usr/lib/run": 0o755}, Links: map[string]string{"/etc/a": "../usr/lib/a"},
		Dirs: []string{"/efi"}, Supervisor: []byte("s")}
	list, err := overlay(o, []byte("pem"), []byte("{}"), "docker.io-1_containerd-2")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		got = append(got, fmt.Sprintf("%s %v", e.path, e.mode))
	}
	want := "efi drwxr-xr-x|etc/a Lrwxrwxrwx|usr/bin/holdfast -rwxr-xr-x|usr/lib/a -rw-r--r--|usr/lib/holdfast/engine -rw-r--r--|usr/lib/holdfast/trust/release.pem -rw-r--r--|usr/lib/holdfast/trust/root.json -rw-r--r--|usr/lib/run -rwxr-xr-x"
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	other := overlayHash(list)
	list[0].mode |= 0o002
	if overlayHash(list) == other {
		t.Error("a change of mode leaves the hash as it was")
	}
}

func TestRemoved(t *testing.T) {
	for _, c := range []struct {
		name, pattern string
		want          bool
	}{
		{"boot/vmlinuz", "boot/*", true}, {"boot", "boot/*", false}, {"var/lib/apt/lists/x", "var/lib/apt", true},
		{"usr/share/man/man1/ls.1", "/usr/share/man", true}, {"etc/passwd-", "etc/*-", true}, {"etc/passwd", "etc/*-", false},
	} {
		if got := removed(c.name, []string{c.pattern}); got != c.want {
			t.Errorf("removed(%s, %s) = %v", c.name, c.pattern, got)
		}
	}
}
