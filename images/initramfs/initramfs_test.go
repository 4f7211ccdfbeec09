// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// archive is a plain one, as dracut writes it: folders before what is in them.
func archive(files map[string][]byte) []byte {
	dirs := map[string]bool{}
	var names []string
	for name := range files {
		names = append(names, name)
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			if !dirs[d] {
				dirs[d] = true
				names = append(names, d)
			}
		}
	}
	slices.Sort(names)
	out := member(entry{name: ".", mode: typeDir | 0o755, links: 2}, nil, 5)
	for _, name := range names {
		if dirs[name] {
			out = append(out, member(entry{name: name, mode: typeDir | 0o755, links: 2}, nil, 5)...)
		} else {
			out = append(out, member(entry{name: name, mode: typeFile | 0o755, links: 1}, files[name], 5)...)
		}
	}
	out = append(out, member(entry{name: trailer, links: 1}, nil, 0)...)
	return append(out, make([]byte, 512-len(out)%512)...) // cpio fills its last block
}

// unpack does what the kernel does: one archive after the other, each ended by
// its trailer, a file only into a folder that is there.
func unpack(t testing.TB, packed []byte) map[string]string {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	all, err := io.ReadAll(z) // frame by frame
	if err != nil {
		t.Fatal(err)
	}
	out, dirs := map[string]string{}, map[string]bool{".": true}
	for len(all) > 0 {
		list, err := read(all)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if !dirs[path.Dir(e.name)] {
				t.Fatalf("%s comes before its folder", e.name)
			}
			if e.mode&typeMask == typeDir {
				dirs[e.name] = true
				continue
			}
			at := pad(int64(headLen + len(e.name) + 1))
			out[e.name] = string(e.raw[at : at+int64(e.size)])
			all = all[len(e.raw):]
		}
		for _, e := range list {
			if e.mode&typeMask == typeDir {
				all = all[len(e.raw):]
			}
		}
		all = all[len(member(entry{name: trailer}, nil, 0)):]
	}
	return out
}

// noise has few bytes that compress, so that sizes are as they look.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func tree() map[string][]byte {
	files := map[string][]byte{}
	for i := range 60 {
		files[fmt.Sprintf("usr/lib/small/%02d", i)] = noise(uint64(i), 4000+37*i)
	}
	for i := range 10 {
		files[fmt.Sprintf("usr/lib/large-%d.so", i)] = noise(uint64(100+i), 100_000+i)
	}
	return files
}

func TestPack(t *testing.T) {
	files := tree()
	add := []File{{"usr/lib/systemd/system/emergency.service", 0o644, []byte("new")}, {"usr/lib/small/07", 0o644, []byte("replaced")}}
	packed, err := Pack(archive(files), add, 7)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Pack(archive(files), []File{add[1], add[0]}, 7)
	if err != nil || !bytes.Equal(packed, again) {
		t.Errorf("two packs of the same files differ, %v", err)
	}
	got := unpack(t, packed)
	for _, f := range add {
		files[f.Path] = f.Data
	}
	if len(got) != len(files) {
		t.Errorf("%d files, want %d", len(got), len(files))
	}
	for name, want := range files {
		if got[name] != string(want) {
			t.Errorf("%s is another file", name)
		}
	}
}

// TestShared: what a change costs is the archive it is in, and a file more
// moves no boundary.
func TestShared(t *testing.T) {
	before, err := Pack(archive(tree()), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(map[string][]byte)
		most   int // of the archives may be new
	}{
		{"one large file changes", func(m map[string][]byte) { m["usr/lib/large-3.so"][5] ^= 1 }, 1},
		{"one small file changes", func(m map[string][]byte) { m["usr/lib/small/30"][5] ^= 1 }, 1},
		{"a file more", func(m map[string][]byte) { m["usr/lib/large-3a.so"] = noise(900, 50_000) }, 1},
		{"a small file less", func(m map[string][]byte) { delete(m, "usr/lib/small/20") }, 3},
	} {
		files := tree()
		c.change(files)
		after, err := Pack(archive(files), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		old, fresh := map[[32]byte]bool{}, 0
		for _, f := range frames(before) {
			old[sha256.Sum256(f)] = true
		}
		for _, f := range frames(after) {
			if !old[sha256.Sum256(f)] {
				fresh++
			}
		}
		if fresh == 0 || fresh > c.most || len(old) < 10 {
			t.Errorf("%s: %d of %d archives are new, want at most %d", c.name, fresh, len(old), c.most)
		}
	}
}

// frames cuts at the magic number of zstd.
func frames(b []byte) [][]byte { return bytes.Split(b, []byte{0x28, 0xb5, 0x2f, 0xfd}) }

func TestRefused(t *testing.T) {
	good := archive(map[string][]byte{"a": []byte("x")})
	linked := append(member(entry{name: "a", mode: typeFile, links: 2}, nil, 0), member(entry{name: trailer}, nil, 0)...)
	for _, c := range []struct {
		name, want string
		data       []byte
		add        []File
	}{
		{"nothing", "no header", nil, nil},
		{"compressed", "no header", []byte{0x28, 0xb5, 0x2f, 0xfd}, nil},
		{"cut", "no header", good[:len(member(entry{name: "."}, nil, 0))], nil},
		{"no number", "field", bytes.Replace(good, []byte("00000002"), []byte("0000000x"), 1), nil},
		{"hard links", "hard links", linked, nil},
		{"name without end", "which the archive has not", member(entry{name: strings.Repeat("n", maxName)}, nil, 0), nil},
		{"outside", "no path of a file", good, []File{{Path: "../x"}}},
		{"absolute", "no path of a file", good, []File{{Path: "/x"}}},
		{"a folder", "no path of a file", archive(tree()), []File{{Path: "usr/lib"}}},
	} {
		if _, err := Pack(c.data, c.add, 0); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// FuzzRead: no archive makes it panic, and what it takes adds up.
func FuzzRead(f *testing.F) {
	f.Add(archive(map[string][]byte{"usr/a": []byte("x"), "b": noise(1, 300)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := read(b)
		if err != nil {
			return
		}
		n := 0
		for _, e := range list {
			n += len(e.raw)
		}
		if n > len(b) {
			t.Fatalf("%d bytes of members in %d", n, len(b))
		}
	})
}
