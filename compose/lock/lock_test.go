// SPDX-License-Identifier: Apache-2.0

package lock

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/compose/stack"
)

var update = flag.Bool("update", false, "write testdata/good.lock")

func hex(c string) string { return strings.Repeat(c, 64) }

func example() *Lock {
	return &Lock{
		Format: 1, Holdfast: "0.1.0", Go: "go1.26.8", Epoch: 1700000000,
		Stack: StackPin{Name: "demo", Digest: "sha256:" + hex("a")},
		Images: []Image{
			{Ref: "holdfast.demo/db:1.0.0", Digest: "sha256:" + hex("1"), Size: 100},
			{Ref: "localhost:5000/web:1.0.0", Digest: "sha256:" + hex("2"), Size: 200},
			{Ref: "redis", Digest: "sha256:" + hex("3"), Size: 300},
		},
		OS: PackageSet{Suite: "trixie", Wanted: []string{"systemd", "docker.io"}, Packages: []Package{
			{Name: "docker.io", Version: "26.1.5+dfsg1-9+b1", Arch: "amd64", SHA256: hex("4"), Size: 1, Path: "pool/main/d/docker.io/docker.io_26.1.5+dfsg1-9+b1_amd64.deb"},
			{Name: "g++", Version: "4:14.2.0-1", Arch: "amd64", SHA256: "1e" + hex("4")[2:], Size: 9007199254740993, Path: "pool/main/g/gcc/g++_14.2.0~rc1-1_amd64.deb"},
			{Name: "no", Version: "1.10", Arch: "all", SHA256: hex("5"), Size: 1, Path: "pool/updates/main/n/no/no_1.10_all.deb"},
		}},
		Tools: PackageSet{Suite: "trixie"},
	}
}

func TestMarshal(t *testing.T) {
	l := example()
	if err := l.Validate(); err != nil {
		t.Fatal(err)
	}
	got := l.Marshal()
	golden := "testdata/good.lock"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("lock:\n%s\nwant:\n%s", got, want)
	}
	back, err := Read(golden)
	if err != nil {
		t.Fatal(err)
	}
	back.name = ""
	// Empty lists are nil or empty after reading, which is the same lock.
	back.Tools = l.Tools
	if !reflect.DeepEqual(back, l) {
		t.Errorf("read back %+v, want %+v", back, l)
	}
	if !bytes.Equal(back.Marshal(), got) {
		t.Error("a lock that was read does not write the same bytes")
	}
}

func TestParseRefuses(t *testing.T) {
	good := string(example().Marshal())
	for _, c := range []struct{ name, from, to, want string }{
		{"syntax", "epoch: 1700000000", "epoch: [", "x.lock:"},
		{"unknown key", "go: go1.26.8", "go: go1.26.8\ncolour: red", "x.lock:6: colour: unknown key; run holdfast-release lock"},
		{"unknown key inside", "arch: all,", "arch: all, foo: 1,", "x.lock:22: os.packages.2.foo: unknown key; run holdfast-release lock"},
		{"duplicate key", "go: go1.26.8", "go: go1.26.8\ngo: go1.26.8", "already defined"},
		{"later format", "format: 1", "format: 2", "x.lock:3: format: the lock has format 2, this program reads 1; use the Holdfast that wrote it, or run holdfast-release lock"},
		{"earlier format", "format: 1", "format: 0", "x.lock:3: format: the format must be 1; run holdfast-release lock"},
		{"no epoch", "epoch: 1700000000\n", "", "x.lock:1: epoch: the epoch must be seconds since 1970; run holdfast-release lock"},
		{"wrong kind", "go: go1.26.8", "go: [1]", "x.lock:5: go: this must be one value; run holdfast-release lock"},
		{"list of text", "images:", "images: none\nimagesx:", "x.lock:10: images: this must be a list"},
		{"wrong number", "size: 100", "size: many", "x.lock:11: "},
		{"digest", "sha256:" + hex("1"), "sha256:" + hex("1")[1:], "x.lock:11: images.0.digest: "},
		{"upper case digest", "sha256:" + hex("a"), "sha256:" + hex("A"), "x.lock:9: stack.digest: "},
		{"order", "name: docker.io", "name: zzz", "x.lock:21: os.packages.1.name: the packages must be sorted by name, each once"},
		{"twice", "name: g++", "name: docker.io", "x.lock:21: os.packages.1.name: the packages must be sorted by name, each once"},
		{"image order", "redis", "aedis", "x.lock:13: images.2.ref: the images must be sorted by reference, each once"},
		{"image with digest", "ref: redis", "ref: \"redis@sha256:" + hex("1") + "\"", "x.lock:13: images.2.ref: "},
		{"path up", "pool/main/g/gcc/", "pool/../../", "x.lock:21: os.packages.1.path: "},
		{"absolute path", "pool/main/g/gcc/", "/pool/", "x.lock:21: os.packages.1.path: "},
		{"scheme", "pool/main/g/gcc/", "http://x/", "x.lock:21: os.packages.1.path: "},
		{"arch", "arch: all", "arch: arm64", "x.lock:22: os.packages.2.arch: \"arm64\" is neither amd64 nor all"},
		{"hash", hex("5"), hex("5")[1:], "x.lock:22: os.packages.2.sha256: "},
		{"alias", "format: 1", "format: &f 1", "x.lock:3: format: a lock has no anchors and aliases"},
		{"two documents", "format: 1", "---\nformat: 1\n---\nformat: 1", "one YAML document"},
		{"wanted without packages", "suite: trixie\n  wanted: []", "suite: trixie\n  wanted: [qemu]", "x.lock:26: tools.packages: packages are wanted and none is pinned"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := strings.Replace(good, c.from, c.to, 1)
			if bad == good {
				t.Fatalf("%q is not in the lock", c.from)
			}
			l, err := Parse("x.lock", []byte(bad))
			var ps *stack.Problems
			if l != nil || !errors.As(err, &ps) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "x.lock:") {
				t.Errorf("no line: %v", err)
			}
		})
	}
	if _, err := Parse("x.lock", make([]byte, maxFile+1)); err == nil || !strings.Contains(err.Error(), "16 MiB") {
		t.Error(err)
	}
	if _, err := Read(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "holdfast-release lock") {
		t.Error(err)
	}
}

