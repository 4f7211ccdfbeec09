// SPDX-License-Identifier: Apache-2.0

// Package initramfs packs an initramfs so that two versions of it share most
// of their bytes: not as one compressed archive, in which everything behind
// the first change differs, but as a row of small archives, each compressed by
// itself, which the kernel unpacks one after the other
// (Documentation/driver-api/early-userspace/buffer-format.rst). It takes the
// plain archive that dracut makes, in the format "newc".
package initramfs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
)

const (
	magic   = "070701"
	headLen = len(magic) + 13*8
	trailer = "TRAILER!!!"

	// alone is the size in bytes from which a file is an archive of its own.
	// Smaller ones share archives of about group bytes.
	alone = 32 << 10
	group = 64 << 10

	// Bounds on what is read: the kernel unpacks all of it into memory.
	maxArchive = 512 << 20
	maxName    = 4096
	maxEntries = 100_000
)

// The fields of a header that are read here, counted from the magic.
const (
	fieldMode  = 1
	fieldNlink = 4
	fieldSize  = 6
	fieldName  = 11
)

const (
	typeMask = 0o170000
	typeDir  = 0o040000
	typeFile = 0o100000
)

// File is a file that Pack adds.
type File struct {
	// Path without leading slash; its folder is made where the archive has
	// none.
	Path string
	Mode fs.FileMode
	Data []byte
}

// entry is one member: its header, name and data as they lie in the archive,
// with their padding.
type entry struct {
	name  string
	mode  uint32
	links uint32
	size  int
	raw   []byte
}

// Pack packs a plain newc archive with add on top of it; a file of the archive
// that add names is replaced. mtime, in seconds since 1970, is the time of what
// is added. Equal inputs make equal bytes.
func Pack(archive []byte, add []File, mtime int64) ([]byte, error) {
	list, err := read(archive)
	if err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	if list, err = merge(list, add, mtime); err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderCRC(false), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer enc.Close()
	end := member(entry{name: trailer, links: 1}, nil, 0)
	var out []byte
	for _, a := range split(list) {
		out = enc.EncodeAll(append(bytes.Join(a, nil), end...), out)
	}
	return out, nil
}

// split gives the archives: first folders, links and small files in their
// order, then each large file. Where an archive of small files ends depends on
// a name, not on a count, so that a file more or less moves no other boundary.
func split(list []entry) [][][]byte {
	var small, large [][][]byte
	var now [][]byte
	n := 0
	for _, e := range list {
		if e.size >= alone {
			large = append(large, [][]byte{e.raw})
			continue
		}
		now = append(now, e.raw)
		n += len(e.raw)
		if n >= group && crc32.ChecksumIEEE([]byte(e.name))%4 == 0 {
			small, now, n = append(small, now), nil, 0
		}
	}
	if len(now) > 0 {
		small = append(small, now)
	}
	return append(small, large...)
}

// read lists the members of a newc archive.
func read(b []byte) ([]entry, error) {
	if len(b) > maxArchive {
		return nil, fmt.Errorf("the archive has more than %d bytes", maxArchive)
	}
	var list []entry
	for at := 0; ; {
		if len(list) > maxEntries {
			return nil, fmt.Errorf("the archive has more than %d members", maxEntries)
		}
		e, err := next(b[at:])
		if err != nil {
			return nil, fmt.Errorf("byte %d: %w", at, err)
		}
		if e.name == trailer {
			return list, nil
		}
		if e.mode&typeMask == typeFile && e.links > 1 {
			return nil, fmt.Errorf("%s has hard links, which archives of one file each cannot keep", e.name)
		}
		list = append(list, e)
		at += len(e.raw)
	}
}

// next reads the member that b begins with.
func next(b []byte) (e entry, err error) {
	if len(b) < headLen || string(b[:len(magic)]) != magic {
		return e, errors.New("no header of a newc archive")
	}
	field := func(i int) uint32 {
		at := len(magic) + 8*i
		v, perr := strconv.ParseUint(string(b[at:at+8]), 16, 32)
		if perr != nil {
			err = fmt.Errorf("field %d: %w", i, perr)
		}
		return uint32(v)
	}
	name, size := int64(field(fieldName)), int64(field(fieldSize))
	e.mode, e.links, e.size = field(fieldMode), field(fieldNlink), int(size)
	if err != nil {
		return e, err
	}
	data := pad(int64(headLen) + name)
	if name < 2 || name > maxName || data+size > int64(len(b)) {
		return e, fmt.Errorf("a name of %d bytes and a file of %d, which the archive has not", name, size)
	}
	e.name = strings.TrimSuffix(string(b[headLen:int64(headLen)+name]), "\x00")
	if strings.Contains(e.name, "\x00") {
		return e, fmt.Errorf("a name with a zero byte: %q", e.name)
	}
	// The last padding may be missing.
	e.raw = b[:min(pad(data+size), int64(len(b)))]
	return e, nil
}

func pad(n int64) int64 { return (n + 3) &^ 3 }

// merge puts files into the list, and folders for them.
func merge(list []entry, add []File, mtime int64) ([]entry, error) {
	add = slices.Clone(add)
	slices.SortFunc(add, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	dirs := map[string]bool{".": true}
	for _, e := range list {
		if e.mode&typeMask == typeDir {
			dirs[path.Clean(e.name)] = true
		}
	}
	var folder func(p string)
	folder = func(p string) {
		if !dirs[p] {
			folder(path.Dir(p))
			dirs[p] = true
			e := entry{name: p, mode: typeDir | 0o755, links: 2}
			e.raw = member(e, nil, mtime)
			list = append(list, e)
		}
	}
	for _, f := range add {
		if !fs.ValidPath(f.Path) || f.Path == "." || len(f.Path) >= maxName || dirs[f.Path] {
			return nil, fmt.Errorf("%q is no path of a file to add", f.Path)
		}
		list = slices.DeleteFunc(list, func(e entry) bool { return path.Clean(e.name) == f.Path })
		folder(path.Dir(f.Path))
		e := entry{name: f.Path, mode: typeFile | uint32(f.Mode.Perm()), links: 1, size: len(f.Data)}
		e.raw = member(e, f.Data, mtime)
		list = append(list, e)
	}
	return list, nil
}

// member is an entry as an archive has it. It belongs to root and has no inode
// number: the kernel looks at that for hard links only.
func member(e entry, data []byte, mtime int64) []byte {
	var b bytes.Buffer
	b.WriteString(magic)
	for _, v := range []uint32{0, e.mode, 0, 0, e.links, uint32(mtime), uint32(len(data)), 0, 0, 0, 0, uint32(len(e.name) + 1), 0} {
		fmt.Fprintf(&b, "%08X", v)
	}
	b.WriteString(e.name)
	b.Write(make([]byte, pad(int64(b.Len())+1)-int64(b.Len())))
	b.Write(data)
	b.Write(make([]byte, pad(int64(b.Len()))-int64(b.Len())))
	return b.Bytes()
}
