// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// Block is a run of bytes on a disk.
type Block struct{ Offset, Length int64 }

// Middle is a byte well inside the block.
func (b Block) Middle() int64 { return b.Offset + b.Length/2 }

// squash reads just enough of a squashfs 4.0 image to say where a file's bytes
// lie: a test that damages a file must hit that file, and no tool tells where
// it is. The format is Documentation/filesystems/squashfs.rst of the kernel
// and the format notes of squashfs-tools-ng.
type squash struct {
	r          io.ReaderAt
	blockSize  int64
	comp       uint16
	root       uint64
	inodes     int64 // offsets of the tables
	dirs       int64
	fragments  int64
	fragmentNo uint32
}

const (
	squashMagic = 0x73717368
	metaSize    = 8192
	noFragment  = 0xffffffff
	// maxDir bounds one folder's listing.
	maxDir = 16 << 20
)

var errSquash = errors.New("not a squashfs this reader knows")

func openSquash(r io.ReaderAt) (*squash, error) {
	var sb [96]byte
	if _, err := r.ReadAt(sb[:], 0); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if le.Uint32(sb[0:]) != squashMagic || le.Uint16(sb[28:]) != 4 {
		return nil, fmt.Errorf("superblock %x: %w", sb[:4], errSquash)
	}
	s := &squash{
		r:          r,
		blockSize:  int64(le.Uint32(sb[12:])),
		fragmentNo: le.Uint32(sb[16:]),
		comp:       le.Uint16(sb[20:]),
		root:       le.Uint64(sb[32:]),
		inodes:     int64(le.Uint64(sb[64:])),
		dirs:       int64(le.Uint64(sb[72:])),
		fragments:  int64(le.Uint64(sb[80:])),
	}
	if s.blockSize < 4096 || s.blockSize > 1<<20 {
		return nil, fmt.Errorf("block size %d: %w", s.blockSize, errSquash)
	}
	return s, nil
}

// metaBlock reads the metadata block at off: its content and the next offset.
func (s *squash) metaBlock(off int64) ([]byte, int64, error) {
	var head [2]byte
	if _, err := s.r.ReadAt(head[:], off); err != nil {
		return nil, 0, err
	}
	h := binary.LittleEndian.Uint16(head[:])
	raw := make([]byte, h&0x7fff)
	if len(raw) == 0 || len(raw) > metaSize {
		return nil, 0, fmt.Errorf("metadata block of %d bytes at %d: %w", len(raw), off, errSquash)
	}
	if _, err := s.r.ReadAt(raw, off+2); err != nil {
		return nil, 0, err
	}
	next := off + 2 + int64(len(raw))
	if h&0x8000 != 0 {
		return raw, next, nil
	}
	data, err := s.inflate(raw)
	return data, next, err
}

// unzstd is shared: making a decoder costs more than decoding a block.
var unzstd, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<20)) // fails for wrong options only

func (s *squash) inflate(raw []byte) (data []byte, err error) {
	switch s.comp {
	case 1:
		var r io.Reader
		if r, err = zlib.NewReader(bytes.NewReader(raw)); err == nil {
			data, err = io.ReadAll(io.LimitReader(r, metaSize+1))
		}
	case 6:
		data, err = unzstd.DecodeAll(raw, nil)
	default:
		err = fmt.Errorf("compression %d: %w", s.comp, errSquash)
	}
	if err == nil && (len(data) == 0 || len(data) > metaSize) {
		err = fmt.Errorf("metadata block of %d bytes: %w", len(data), errSquash)
	}
	return data, err
}

// meta reads n bytes of a metadata table from a reference: block offset from
// the table's start, and offset in the block.
func (s *squash) meta(table, block int64, offset, n int) ([]byte, error) {
	var all []byte
	for at := table + block; len(all) < offset+n; {
		data, next, err := s.metaBlock(at)
		if err != nil {
			return nil, err
		}
		all, at = append(all, data...), next
	}
	return all[offset : offset+n], nil
}

// inode reads an inode's first n bytes; ref is block<<16 | offset.
func (s *squash) inode(ref uint64, n int) ([]byte, error) {
	return s.meta(s.inodes, int64(ref>>16), int(ref&0xffff), n)
}

// Types of inodes.
const (
	typeDir, typeFile, typeLink    = 1, 2, 3
	typeDirX, typeFileX, typeLinkX = 8, 9, 10
)

// file is what an inode says of a regular file.
type file struct {
	start, size int64
	frag        uint32
	list        int // where the inode's block list begins
}

var errNoFile = errors.New("not a regular file")

func (s *squash) file(ref uint64) (file, error) {
	in, err := s.inode(ref, 16)
	if err != nil {
		return file{}, err
	}
	le := binary.LittleEndian
	switch le.Uint16(in) {
	case typeFile:
		if in, err = s.inode(ref, 32); err != nil {
			return file{}, err
		}
		return file{int64(le.Uint32(in[16:])), int64(le.Uint32(in[28:])), le.Uint32(in[20:]), 32}, nil
	case typeFileX:
		if in, err = s.inode(ref, 56); err != nil {
			return file{}, err
		}
		return file{int64(le.Uint64(in[16:])), int64(le.Uint64(in[24:])), le.Uint32(in[44:]), 56}, nil
	}
	return file{}, errNoFile
}

