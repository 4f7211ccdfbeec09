// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// The images in testdata were made by tar2sqfs (squashfs-tools-ng) from:
// usr/lib/deep/{big.bin,small.txt,empty,f000..f299}, links usr/bin/big and lib.
func TestFirstBlockHoldsTheFile(t *testing.T) {
	for _, comp := range []string{"zstd", "gzip"} {
		data, err := os.ReadFile("testdata/tiny-" + comp + ".sqfs")
		if err != nil {
			t.Fatal(err)
		}
		s, err := openSquash(bytes.NewReader(data))
		if err != nil {
			t.Fatal(comp, err)
		}
		for _, c := range []struct{ file, begins string }{
			{"usr/lib/deep/big.bin", "the first block of big"},
			{"/usr/bin/big", "the first block of big"},
			{"lib/deep/big.bin", "the first block of big"},
			{"usr/lib/deep/small.txt", "a small file lives in a fragment"},
			{"usr/lib/deep/f299", "299\n"},
		} {
			b, err := s.firstBlock(c.file)
			if err != nil {
				t.Errorf("%s %s: %v", comp, c.file, err)
				continue
			}
			if text := unpack(t, data[b.Offset:b.Offset+b.Length]); !strings.Contains(text, c.begins) {
				t.Errorf("%s %s: block %+v begins with %.40q", comp, c.file, b, text)
			}
		}
		if name, err := s.largest("usr/lib/deep"); err != nil || name != "big.bin" {
			t.Errorf("%s: the largest file is %q, %v", comp, name, err)
		}
		for file, want := range map[string]string{
			"usr/lib/deep/none":    "no such file",
			"usr/lib/deep":         "not a regular file",
			"usr/lib/deep/empty":   "empty",
			"usr/lib/deep/f001/xx": "not a folder",
		} {
			if _, err := s.firstBlock(file); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %s: %v, want %q", comp, file, err, want)
			}
		}
	}
}

// unpack tries each way a block can be stored.
func unpack(t *testing.T, raw []byte) string {
	t.Helper()
	if d, err := zstd.NewReader(nil); err == nil {
		defer d.Close()
		if out, err := d.DecodeAll(raw, nil); err == nil {
			return string(out)
		}
	}
	if r, err := zlib.NewReader(bytes.NewReader(raw)); err == nil {
		var out bytes.Buffer
		if _, err := out.ReadFrom(r); err == nil {
			return out.String()
		}
	}
	return string(raw)
}

func FuzzSquash(f *testing.F) {
	for _, comp := range []string{"zstd", "gzip"} {
		data, err := os.ReadFile("testdata/tiny-" + comp + ".sqfs")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := openSquash(bytes.NewReader(data))
		if err != nil {
			return
		}
		_, _ = s.firstBlock("usr/bin/big") // must end, whatever it says
		_, _ = s.firstBlock("usr/lib/deep/small.txt")
		_, _ = s.largest("usr/lib/deep")
	})
}
