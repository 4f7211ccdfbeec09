// SPDX-License-Identifier: Apache-2.0

package esp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

// Device is what a volume lies on. A write of one sector is taken to be there
// or not after a cut, never half; what was written before Sync is there after.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Info is one name in a folder.
type Info struct {
	Name string
	// Size in bytes; 0 for a folder.
	Size int64
	Dir  bool
}

// Volume is a FAT32 volume that is changed in place. FAT has no journal, so
// every change is ordered such that its last write, of one sector, makes it:
// a cut before it leaves clusters that no name leads to, which the next Edit
// takes for free. Nobody else may have the volume open.
type Volume struct {
	geometry
	dev Device
	fat []byte
	// refs counts the names that lead to a cluster.
	refs  []uint8
	dirty map[int64]bool // sectors of the FAT
	// sound is false where the folders could not be read to their end: then
	// nothing that looks unused is taken.
	sound bool
	now   func() time.Time
	from  int64 // where the search for a free cluster goes on
}

// maxShared bounds how many names of one cluster are counted.
const maxShared = 255

// Edit opens the volume of size bytes on a device. It writes nothing.
func Edit(dev Device, size int64) (*Volume, error) {
	g, err := readGeometry(dev, size)
	if err != nil {
		return nil, err
	}
	b := make([]byte, sector)
	if _, err := io.ReadFull(io.NewSectionReader(dev, 0, sector), b); err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint16(b[40:])&0x80 != 0 {
		return nil, errors.New("esp: the FATs are not copies of each other, such a volume is not changed")
	}
	v := &Volume{geometry: g, dev: dev, refs: make([]uint8, g.clusters+2), dirty: map[int64]bool{}, now: time.Now, from: 2}
	v.fat = make([]byte, (g.clusters+2)*4)
	if _, err := io.ReadFull(io.NewSectionReader(dev, g.reserved*sector, int64(len(v.fat))), v.fat); err != nil {
		return nil, fmt.Errorf("esp: read the FAT: %w", err)
	}
	seen := 0
	v.sound = v.walk(g.root, 0, &seen) == nil
	if v.sound {
		v.reclaim()
	}
	return v, nil
}

// walk counts what leads to each cluster.
func (v *Volume) walk(first uint32, depth int, seen *int) error {
	if depth > maxDepth {
		return errors.New("esp: folders are too deep")
	}
	d, err := v.load(first)
	if err != nil {
		return err
	}
	if err := v.count(d.chain, true); err != nil {
		return err
	}
	for _, e := range d.entries() {
		if *seen++; *seen > maxFiles {
			return fmt.Errorf("esp: more than %d files", maxFiles)
		}
		if e.dir() {
			if err := v.walk(e.cluster, depth+1, seen); err != nil {
				return err
			}
			continue
		}
		chain, err := v.chain(e.cluster, v.clusters)
		if err != nil {
			return err
		}
		if err := v.count(chain, false); err != nil {
			return err
		}
	}
	return nil
}

func (v *Volume) count(chain []uint32, once bool) error {
	for _, c := range chain {
		if once && v.refs[c] > 0 {
			return fmt.Errorf("esp: cluster %d is in two folders", c)
		}
		if v.refs[c] < maxShared {
			v.refs[c]++
		}
	}
	return nil
}

// reclaim takes clusters that are marked as used and that no name leads to,
// the rest of a write that was cut. It is on disk with the next change.
func (v *Volume) reclaim() {
	for c := uint32(2); int64(c) < v.clusters+2; c++ {
		if n := v.next(c); n != 0 && n != badCluster && v.refs[c] == 0 {
			v.set(c, 0)
		}
	}
}

const badCluster = 0x0ffffff7

func (v *Volume) next(c uint32) uint32 { return binary.LittleEndian.Uint32(v.fat[4*c:]) & 0x0fffffff }

// set changes one entry of the FAT; its upper four bits are reserved.
func (v *Volume) set(c, to uint32) {
	le := binary.LittleEndian
	le.PutUint32(v.fat[4*c:], le.Uint32(v.fat[4*c:])&0xf0000000|to)
	v.dirty[int64(c)*4/sector] = true
}

