// SPDX-License-Identifier: Apache-2.0

package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// maxFolder bounds one folder in bytes, as the specification does.
const maxFolder = 65536 * entrySize

// Read lists the files of a FAT32 volume of size bytes in the order of their
// folders; each File streams its content through Open. It reads what Linux and
// firmware write as well as Write's own. Chains that loop, cross or leave the
// volume are refused.
func Read(r io.ReaderAt, size int64) ([]File, error) {
	g, err := readGeometry(r, size)
	if err != nil {
		return nil, err
	}
	v := &reader{geometry: g, r: r, used: make([]bool, g.clusters+2)}
	v.fat = make([]byte, (g.clusters+2)*4)
	if _, err := io.ReadFull(io.NewSectionReader(r, g.reserved*sector, int64(len(v.fat))), v.fat); err != nil {
		return nil, fmt.Errorf("esp: read the FAT: %w", err)
	}
	err = v.folder("", g.root, 0)
	return v.files, err
}

func readGeometry(r io.ReaderAt, size int64) (geometry, error) {
	b := make([]byte, sector)
	if size < sector || size > maxSize {
		return geometry{}, fmt.Errorf("esp: a volume of %d bytes is out of range", size)
	}
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, sector), b); err != nil {
		return geometry{}, fmt.Errorf("esp: read the boot sector: %w", err)
	}
	le := binary.LittleEndian
	if b[510] != 0x55 || b[511] != 0xaa || le.Uint16(b[11:]) != sector || le.Uint16(b[17:]) != 0 || le.Uint16(b[22:]) != 0 {
		return geometry{}, errors.New("esp: not FAT32 with sectors of 512 bytes")
	}
	g := geometry{
		sectors: int64(le.Uint32(b[32:])), perCluster: int64(b[13]), perFAT: int64(le.Uint32(b[36:])),
		reserved: int64(le.Uint16(b[14:])), fats: int64(b[16]), root: le.Uint32(b[44:]),
	}
	if g.perCluster == 0 || g.perCluster&(g.perCluster-1) != 0 || g.reserved == 0 || g.fats == 0 || g.fats > 2 ||
		g.sectors > size/sector || g.dataAt() >= g.sectors {
		return geometry{}, errors.New("esp: the boot sector does not fit the volume")
	}
	g.clusters = (g.sectors - g.dataAt()) / g.perCluster
	if g.clusters > maxClusters || (g.clusters+2)*4 > g.perFAT*sector {
		return geometry{}, errors.New("esp: the FAT is too short for the volume")
	}
	return g, nil
}

type reader struct {
	geometry
	r     io.ReaderAt
	fat   []byte
	used  []bool
	files []File
	seen  int
}

// chain gives the clusters from first on, at most limit of them; each cluster
// of the volume belongs to one chain only, which also ends loops.
func (v *reader) chain(first uint32, limit int64) ([]uint32, error) {
	var out []uint32
	for c := first; c < 0x0ffffff8; c = binary.LittleEndian.Uint32(v.fat[4*c:]) & 0x0fffffff {
		if c < 2 || int64(c) >= v.clusters+2 {
			return nil, fmt.Errorf("chain leaves the volume at cluster %d", c)
		}
		if v.used[c] {
			return nil, fmt.Errorf("cluster %d is used twice", c)
		}
		if int64(len(out)) == limit {
			return nil, errors.New("chain is longer than its size says")
		}
		v.used[c] = true
		out = append(out, c)
	}
	return out, nil
}

// read fills b from the start of a chain.
func (v *reader) readAt(chain []uint32, b []byte, off int64) (n int, err error) {
	for n < len(b) {
		i, in := (off+int64(n))/v.clusterSize(), (off+int64(n))%v.clusterSize()
		if i >= int64(len(chain)) {
			return n, io.ErrUnexpectedEOF
		}
		k := min(int64(len(b)-n), v.clusterSize()-in)
		got, err := v.r.ReadAt(b[n:int64(n)+k], v.clusterAt(chain[i])+in)
		n += got
		if int64(got) < k {
			return n, err
		}
	}
	return n, nil
}

