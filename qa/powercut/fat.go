// SPDX-License-Identifier: Apache-2.0

package powercut

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// FATFile is a file as firmware finds it: by its name and its chain, however
// the rest of the volume looks.
type FATFile struct {
	Path  string
	Size  int64
	First uint32
	// Digest is SHA-256 in hex, "" where the chain ends before the file does.
	Digest string
}

// maxFATFiles bounds a volume's folders and files.
const maxFATFiles = 4096

type fat struct {
	r        io.ReaderAt
	cluster  int64
	data     int64
	table    []byte
	clusters uint32
	files    []FATFile
	seen     int
}

// ReadFAT lists the files of a FAT32 volume with 512-byte sectors. Unlike
// images/esp, which refuses what is not in order, it reads what it can: two
// names may share a chain, as after a cut within a rename.
func ReadFAT(r io.ReaderAt, size int64) ([]FATFile, error) {
	b := make([]byte, 512)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	reserved, fats, perFAT, perCluster := int64(le.Uint16(b[14:])), int64(b[16]), int64(le.Uint32(b[36:])), int64(b[13])
	if b[510] != 0x55 || b[511] != 0xaa || le.Uint16(b[11:]) != 512 || perCluster == 0 || le.Uint16(b[22:]) != 0 {
		return nil, errors.New("fat: not FAT32 with sectors of 512 bytes")
	}
	v := &fat{r: r, cluster: perCluster * 512, data: (reserved + fats*perFAT) * 512}
	if v.data <= 0 || v.data >= size || perFAT*512 > size {
		return nil, errors.New("fat: the boot sector does not fit the volume")
	}
	v.clusters = uint32(min((size-v.data)/v.cluster, perFAT*128-2))
	v.table = make([]byte, perFAT*512)
	if _, err := r.ReadAt(v.table, reserved*512); err != nil {
		return nil, err
	}
	if err := v.folder("", le.Uint32(b[44:]), 0); err != nil {
		return nil, err
	}
	return v.files, nil
}

// chain is the clusters from first on, at most n; it ends early where the
// table does not go on.
func (v *fat) chain(first uint32, n int64) []uint32 {
	var out []uint32
	for c := first & 0x0fffffff; int64(len(out)) < n && c >= 2 && c < v.clusters+2; {
		out = append(out, c)
		c = binary.LittleEndian.Uint32(v.table[c*4:]) & 0x0fffffff
	}
	return out
}

func (v *fat) folder(path string, first uint32, depth int) error {
	if depth > 16 {
		return errors.New("fat: folders within folders without end")
	}
	var long []uint16
	block := make([]byte, v.cluster)
	for _, c := range v.chain(first, 1024) {
		if _, err := v.r.ReadAt(block, v.data+int64(c-2)*v.cluster); err != nil {
			return err
		}
		for e := block; len(e) >= 32; e = e[32:] {
			if e[0] == 0 {
				return nil
			}
			if v.seen++; v.seen > maxFATFiles {
				return errors.New("fat: too many names")
			}
			switch {
			case e[0] == 0xe5:
				long = nil
			case e[11] == 0x0f:
				long = append(longPart(e), long...)
			case e[11]&0x08 != 0:
				long = nil
			default:
				name := shortName(e)
				if len(long) > 0 {
					name = string(utf16.Decode(long))
				}
				long = nil
				if name == "." || name == ".." {
					continue
				}
				if err := v.entry(path+"/"+name, e, depth); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (v *fat) entry(path string, e []byte, depth int) error {
	le := binary.LittleEndian
	first := uint32(le.Uint16(e[20:]))<<16 | uint32(le.Uint16(e[26:]))
	if e[11]&0x10 != 0 {
		return v.folder(path, first, depth+1)
	}
	f := FATFile{Path: strings.TrimPrefix(path, "/"), Size: int64(le.Uint32(e[28:])), First: first}
	need := (f.Size + v.cluster - 1) / v.cluster
	chain := v.chain(first, need)
	if int64(len(chain)) == need {
		h, left, block := sha256.New(), f.Size, make([]byte, v.cluster)
		for _, c := range chain {
			b := block[:min(left, v.cluster)]
			if _, err := v.r.ReadAt(b, v.data+int64(c-2)*v.cluster); err != nil {
				return err
			}
			h.Write(b)
			left -= int64(len(b))
		}
		f.Digest = hex.EncodeToString(h.Sum(nil))
	}
	v.files = append(v.files, f)
	return nil
}

// longPart is the part of a long name in one entry; parts come last first.
func longPart(e []byte) []uint16 {
	var out []uint16
	for _, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
		c := binary.LittleEndian.Uint16(e[at:])
		if c == 0 || c == 0xffff {
			break
		}
		out = append(out, c)
	}
	return out
}

func shortName(e []byte) string {
	name, ext := strings.TrimRight(string(e[:8]), " "), strings.TrimRight(string(e[8:11]), " ")
	if e[12]&0x08 != 0 {
		name = strings.ToLower(name)
	}
	if e[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	if ext != "" {
		return name + "." + ext
	}
	return name
}

// FsckFAT names what fsck.fat finds on a volume, "clean" for nothing. It only
// looks.
func FsckFAT(out string) []string {
	words := []struct{ has, name string }{
		{"Dirty bit is set", "dirty bit"},
		{"Fs was not properly unmounted", "dirty bit"},
		{"Free cluster summary", "free cluster summary"},
		{"Reclaimed", "clusters of no file"},
		{"unused cluster", "clusters of no file"},
		{"Orphaned long file name", "long name of no file"},
		{"Unfinished long file name", "long name of no file"},
		{"Wrong checksum for long file name", "long name of another file"},
		{"share clusters", "two names of one chain"},
		{"Duplicate directory entry", "two entries of one name"},
		{"differences between boot sector and its backup", "boot sector copy differs"},
		{"FATs differ", "FATs differ"},
		{"Cluster", "chain out of order"},
		{"File size is", "chain too short"},
		{"Contains a free cluster", "chain too short"},
		{"Start cluster beyond limit", "bad start of a chain"},
		{"Bad short file name", "bad name"},
	}
	var found []string
	have := map[string]bool{}
	for line := range strings.Lines(out) {
		for _, w := range words {
			if strings.Contains(line, w.has) {
				if !have[w.name] {
					have[w.name] = true
					found = append(found, w.name)
				}
				break
			}
		}
	}
	return found
}

func (f FATFile) String() string {
	return fmt.Sprintf("%s (%d bytes, %.12s)", f.Path, f.Size, f.Digest)
}
