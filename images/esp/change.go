// SPDX-License-Identifier: Apache-2.0

package esp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// stretch is how much is written at once, in bytes.
const stretch = 256 << 10

// Put writes a file of at most limit bytes and the folders above it. The name
// is written when all else is on disk: a cut leaves no file, or the one that
// was there before.
func (v *Volume) Put(path string, content io.Reader, limit int64) error {
	dir, name := split(path)
	if err := checkName(name); err != nil {
		return fmt.Errorf("esp: %q: %w", path, err)
	}
	d, err := v.makeFolders(dir)
	if err != nil {
		return err
	}
	old, there := d.lookup(name)
	if there && old.dir() {
		return fmt.Errorf("esp: %s is a folder", path)
	}
	first, size, err := v.store(content, min(limit, maxFile))
	if err != nil {
		// Nothing leads to what was written so far.
		return errors.Join(fmt.Errorf("%s: %w", path, err), v.drop(first))
	}
	if err := v.flush(); err != nil {
		return err
	}
	if err := v.dev.Sync(); err != nil {
		return err
	}
	if !there {
		return v.enter(d, name, attrArchive, first, size)
	}
	// First cluster and size are in one slot: the file changes in one write.
	le, e := binary.LittleEndian, d.slot(old.last)
	le.PutUint16(e[20:], uint16(first>>16))
	le.PutUint16(e[26:], uint16(first))
	le.PutUint32(e[28:], uint32(size))
	if err := d.commit(); err != nil {
		return err
	}
	return v.drop(old.cluster)
}

// drop gives up clusters that no name leads to any more, on disk.
func (v *Volume) drop(first uint32) error {
	if err := v.release(first); err != nil {
		return err
	}
	if err := v.flush(); err != nil {
		return err
	}
	return v.dev.Sync()
}

// store writes content to free clusters. It gives the first one also with an
// error.
func (v *Volume) store(content io.Reader, limit int64) (first uint32, size int64, err error) {
	buf := make([]byte, max(stretch/v.clusterSize(), 1)*v.clusterSize())
	last := uint32(0)
	for {
		n, err := io.ReadFull(content, buf)
		if n == 0 && errors.Is(err, io.EOF) {
			return first, size, nil
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return first, size, err
		}
		if size += int64(n); size > limit {
			return first, size, fmt.Errorf("more than %d bytes", limit)
		}
		clear(buf[n:])
		for at := int64(0); at < int64(n); {
			c, err := v.alloc()
			if err != nil {
				return first, size, err
			}
			if first == 0 {
				first = c
			} else {
				v.set(last, c)
			}
			last = c
			// Clusters in a row are one write.
			k := v.clusterSize()
			for at+k < int64(n) && v.from == int64(last)+1 && v.next(uint32(v.from)) == 0 {
				c, err := v.alloc()
				if err != nil {
					return first, size, err
				}
				v.set(last, c)
				last = c
				k += v.clusterSize()
			}
			if _, err := v.dev.WriteAt(buf[at:at+k], v.clusterAt(last)-k+v.clusterSize()); err != nil {
				return first, size, err
			}
			at += k
		}
		if err != nil {
			return first, size, nil
		}
	}
}