func (v *reader) folder(path string, first uint32, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("esp: %q is deeper than %d folders", path, maxDepth)
	}
	chain, err := v.chain(first, maxFolder/v.clusterSize()+1)
	if err != nil {
		return fmt.Errorf("esp: folder %q: %w", path, err)
	}
	b := make([]byte, int64(len(chain))*v.clusterSize())
	if _, err := v.readAt(chain, b, 0); err != nil {
		return fmt.Errorf("esp: folder %q: %w", path, err)
	}
	var long longName
	for ; len(b) > 0 && b[0] != 0; b = b[entrySize:] {
		e := b[:entrySize]
		if e[0] == 0xe5 {
			long = longName{}
			continue
		}
		if e[11]&0x3f == attrLong {
			long.add(e)
			continue
		}
		name := long.name([11]byte(e[:11]))
		long = longName{}
		if e[11]&attrVolume != 0 || e[0] == '.' {
			continue
		}
		if name == "" {
			name = shortText(e)
		}
		if strings.ContainsAny(name, "/\x00") || name == "" || name == "." || name == ".." {
			return fmt.Errorf("esp: folder %q holds a name that is none: %q", path, name)
		}
		if path != "" {
			name = path + "/" + name
		}
		if v.seen++; v.seen > maxFiles {
			return fmt.Errorf("esp: more than %d files", maxFiles)
		}
		if err := v.entry(name, e, depth); err != nil {
			return err
		}
	}
	return nil
}

func (v *reader) entry(path string, e []byte, depth int) error {
	le := binary.LittleEndian
	first := uint32(le.Uint16(e[20:]))<<16 | uint32(le.Uint16(e[26:]))
	if e[11]&attrDir != 0 {
		return v.folder(path, first, depth+1)
	}
	size := int64(le.Uint32(e[28:]))
	var chain []uint32
	if first != 0 {
		var err error
		if chain, err = v.chain(first, v.clustersFor(size)); err != nil {
			return fmt.Errorf("esp: %s: %w", path, err)
		}
	}
	if int64(len(chain)) < v.clustersFor(size) {
		return fmt.Errorf("esp: %s has %d bytes, but its chain ends before", path, size)
	}
	v.files = append(v.files, File{Path: path, Size: size, Open: func() (io.ReadCloser, error) {
		at := readerAtFunc(func(b []byte, off int64) (int, error) { return v.readAt(chain, b, off) })
		return io.NopCloser(io.NewSectionReader(at, 0, size)), nil
	}})
	return nil
}

type readerAtFunc func(b []byte, off int64) (int, error)

func (f readerAtFunc) ReadAt(b []byte, off int64) (int, error) { return f(b, off) }

// longName collects long entries, which come last part first.
type longName struct {
	units []uint16
	next  byte
	sum   byte
}

func (l *longName) add(e []byte) {
	order := e[0] & 0x3f
	switch {
	case e[0]&0x40 != 0 && order >= 1 && order <= 20:
		*l = longName{units: make([]uint16, int(order)*unitsPerEntry), sum: e[13]}
	case order == 0 || order != l.next || e[13] != l.sum:
		*l = longName{}
		return
	}
	l.next = order - 1
	for i, at := range unitAt {
		l.units[int(order-1)*unitsPerEntry+i] = binary.LittleEndian.Uint16(e[at:])
	}
}

// name is the long name if it is complete and belongs to short, else "".
func (l *longName) name(short [11]byte) string {
	if len(l.units) == 0 || l.next != 0 || l.sum != longSum(short) {
		return ""
	}
	n := 0
	for n < len(l.units) && l.units[n] != 0 {
		n++
	}
	return string(utf16.Decode(l.units[:n]))
}

// shortText is an 8.3 name as people write it. Linux marks names that are all
// lower case in two bits instead of a long entry.
func shortText(e []byte) string {
	base, ext := string(bytes.TrimRight(e[:8], " ")), string(bytes.TrimRight(e[8:11], " "))
	if e[12]&0x08 != 0 {
		base = strings.ToLower(base)
	}
	if e[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	if ext != "" {
		base += "." + ext
	}
	return base
}
