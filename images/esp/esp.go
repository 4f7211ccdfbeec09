// SPDX-License-Identifier: Apache-2.0

// Package esp writes and reads the EFI system partition: FAT32 with long names.
// The same files, serial number and time give the same bytes. Names are
// printable ASCII, as firmware reads nothing else reliably; names that differ
// only in case are refused, and so is a size that FAT32 cannot have.
//
// Format: Microsoft "FAT32 File System Specification" 1.03, which UEFI 2.10
// section 13.3 refers to.
package esp

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	sector = 512
	// reserved sectors before the first FAT: what mkfs.fat leaves.
	reserved  = 32
	fatCount  = 2
	rootStart = 2
	// minClusters is what tells FAT32 from FAT16 (specification, 3.5), with the
	// margin of 16 it recommends.
	minClusters = 65525 + 16
	maxClusters = 0x0ffffff0
	// maxSize keeps the sector count in 32 bits with room to spare.
	maxSize = 1 << 40
	// maxFile is the largest a FAT file can be.
	maxFile = 1<<32 - 1
	// maxFiles bounds files and folders of one volume.
	maxFiles = 1 << 16
	maxDepth = 16

	entrySize     = 32
	attrReadOnly  = 0x01
	attrVolume    = 0x08
	attrDir       = 0x10
	attrArchive   = 0x20
	attrLong      = 0x0f
	endOfChain    = 0x0fffffff
	volumeLabel   = "ESP        "
	unitsPerEntry = 13
)

// File is one file of the volume. Path is relative with slashes, such as
// "EFI/BOOT/BOOTX64.EFI"; folders appear by themselves.
type File struct {
	Path string
	// Data is the content, or nil and Open streams Size bytes.
	Data []byte
	Open func() (io.ReadCloser, error)
	Size int64
}

func (f File) size() int64 {
	if f.Open == nil {
		return int64(len(f.Data))
	}
	return f.Size
}

// geometry is where things are; all in sectors but clusters.
type geometry struct {
	sectors    int64 // of the volume
	perCluster int64
	perFAT     int64
	reserved   int64
	fats       int64
	clusters   int64
	root       uint32
}

func (g geometry) dataAt() int64            { return g.reserved + g.fats*g.perFAT }
func (g geometry) clusterAt(c uint32) int64 { return (g.dataAt() + int64(c-2)*g.perCluster) * sector }
func (g geometry) clusterSize() int64       { return g.perCluster * sector }
func (g geometry) clustersFor(size int64) int64 {
	return (size + g.clusterSize() - 1) / g.clusterSize()
}

// plan chooses the largest cluster up to 4 KiB that still makes FAT32.
func plan(size int64) (geometry, error) {
	if size < 0 || size > maxSize || size%sector != 0 {
		return geometry{}, fmt.Errorf("esp: %d bytes are not whole sectors of %d, at most 1 TiB", size, sector)
	}
	for per := int64(8); per >= 1; per /= 2 {
		g := geometry{sectors: size / sector, perCluster: per, reserved: reserved, fats: fatCount, root: rootStart}
		// Each cluster costs its sectors and one entry of 4 bytes in each FAT.
		g.perFAT = ((g.sectors-reserved)/per + 2 + sector/4) / (sector / 4)
		if g.perFAT%per != 0 { // clusters then begin on multiples of their size
			g.perFAT += per - g.perFAT%per
		}
		g.clusters = (g.sectors - g.dataAt()) / per
		if g.clusters >= minClusters && g.clusters <= maxClusters {
			return g, nil
		}
	}
	return geometry{}, fmt.Errorf("esp: %d MiB are too few for FAT32: at least 34 MiB", size>>20)
}

// node is a file or folder on its way into the image.
type node struct {
	name     string
	file     File
	dir      bool
	children []*node
	first    uint32
	clusters int64
}

// grow builds the tree of folders, each sorted by upper-case name.
func grow(files []File) (*node, error) {
	root := &node{dir: true}
	folders := map[string]*node{"": root}
	taken := map[string]string{}
	count := 0
	var folder func(path string) (*node, error)
	put := func(path string, n *node) error {
		key := strings.ToUpper(path)
		if other, twice := taken[key]; twice {
			return fmt.Errorf("esp: %s and %s are the same name on FAT", other, path)
		}
		taken[key] = path
		up, name := split(path)
		if err := checkName(name); err != nil {
			return fmt.Errorf("esp: %q: %w", path, err)
		}
		parent, err := folder(up)
		if err != nil {
			return err
		}
		n.name = name
		parent.children = append(parent.children, n)
		if count++; count > maxFiles {
			return fmt.Errorf("esp: more than %d files", maxFiles)
		}
		return nil
	}
	folder = func(path string) (*node, error) {
		key := strings.ToUpper(path)
		if n, ok := folders[key]; ok {
			return n, nil
		}
		if strings.Count(path, "/") >= maxDepth {
			return nil, fmt.Errorf("esp: %q is deeper than %d folders", path, maxDepth)
		}
		n := &node{dir: true}
		if err := put(path, n); err != nil {
			return nil, err
		}
		folders[key] = n
		return n, nil
	}
	for _, f := range files {
		if strings.HasPrefix(f.Path, "/") {
			return nil, fmt.Errorf("esp: %q begins with a slash: paths are relative", f.Path)
		}
		if s := f.size(); s < 0 || s > maxFile {
			return nil, fmt.Errorf("esp: %s has %d bytes, FAT takes at most 4 GiB", f.Path, s)
		}
		if err := put(f.Path, &node{file: f}); err != nil {
			return nil, err
		}
	}
	return root, nil
}

func split(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

func checkName(name string) error {
	if name == "" || name == "." || name == ".." {
		return errors.New("a part of the path is empty or dots")
	}
	if len(name) > 255 {
		return errors.New("name is longer than 255 characters")
	}
	for _, c := range []byte(name) {
		if c < 0x20 || c > 0x7e || strings.IndexByte("\"*/:<>?\\|", c) >= 0 {
			return fmt.Errorf("character %q cannot be in a FAT name", c)
		}
	}
	if last := name[len(name)-1]; last == '.' || last == ' ' || name[0] == ' ' {
		return errors.New("FAT names cannot end in a dot, nor begin or end in a space")
	}
	return nil
}