// firstBlock finds the first data block of a file, or the fragment block that
// holds it whole. Symbolic links are followed inside the image.
func (s *squash) firstBlock(name string) (Block, error) {
	ref, err := s.lookup(name, 0)
	if err != nil {
		return Block{}, err
	}
	f, err := s.file(ref)
	if err != nil {
		return Block{}, fmt.Errorf("/%s: %w", name, err)
	}
	if f.size <= 0 {
		return Block{}, fmt.Errorf("/%s is empty", name)
	}
	if f.size < s.blockSize && f.frag != noFragment {
		return s.fragment(f.frag)
	}
	in, err := s.inode(ref, f.list+4)
	if err != nil {
		return Block{}, err
	}
	// Bit 24 says that the block is stored as it is.
	length := int64(binary.LittleEndian.Uint32(in[f.list:]) &^ (1 << 24))
	if length == 0 {
		return Block{}, fmt.Errorf("/%s begins with a hole", name)
	}
	return Block{Offset: f.start, Length: length}, nil
}

func (s *squash) fragment(n uint32) (Block, error) {
	if n >= s.fragmentNo {
		return Block{}, fmt.Errorf("fragment %d of %d: %w", n, s.fragmentNo, errSquash)
	}
	const entry, perBlock = 16, metaSize / 16
	var at [8]byte
	if _, err := s.r.ReadAt(at[:], s.fragments+int64(n/perBlock)*8); err != nil {
		return Block{}, err
	}
	le := binary.LittleEndian
	data, _, err := s.metaBlock(int64(le.Uint64(at[:])))
	if err != nil {
		return Block{}, err
	}
	i := int(n%perBlock) * entry
	if i+entry > len(data) {
		return Block{}, errSquash
	}
	return Block{Offset: int64(le.Uint64(data[i:])), Length: int64(le.Uint32(data[i+8:]) &^ (1 << 24))}, nil
}

// lookup walks a path from the root to an inode reference.
func (s *squash) lookup(name string, links int) (uint64, error) {
	if links > 16 {
		return 0, fmt.Errorf("/%s: too many symbolic links", name)
	}
	ref := s.root
	parts := strings.Split(strings.Trim(name, "/"), "/")
	for i, part := range parts {
		next, err := s.entry(ref, part)
		if err != nil {
			return 0, fmt.Errorf("/%s: %w", strings.Join(parts[:i+1], "/"), err)
		}
		in, err := s.inode(next, 24)
		if err != nil {
			return 0, err
		}
		if t := binary.LittleEndian.Uint16(in); t == typeLink || t == typeLinkX {
			n := binary.LittleEndian.Uint32(in[20:])
			if n > 4096 {
				return 0, errSquash
			}
			if in, err = s.inode(next, 24+int(n)); err != nil {
				return 0, err
			}
			target := string(in[24:])
			if !strings.HasPrefix(target, "/") {
				target = strings.Join(parts[:i], "/") + "/" + target
			}
			rest := append([]string{target}, parts[i+1:]...)
			return s.lookup(cleanPath(strings.Join(rest, "/")), links+1)
		}
		ref = next
	}
	return ref, nil
}

func cleanPath(p string) string {
	var out []string
	for part := range strings.SplitSeq(p, "/") {
		switch part {
		case "", ".":
		case "..":
			out = out[:max(0, len(out)-1)]
		default:
			out = append(out, part)
		}
	}
	return strings.Join(out, "/")
}

// entry finds one name in the folder at ref.
func (s *squash) entry(ref uint64, name string) (found uint64, err error) {
	ok := false
	err = s.each(ref, func(n string, ref uint64) bool {
		if n == name {
			found, ok = ref, true
		}
		return !ok
	})
	if err == nil && !ok {
		err = errors.New("no such file")
	}
	return found, err
}

// largest is the name of the largest file in a folder.
func (s *squash) largest(dir string) (name string, err error) {
	ref, err := s.lookup(dir, 0)
	if err != nil {
		return "", err
	}
	var most int64
	var inner error
	err = s.each(ref, func(n string, ref uint64) bool {
		f, err := s.file(ref)
		if err == nil && f.size > most {
			name, most = n, f.size
		}
		if err != nil && !errors.Is(err, errNoFile) {
			inner = err
		}
		return inner == nil
	})
	if err = errors.Join(err, inner); err == nil && name == "" {
		err = fmt.Errorf("/%s holds no file", dir)
	}
	return name, err
}

// each calls visit for each entry of the folder at ref until it returns false.
func (s *squash) each(ref uint64, visit func(name string, ref uint64) bool) error {
	in, err := s.inode(ref, 32) // the shorter kind of folder; reading on may leave the table
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	var block int64
	var offset, size int
	switch le.Uint16(in) {
	case typeDir:
		block, size, offset = int64(le.Uint32(in[16:])), int(le.Uint16(in[24:])), int(le.Uint16(in[26:]))
	case typeDirX:
		if in, err = s.inode(ref, 40); err != nil {
			return err
		}
		size, block, offset = int(le.Uint32(in[20:])), int64(le.Uint32(in[24:])), int(le.Uint16(in[34:]))
	default:
		return errors.New("not a folder")
	}
	size -= 3 // the count includes "." and ".." that are not stored
	if size <= 0 {
		return nil
	}
	if size > maxDir {
		return fmt.Errorf("folder of %d bytes: %w", size, errSquash)
	}
	list, err := s.meta(s.dirs, block, offset, size)
	if err != nil {
		return err
	}
	for len(list) >= 12 {
		count, start := int(le.Uint32(list))+1, uint64(le.Uint32(list[4:]))
		list = list[12:]
		for ; count > 0 && len(list) >= 8; count-- {
			n := int(le.Uint16(list[6:])) + 1
			if len(list) < 8+n {
				return errSquash
			}
			if !visit(string(list[8:8+n]), start<<16|uint64(le.Uint16(list))) {
				return nil
			}
			list = list[8+n:]
		}
	}
	return nil
}