// chain gives the clusters from first on; none for 0.
func (v *Volume) chain(first uint32, limit int64) ([]uint32, error) {
	var out []uint32
	if first == 0 {
		return nil, nil
	}
	for c := first; c < 0x0ffffff8; c = v.next(c) {
		if c < 2 || int64(c) >= v.clusters+2 {
			return nil, fmt.Errorf("esp: a chain leaves the volume at cluster %d", c)
		}
		if int64(len(out)) == limit {
			return nil, errors.New("esp: a chain is longer than it can be")
		}
		out = append(out, c)
	}
	return out, nil
}

// flush writes what changed of the FATs, and how much is free.
func (v *Volume) flush() error {
	if len(v.dirty) == 0 {
		return nil
	}
	for i := range v.fats {
		for s := range v.dirty {
			b := v.fat[s*sector : min((s+1)*sector, int64(len(v.fat)))]
			if _, err := v.dev.WriteAt(b, (v.reserved+i*v.perFAT+s)*sector); err != nil {
				return err
			}
		}
	}
	clear(v.dirty)
	return v.hint()
}

// hint notes the free clusters where Linux looks for their number.
func (v *Volume) hint() error {
	b := make([]byte, sector)
	le := binary.LittleEndian
	if _, err := v.dev.ReadAt(b, sector); err != nil {
		return err
	}
	if le.Uint32(b) != 0x41615252 || le.Uint32(b[484:]) != 0x61417272 {
		return nil
	}
	free, err := v.Free()
	if err != nil {
		return err
	}
	le.PutUint32(b[488:], uint32(free/v.clusterSize()))
	le.PutUint32(b[492:], uint32(v.from))
	_, err = v.dev.WriteAt(b, sector)
	return err
}

// Free gives the room left in bytes.
func (v *Volume) Free() (int64, error) {
	n := int64(0)
	for c := uint32(2); int64(c) < v.clusters+2; c++ {
		if v.next(c) == 0 {
			n++
		}
	}
	return n * v.clusterSize(), nil
}

// alloc takes one free cluster, the end of its chain.
func (v *Volume) alloc() (uint32, error) {
	for range v.clusters {
		c := uint32(v.from)
		if v.from++; v.from >= v.clusters+2 {
			v.from = 2
		}
		if v.next(c) == 0 {
			v.set(c, endOfChain)
			v.refs[c] = 1
			return c, nil
		}
	}
	return 0, errors.New("esp: no room left on the ESP; remove files that are not Holdfast's")
}

// release gives up a name's clusters, but for those that another name leads
// to.
func (v *Volume) release(first uint32) error {
	chain, err := v.chain(first, v.clusters)
	if err != nil || !v.sound {
		return err
	}
	for _, c := range chain {
		if v.refs[c] > 1 {
			v.refs[c]--
			continue
		}
		v.refs[c] = 0
		v.set(c, 0)
	}
	return nil
}

// List gives the names in a folder, none where it is not there.
func (v *Volume) List(path string) ([]Info, error) {
	d, err := v.find(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var out []Info
	for _, e := range d.entries() {
		out = append(out, Info{Name: e.name, Size: e.size, Dir: e.dir()})
	}
	return out, nil
}

// find loads a folder by its path; "" is the root.
func (v *Volume) find(path string) (*folder, error) {
	d, err := v.load(v.root)
	if err != nil || path == "" {
		return d, err
	}
	for _, name := range strings.Split(path, "/") {
		e, ok := d.lookup(name)
		if !ok || !e.dir() {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		if d, err = v.load(e.cluster); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// Open gives a file and its size in bytes. It reads from the device as it is
// then: not after the file was written over or removed.
func (v *Volume) Open(path string) (io.ReaderAt, int64, error) {
	dir, name := split(path)
	d, err := v.find(dir)
	if err != nil {
		return nil, 0, err
	}
	e, ok := d.lookup(name)
	if !ok || e.dir() {
		return nil, 0, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	chain, err := v.chain(e.cluster, v.clusters)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	if int64(len(chain)) < v.clustersFor(e.size) {
		return nil, 0, fmt.Errorf("esp: %s has %d bytes, but its chain ends before", path, e.size)
	}
	r := &reader{geometry: v.geometry, r: v.dev}
	at := readerAtFunc(func(b []byte, off int64) (int, error) {
		if off >= e.size {
			return 0, io.EOF
		}
		k := min(int64(len(b)), e.size-off)
		n, err := r.readAt(chain, b[:k], off)
		if err == nil && k < int64(len(b)) {
			err = io.EOF
		}
		return n, err
	})
	return at, e.size, nil
}

// Close ends the use of the volume. There is nothing left to write.
func (v *Volume) Close() error { return nil }