func loadStack(t *testing.T, compose string) *stack.Stack {
	t.Helper()
	p := filepath.Join(t.TempDir(), "compose.yaml")
	if err := os.WriteFile(p, []byte(compose), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := stack.Load(context.Background(), p, stack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCheck(t *testing.T) {
	s := loadStack(t, "name: demo\nservices:\n  web:\n    image: holdfast.demo/web:1.0.0\n  db: {image: \"db:1@sha256:"+hex("d")+"\"}\n")
	if got, want := Check(nil, s).Error(), "compose.yaml:4: services.web.image: holdfast.demo/web:1.0.0 has no digest and there is no lock; run holdfast-release lock"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	pinned := loadStack(t, "name: demo\nservices: {db: {image: \"db:1@sha256:"+hex("d")+"\"}}\n")
	if got, want := Check(nil, pinned).Error(), "compose.yaml: there is no lock to pin the packages; run holdfast-release lock"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	l := example()
	digest, err := s.Digest()
	if err != nil {
		t.Fatal(err)
	}
	l.Stack.Digest = digest
	l.Images = []Image{{Ref: "db:1", Digest: "sha256:" + hex("d"), Size: 1}, {Ref: "holdfast.demo/web:1.0.0", Digest: "sha256:" + hex("e"), Size: 1}}
	if err := Check(l, s); err != nil {
		t.Error(err)
	}
	l, err = Parse("demo.lock", l.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	l.Stack = StackPin{Name: "other", Digest: "sha256:" + hex("f")}
	l.Images[1].Ref = "holdfast.demo/web:0.9.0"
	want := "demo.lock: stack.name: the lock is of the stack other, not of demo; run holdfast-release lock\n" +
		"compose.yaml:4: services.web.image: holdfast.demo/web:1.0.0 is not in the lock; run holdfast-release lock\n" +
		"demo.lock: images: holdfast.demo/web:0.9.0 is locked and the stack does not name it; run holdfast-release lock\n" +
		"demo.lock: stack.digest: the stack has changed since it was locked: its folder is now " + digest + ", locked is sha256:" + hex("f") + "; run holdfast-release lock"
	if err := Check(l, s); err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

// FuzzParse: what Parse takes, Marshal writes and Parse takes again.
func FuzzParse(f *testing.F) {
	f.Add(example().Marshal())
	f.Add([]byte("format: 1\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Parse("x.lock", data)
		if err != nil {
			var ps *stack.Problems
			if !errors.As(err, &ps) || len(ps.List) == 0 {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		again, err := Parse("x.lock", l.Marshal())
		if err != nil {
			t.Fatalf("%v\n%s", err, l.Marshal())
		}
		if !bytes.Equal(again.Marshal(), l.Marshal()) {
			t.Fatalf("%s\n%s", again.Marshal(), l.Marshal())
		}
	})
}
