// SPDX-License-Identifier: Apache-2.0

//go:build bake

package bake

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// maxTold bounds what is said of one pair of files.
const maxTold = 12

// tellApart says which products of two caches differ although their keys are
// equal, and in which entry of a tar or an initrd: what differs in the end
// says little about the step that made it so.
func tellApart(t *testing.T, a, b string) {
	t.Helper()
	err := filepath.WalkDir(a, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(a, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if rel == "tools" || rel == "debs" {
				return fs.SkipDir // installed and fetched, not made
			}
			return nil
		}
		other := filepath.Join(b, rel)
		if !e.Type().IsRegular() {
			return nil
		}
		if _, err := os.Stat(other); errors.Is(err, fs.ErrNotExist) {
			t.Logf("only one cache has %s", rel)
			return nil
		}
		if hash(t, path) == hash(t, other) {
			return nil
		}
		told := differences(path, other)
		t.Logf("%s differs: %s", rel, strings.Join(told[:min(len(told), maxTold)], "; "))
		return nil
	})
	if err != nil {
		t.Log("looking for what differs:", err)
	}
}

// differences names the entries that two files differ in.
func differences(a, b string) []string {
	ea, errA := entries(a)
	eb, errB := entries(b)
	if errA != nil || errB != nil {
		return []string{fmt.Sprintf("first at byte %d", firstByte(a, b))}
	}
	var out []string
	for i := range max(len(ea), len(eb)) {
		switch {
		case i >= len(ea) || i >= len(eb):
			return append(out, fmt.Sprintf("%d and %d entries", len(ea), len(eb)))
		case ea[i] != eb[i]:
			out = append(out, ea[i]+" and "+eb[i])
		}
	}
	if out == nil {
		return []string{"the same entries, packed differently"}
	}
	return out
}

// entries lists a compressed tar or initrd, one line an entry with all that
// counts of it.
func entries(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	if strings.HasSuffix(path, ".tar.zst") {
		return tarEntries(tar.NewReader(z))
	}
	data, err := io.ReadAll(z)
	if err != nil {
		return nil, err
	}
	return cpioEntries(data)
}

func tarEntries(r *tar.Reader) ([]string, error) {
	var out []string
	for {
		h, err := r.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			return nil, err
		}
		out = append(out, fmt.Sprintf("%s %o %d:%d %d %s %s %x", h.Name, h.Mode, h.Uid, h.Gid, h.ModTime.Unix(), h.Linkname, paxOf(h), sum.Sum(nil)[:8]))
	}
}

func paxOf(h *tar.Header) string {
	var out []string
	for k, v := range h.PAXRecords {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// cpioEntries reads the "newc" format: a header of 13 numbers of 8 hex digits
// after the magic, then name and content, each padded to 4 bytes.
func cpioEntries(data []byte) ([]string, error) {
	var out []string
	const header = 110
	for {
		if len(data) < header || !bytes.HasPrefix(data, []byte("070701")) {
			return nil, errors.New("no newc archive")
		}
		var n [13]int
		for i := range n {
			v, err := strconv.ParseUint(string(data[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				return nil, err
			}
			n[i] = int(v)
		}
		size, name := n[6], n[11]
		at := (header + name + 3) &^ 3
		if name < 1 || len(data) < at+(size+3)&^3 {
			return nil, errors.New("cut off")
		}
		called := string(data[header : header+name-1])
		if called == "TRAILER!!!" {
			// An initrd is a row of archives (images/initramfs).
			if data = data[at:]; len(data) == 0 {
				return out, nil
			}
			continue
		}
		sum := sha256.Sum256(data[at : at+size])
		out = append(out, fmt.Sprintf("%s %s %x", called, data[6:header-8], sum[:8]))
		data = data[at+(size+3)&^3:]
	}
}

// firstByte is where two files begin to differ.
func firstByte(a, b string) int64 {
	fa, errA := os.ReadFile(a)
	fb, errB := os.ReadFile(b)
	if errA != nil || errB != nil {
		return -1
	}
	for i := range min(len(fa), len(fb)) {
		if fa[i] != fb[i] {
			return int64(i)
		}
	}
	return int64(min(len(fa), len(fb)))
}
