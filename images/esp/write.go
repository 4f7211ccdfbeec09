// SPDX-License-Identifier: Apache-2.0

package esp

import (
	"encoding/binary"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"
)

// Write makes a volume of size bytes that holds files, all dated at. w must read
// as zeros so far, such as a fresh sparse file or a hole of a disk image
// (io.NewOffsetWriter); what no file uses is not written, so free space stays a
// hole. Files are laid out in the order of their upper-case names, each in one
// piece.
func Write(w io.WriterAt, size int64, files []File, volumeID uint32, at time.Time) error {
	g, err := plan(size)
	if err != nil {
		return err
	}
	root, err := grow(files)
	if err != nil {
		return err
	}
	v := &writer{w: w, geometry: g, next: rootStart}
	v.date, v.clock = stamp(at)
	if err := v.place(root); err != nil {
		return err
	}
	if used := v.next - 2; used > g.clusters {
		return fmt.Errorf("esp: the files need %d MiB, but the volume of %d MiB holds %d MiB: make it larger",
			(used*g.clusterSize()+1<<20-1)>>20, size>>20, g.clusters*g.clusterSize()>>20)
	}
	if err := v.fill(root, nil); err != nil {
		return err
	}
	le := binary.LittleEndian
	v.fat = make([]byte, 4*v.next)
	le.PutUint32(v.fat, 0x0ffffff8)
	le.PutUint32(v.fat[4:], endOfChain) // clean, no errors seen
	v.chains(root)
	return v.finish(volumeID)
}

type writer struct {
	geometry
	w           io.WriterAt
	next        int64 // first free cluster; beyond the volume when the files do not fit
	fat         []byte
	date, clock uint16
}

// place gives every node its clusters, folders before what is in them.
func (v *writer) place(n *node) error {
	size := n.file.size()
	if n.dir {
		sort.Slice(n.children, func(i, j int) bool {
			return strings.ToUpper(n.children[i].name) < strings.ToUpper(n.children[j].name)
		})
		entries := int64(2) // dots, or the label in the root
		for _, c := range n.children {
			entries += 1 + int64(len(c.name)+unitsPerEntry-1)/unitsPerEntry
		}
		if size = entries * entrySize; size > 65536*entrySize {
			return fmt.Errorf("esp: folder %s has too many names", n.name)
		}
	}
	if n.clusters = v.clustersFor(size); n.clusters > 0 {
		n.first = uint32(v.next)
		v.next += n.clusters
	}
	for _, c := range n.children {
		if err := v.place(c); err != nil {
			return err
		}
	}
	return nil
}

// fill writes the content of a node and of all below it.
func (v *writer) fill(n *node, parent *node) error {
	if n.dir {
		if _, err := v.w.WriteAt(v.directory(n, parent), v.clusterAt(n.first)); err != nil {
			return err
		}
		for _, c := range n.children {
			if err := v.fill(c, n); err != nil {
				return err
			}
		}
		return nil
	}
	if n.file.Open == nil {
		if len(n.file.Data) == 0 {
			return nil
		}
		_, err := v.w.WriteAt(n.file.Data, v.clusterAt(n.first))
		return err
	}
	r, err := n.file.Open()
	if err != nil {
		return fmt.Errorf("esp: %s: %w", n.file.Path, err)
	}
	defer r.Close()
	got, err := io.Copy(io.NewOffsetWriter(v.w, v.clusterAt(max(n.first, 2))), io.LimitReader(r, n.file.Size))
	if err != nil {
		return fmt.Errorf("esp: %s: %w", n.file.Path, err)
	}
	if k, _ := r.Read(make([]byte, 1)); got != n.file.Size || k != 0 {
		return fmt.Errorf("esp: %s does not have the %d bytes it was said to have", n.file.Path, n.file.Size)
	}
	return nil
}

func (v *writer) directory(n, parent *node) []byte {
	var out []byte
	taken := map[[11]byte]bool{}
	if parent == nil {
		out = shortEntry([11]byte([]byte(volumeLabel)), attrVolume, 0, 0, v.date, v.clock)
		taken[[11]byte([]byte(volumeLabel))] = true
	} else {
		up := parent.first
		if up == rootStart { // the root counts as cluster 0 here (specification, 6.5)
			up = 0
		}
		out = append(shortEntry([11]byte([]byte(".          ")), attrDir, n.first, 0, v.date, v.clock),
			shortEntry([11]byte([]byte("..         ")), attrDir, up, 0, v.date, v.clock)...)
	}
	for _, c := range n.children {
		short, exact := shortName(c.name, taken)
		if !exact {
			out = append(out, longEntries(c.name, short)...)
		}
		if c.dir {
			out = append(out, shortEntry(short, attrDir, c.first, 0, v.date, v.clock)...)
		} else {
			out = append(out, shortEntry(short, attrArchive, c.first, c.file.size(), v.date, v.clock)...)
		}
	}
	return out
}

// chains marks the clusters of a node and of all below it in the FAT.
func (v *writer) chains(n *node) {
	for i := range uint32(n.clusters) {
		to := n.first + i + 1
		if i == uint32(n.clusters)-1 {
			to = endOfChain
		}
		binary.LittleEndian.PutUint32(v.fat[4*(n.first+i):], to)
	}
	for _, c := range n.children {
		v.chains(c)
	}
}

// finish writes FATs and boot sectors, last, so that a volume that was cut off
// does not look like one.
func (v *writer) finish(volumeID uint32) error {
	for i := range int64(fatCount) {
		if _, err := v.w.WriteAt(v.fat, (v.reserved+i*v.perFAT)*sector); err != nil {
			return err
		}
	}
	le := binary.LittleEndian
	info := make([]byte, sector)
	le.PutUint32(info[0:], 0x41615252)
	le.PutUint32(info[484:], 0x61417272)
	le.PutUint32(info[488:], uint32(v.clusters-(v.next-2)))
	le.PutUint32(info[492:], uint32(v.next-1))
	le.PutUint32(info[508:], 0xaa550000)

	boot := make([]byte, sector)
	copy(boot, []byte{0xeb, 0x58, 0x90})
	copy(boot[3:], "MSWIN4.1") // the value the specification recommends
	le.PutUint16(boot[11:], sector)
	boot[13] = byte(v.perCluster)
	le.PutUint16(boot[14:], uint16(v.reserved))
	boot[16] = fatCount
	boot[21] = 0xf8
	le.PutUint16(boot[24:], 63)  // sectors per track and heads: only BIOS
	le.PutUint16(boot[26:], 255) // ever asked
	le.PutUint32(boot[32:], uint32(v.sectors))
	le.PutUint32(boot[36:], uint32(v.perFAT))
	le.PutUint32(boot[44:], v.root)
	le.PutUint16(boot[48:], 1) // FSInfo
	le.PutUint16(boot[50:], 6) // copy of the boot sector
	boot[64] = 0x80
	boot[66] = 0x29
	le.PutUint32(boot[67:], volumeID)
	copy(boot[71:], volumeLabel)
	copy(boot[82:], "FAT32   ")
	boot[510], boot[511] = 0x55, 0xaa
	third := make([]byte, sector)
	third[510], third[511] = 0x55, 0xaa

	for _, at := range []int64{6, 0} {
		if _, err := v.w.WriteAt(append(append(append([]byte{}, boot...), info...), third...), at*sector); err != nil {
			return err
		}
	}
	return nil
}
