// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
)

// TestEveryKeyIsDecided fails when compose-go learns a key that neither table
// speaks of, and when a table names a key that Compose does not have.
func TestEveryKeyIsDecided(t *testing.T) {
	decided := func(p string) bool {
		for {
			if _, ok := rules[p]; ok || slices.Contains(honoured, p) || leadsOn(p) {
				return true
			}
			i := strings.LastIndexByte(p, '.')
			if i < 0 {
				return false
			}
			p = p[:i]
			if leadsOn(p) {
				return false // its siblings are decided one by one
			}
		}
	}
	var all []string
	for _, p := range schema.AttributePaths() {
		all = append(all, string(p))
		if !decided(string(p)) {
			t.Errorf("%s is in no table", p)
		}
	}
	for _, p := range slices.Concat(honoured, keysOf(rules)) {
		if !slices.Contains(all, p) {
			t.Errorf("%s is no key of Compose", p)
		}
	}
	for k, r := range rules {
		if r.text == "" || r.mend == "" {
			t.Errorf("%s has no text or no mend", k)
		}
	}
}

func keysOf(m map[string]rule) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	return out
}

const minimal = "-- compose.yaml --\nname: demo\nservices: {web: {image: a, volumes: [\"./d:/d:ro\"]}}\n"

func TestFilesOfTheFolder(t *testing.T) {
	for _, c := range []struct {
		name, want string
		make       func(dir string) error
	}{
		{"link out", "compose.yaml:2: services.web.volumes.0: d is a symbolic link; a stack's files are plain files in its folder",
			func(dir string) error { return os.Symlink("/etc", filepath.Join(dir, "d")) }},
		{"link in a folder", "compose.yaml:2: services.web.volumes.0: d/in is a symbolic link; a stack's files are plain files in its folder",
			func(dir string) error {
				os.Mkdir(filepath.Join(dir, "d"), 0o755)
				return os.Symlink("../compose.yaml", filepath.Join(dir, "d/in"))
			}},
		{"too many", "compose.yaml:2: services.web.volumes.0: the stack has more than 4096 files; a stack's files are plain files in its folder",
			func(dir string) error {
				os.Mkdir(filepath.Join(dir, "d"), 0o755)
				for i := range maxFiles {
					if err := os.WriteFile(filepath.Join(dir, "d", fmt.Sprint(i)), nil, 0o644); err != nil {
						return err
					}
				}
				return nil
			}},
		{"too big", "compose.yaml:2: services.web.volumes.0: the stack's files have more than 64 MiB; a stack's files are plain files in its folder",
			func(dir string) error {
				if err := os.WriteFile(filepath.Join(dir, "d"), nil, 0o644); err != nil {
					return err
				}
				return os.Truncate(filepath.Join(dir, "d"), maxBytes+1)
			}},
		{"name", "compose.yaml:2: services.web.volumes.0: \"d/käse\" is no name for a stack's file: use up to 100 plain ASCII characters; a stack's files are plain files in its folder",
			func(dir string) error {
				os.Mkdir(filepath.Join(dir, "d"), 0o755)
				return os.WriteFile(filepath.Join(dir, "d/käse"), nil, 0o644)
			}},
		{"env is a folder", ".env: .env is not a plain file; make it a plain file of KEY=value lines",
			func(dir string) error { return os.MkdirAll(filepath.Join(dir, ".env/x"), 0o755) }},
		{"compose file is a link", "compose.yaml: compose.yaml is a symbolic link; a stack's files are plain files in its folder",
			func(dir string) error {
				return errors.Join(os.Rename(filepath.Join(dir, "compose.yaml"), filepath.Join(dir, "x.yaml")),
					os.Symlink("x.yaml", filepath.Join(dir, "compose.yaml")))
			}},
		{"compose file too long", "compose.yaml: compose.yaml has more than 1048576 bytes; a stack's files are plain files in its folder",
			func(dir string) error { return os.Truncate(filepath.Join(dir, "compose.yaml"), maxCompose+1) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t, minimal)
			if err := c.make(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(context.Background(), dir, Options{}); err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestWhichFile(t *testing.T) {
	dir := folder(t, "-- docker-compose.yml --\nname: old\nservices: {web: {image: a}}\n-- prod.yaml --\nname: x\n")
	load := func(name string) string {
		s, err := Load(context.Background(), filepath.Join(dir, name), Options{})
		if err != nil {
			return strings.ReplaceAll(err.Error(), dir, "DIR")
		}
		return s.Name + " from " + s.File
	}
	for _, c := range [][2]string{
		{"", "old from docker-compose.yml"},
		{"docker-compose.yml", "old from docker-compose.yml"},
		{"prod.yaml", "prod.yaml: a stack's Compose file is found by its name on the box; rename it to compose.yaml"},
		{"none", "DIR/none: no such file or directory; name the Compose file of the stack"},
	} {
		if got := load(c[0]); got != c[1] {
			t.Errorf("%q: %s, want %s", c[0], got, c[1])
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "compose.yml"), []byte("name: new\nservices: {web: {image: a}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, want := load("docker-compose.yml"), "docker-compose.yml: compose.yml lies in the same folder and comes first; keep one of them"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestUnpackRefuses(t *testing.T) {
	for _, c := range []struct {
		h    tar.Header
		want string
	}{
		{tar.Header{Name: "../x", Typeflag: tar.TypeReg}, "is no name"},
		{tar.Header{Name: "/x", Typeflag: tar.TypeReg}, "is no name"},
		{tar.Header{Name: "a/../../x", Typeflag: tar.TypeReg}, "is no name"},
		{tar.Header{Name: "./", Typeflag: tar.TypeDir}, "is no name"},
		{tar.Header{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, "neither a plain file nor a folder"},
		{tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "y"}, "neither a plain file nor a folder"},
		{tar.Header{Name: "x", Typeflag: tar.TypeFifo}, "neither a plain file nor a folder"},
		{tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: maxBytes + 1}, "more than"},
		{tar.Header{Name: "no/parent", Typeflag: tar.TypeReg}, "no such file"},
	} {
		var b bytes.Buffer
		if err := tar.NewWriter(&b).WriteHeader(&c.h); err != nil {
			t.Fatal(err)
		}
		b.Write(make([]byte, 1024))
		if err := Unpack(&b, t.TempDir()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.h.Name, err, c.want)
		}
	}
}

func TestSplitAndPin(t *testing.T) {
	d := "sha256:" + strings.Repeat("c", 64)
	for _, c := range [][3]string{
		{"redis", "redis", "docker.io/library/redis@" + d},
		{"redis:8@" + d, "redis:8", "docker.io/library/redis@" + d},
		{"holdfast.demo/web:1.0.0", "holdfast.demo/web:1.0.0", "holdfast.demo/web@" + d},
		{"localhost:5000/a/b@" + d, "localhost:5000/a/b", "localhost:5000/a/b@" + d},
	} {
		ref, _, err := SplitImage(c[0])
		if err != nil || ref != c[1] {
			t.Errorf("SplitImage(%s) = %s %v", c[0], ref, err)
		}
		if got, err := PinnedName(ref, d); got != c[2] || err != nil {
			t.Errorf("PinnedName(%s) = %s %v, want %s", ref, got, err, c[2])
		}
	}
	for _, bad := range []string{"", "a b", "x@sha512:" + strings.Repeat("c", 128), "x@sha256:12"} {
		if _, _, err := SplitImage(bad); err == nil {
			t.Errorf("SplitImage(%q) must fail", bad)
		}
	}
}

// FuzzLoad feeds bytes as a Compose file: it loads, or the error says where.
func FuzzLoad(f *testing.F) {
	files, _ := filepath.Glob("testdata/refused/*.txtar")
	for _, name := range files {
		if data, err := os.ReadFile(name); err == nil {
			_, body, _ := bytes.Cut(data, []byte("-- compose.yaml --\n"))
			body, _, _ = bytes.Cut(body, []byte("\n-- "))
			f.Add(body)
		}
	}
	dir := f.TempDir()
	path := filepath.Join(dir, "compose.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := Load(context.Background(), path, Options{})
		if err == nil {
			if _, err := s.Digest(); err != nil || len(s.Services) != len(s.Project.Services) {
				t.Fatalf("loaded but %v, %v", s.Services, err)
			}
			return
		}
		var ps *Problems
		if !errors.As(err, &ps) || len(ps.List) == 0 {
			t.Fatalf("%T %v", err, err)
		}
		for _, p := range ps.List {
			if strings.Contains(p.Text, "compose-go gave up") {
				t.Logf("panic behind: %v", p)
			}
			if p.File == "" || p.Text == "" {
				t.Fatalf("%#v", p)
			}
		}
	})
}