// makeFolders finds a folder and makes what is missing of its path.
func (v *Volume) makeFolders(path string) (*folder, error) {
	d, err := v.load(v.root)
	if err != nil || path == "" {
		return d, err
	}
	parts := strings.Split(path, "/")
	if len(parts) > maxDepth {
		return nil, fmt.Errorf("esp: %q is deeper than %d folders", path, maxDepth)
	}
	for _, name := range parts {
		if err := checkName(name); err != nil {
			return nil, fmt.Errorf("esp: %q: %w", path, err)
		}
		e, ok := d.lookup(name)
		if ok && !e.dir() {
			return nil, fmt.Errorf("esp: %s of %s is a file", name, path)
		}
		if !ok {
			if e.cluster, err = v.makeFolder(d, name); err != nil {
				return nil, err
			}
		}
		if d, err = v.load(e.cluster); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// makeFolder makes an empty folder: its cluster first, then its name.
func (v *Volume) makeFolder(d *folder, name string) (uint32, error) {
	c, err := v.alloc()
	if err != nil {
		return 0, err
	}
	up := d.chain[0]
	if up == v.root {
		up = 0
	}
	b := make([]byte, v.clusterSize())
	date, clock := stamp(v.now())
	copy(b, shortEntry([11]byte([]byte(".          ")), attrDir, c, 0, date, clock))
	copy(b[entrySize:], shortEntry([11]byte([]byte("..         ")), attrDir, up, 0, date, clock))
	if _, err := v.dev.WriteAt(b, v.clusterAt(c)); err != nil {
		return 0, err
	}
	if err := v.flush(); err != nil {
		return 0, err
	}
	if err := v.dev.Sync(); err != nil {
		return 0, err
	}
	return c, v.enter(d, name, attrDir, c, 0)
}

// enter adds a name to a folder, in one write.
func (v *Volume) enter(d *folder, name string, attr byte, cluster uint32, size int64) error {
	set := d.set(name, [11]byte{}, attr, cluster, size)
	at, err := d.room(len(set) / entrySize)
	if err != nil {
		return err
	}
	d.put(at, set)
	return d.commit()
}

// room finds n slots in one sector, and makes the folder longer for them.
func (d *folder) room(n int) (int, error) {
	if n > slotsPerSector {
		return 0, fmt.Errorf("esp: a name of %d entries does not fit a sector", n)
	}
	if at := d.place(n, -1); at >= 0 {
		return at, nil
	}
	if err := d.grow(); err != nil {
		return 0, err
	}
	return d.place(n, -1), nil
}

// Rename gives a file another name in its folder. Where both names fit the
// sector that the old one lies in, as they nearly always do, it is one write.
// Where they do not, a cut may leave both names, for the same bytes.
func (v *Volume) Rename(from, to string) error {
	dir, name := split(from)
	toDir, toName := split(to)
	if !strings.EqualFold(dir, toDir) {
		return fmt.Errorf("esp: %s and %s are in different folders", from, to)
	}
	if err := checkName(toName); err != nil {
		return fmt.Errorf("esp: %q: %w", to, err)
	}
	d, err := v.find(dir)
	if err != nil {
		return err
	}
	old, ok := d.lookup(name)
	if !ok || old.dir() {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	if other, taken := d.lookup(toName); taken && other.first != old.first {
		return &fs.PathError{Op: "rename", Path: to, Err: fs.ErrExist}
	}
	one := old.first/slotsPerSector == old.last/slotsPerSector
	// The short name stays what it is where it is only a stand-in: it is
	// unlike any other already.
	short := old.short
	if old.first == old.last {
		short = [11]byte{}
	}
	set := d.set(toName, short, old.attr, old.cluster, old.size)
	n := len(set) / entrySize
	if one {
		d.clear(old)
		if n <= old.last-old.first+1 {
			d.put(old.last-n+1, set)
			return d.commit()
		}
		if at := d.place(n, old.last); at >= 0 {
			d.put(at, set)
			return d.commit()
		}
		d.restore(old)
	}
	set = d.set(toName, [11]byte{}, old.attr, old.cluster, old.size)
	at, err := d.room(len(set) / entrySize)
	if err != nil {
		return err
	}
	d.put(at, set)
	if err := d.commit(); err != nil {
		return err
	}
	d.clear(old)
	return d.commit()
}

// restore undoes clear.
func (d *folder) restore(e dirEntry) {
	copy(d.b[e.first*entrySize:(e.last+1)*entrySize], d.now[e.first*entrySize:])
}

// Remove removes a file: its name first, then its clusters, but for those
// that another name leads to. One that is not there is no error.
func (v *Volume) Remove(path string) error {
	dir, name := split(path)
	d, err := v.find(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	e, ok := d.lookup(name)
	if !ok {
		return nil
	}
	if e.dir() {
		return fmt.Errorf("esp: %s is a folder", path)
	}
	d.clear(e)
	if err := d.commit(); err != nil {
		return err
	}
	return v.drop(e.cluster)
}
