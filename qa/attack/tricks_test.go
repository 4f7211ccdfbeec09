// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Names, kinds and sizes that a bundle must not have, each in a bundle that is
// the vendor's otherwise.
func TestTricks(t *testing.T) {
	t.Parallel()
	v := newVendor(t)
	v.publish(t, "1.1.0", 1)
	good := v.bundle(t)
	member := func(h tar.Header, data string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		h.Size, h.Mode = int64(len(data)), 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	huge := member(tar.Header{Name: "blobs/sha256/" + strings.Repeat("a", 64), Typeflag: tar.TypeReg}, "x")
	copy(huge[124:], "77777777777\x00")
	sum(huge[:512])
	var zip bytes.Buffer
	z := gzip.NewWriter(&zip)
	for range 4 {
		if _, err := z.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	for _, row := range []struct {
		name string
		data []byte
		says string
	}{
		{"a path out of the folder", append(member(tar.Header{Name: "../../outside", Typeflag: tar.TypeReg}, "x"), good...), "is no file of a release"},
		{"a whole path", append(member(tar.Header{Name: outside, Typeflag: tar.TypeReg}, "x"), good...), "is no file of a release"},
		{"a path with dots within", append(member(tar.Header{Name: "tuf/../../outside.json", Typeflag: tar.TypeReg}, "x"), good...), "is no file of a release"},
		{"a link", append(member(tar.Header{Name: "tuf/timestamp.json", Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"}, ""), good...), "is no plain file"},
		{"a hard link", append(member(tar.Header{Name: "tuf/timestamp.json", Typeflag: tar.TypeLink, Linkname: "/etc/shadow"}, ""), good...), "is no plain file"},
		{"a device", append(member(tar.Header{Name: "tuf/timestamp.json", Typeflag: tar.TypeBlock, Devmajor: 8}, ""), good...), "is no plain file"},
		{"a pipe", append(member(tar.Header{Name: "tuf/timestamp.json", Typeflag: tar.TypeFifo}, ""), good...), "is no plain file"},
		{"a folder elsewhere", append(member(tar.Header{Name: "etc/", Typeflag: tar.TypeDir}, ""), good...), "is no"},
		{"a file twice", append(member(tar.Header{Name: "oci-layout", Typeflag: tar.TypeReg}, "x"), good...), "there twice"},
		{"a long name", append(member(tar.Header{Name: strings.Repeat("a/", 3000) + "b", Typeflag: tar.TypeReg, Format: tar.FormatPAX}, "x"), good...), "is no"},
		{"a size beyond the file", append(huge, good...), "cut off"},
		{"a sparse file", append(member(tar.Header{Name: "tuf/timestamp.json", Typeflag: tar.TypeReg, Format: tar.FormatPAX, PAXRecords: map[string]string{"HOLDFAST.sparse.size": "1"}}, "x"), good...), "which no bundle has"},
		{"a bomb", zip.Bytes(), "compressed with gzip"},
		{"nothing", nil, "is empty"},
		{"zeros", make([]byte, 1<<20), "no release"},
		{"text", bytes.Repeat([]byte("not a bundle\n"), 1000), "no bundle"},
		{"half of it", good[:len(good)/2], "cut off"},
		{"many names", bytes.Repeat(member(tar.Header{Name: "tuf/", Typeflag: tar.TypeDir}, ""), 25000), "more than"},
	} {
		path := filepath.Join(t.TempDir(), "x.bundle")
		write(t, path, row.data)
		newBox(t, v).refused(t, row.name, path, "1.1.0", true, row.says)
		if _, err := os.Stat(outside); err == nil {
			t.Fatalf("%s: a file was written outside", row.name)
		}
	}
}

// Metadata that is deep, long or many costs no more memory than its bound.
func TestBombs(t *testing.T) {
	v := newVendor(t)
	v.publish(t, "1.1.0", 1)
	deep := []byte(strings.Repeat("[", 60<<10))
	for name, data := range map[string][]byte{
		"deep":          deep,
		"deep objects":  []byte(strings.Repeat(`{"a":`, 12<<10)),
		"long":          bytes.Repeat([]byte(" "), 8<<20),
		"a long number": append([]byte(`{"signed":`), bytes.Repeat([]byte("9"), 50<<10)...),
		"many keys":     []byte(`{"signatures":[` + strings.Repeat(`{"keyid":"a","sig":"b"},`, 2000) + `{}],"signed":{}}`),
	} {
		for _, file := range []string{"tuf/timestamp.json", "tuf/2.root.json"} {
			dir := v.published(t)
			write(t, filepath.Join(dir, file), data)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			newBox(t, v).refused(t, name+" in "+file, dir, "1.1.0", true)
			runtime.ReadMemStats(&after)
			if got := after.TotalAlloc - before.TotalAlloc; got > 256<<20 {
				t.Errorf("%s in %s: %d bytes were allocated", name, file, got)
			}
		}
	}
}
