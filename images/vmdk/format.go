// SPDX-License-Identifier: Apache-2.0

// Package vmdk writes and reads streamOptimized VMDK files, the one disk format
// that every OVF importer takes. Input is a disk by its data runs; the same disk
// gives the same bytes. It refuses every other kind of VMDK.
//
// The format is VMware's "Virtual Disk Format 5.0", section "Stream-Optimized
// Compressed Sparse Extents", in the layout that VMware's own open-vmdk writes:
// header, descriptor, grain directory and all grain tables first, then the
// grains in order, then one end-of-stream sector and nothing after it.
package vmdk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

const (
	// SectorSize is the unit of every address in the format, in bytes.
	SectorSize = 512
	// GrainSize is what is compressed as one, in bytes.
	GrainSize = 64 << 10
	// MaxCapacity is the longest disk in bytes: vSphere's limit of 62 TiB.
	MaxCapacity = 62 << 40

	grainSectors = GrainSize / SectorSize
	// entries of one grain table, and its length in bytes.
	entries   = 512
	tableSize = entries * 4

	descriptorAt      = 1
	descriptorSectors = 20
	directoryAt       = descriptorAt + descriptorSectors

	magic = 0x564d444b // "KDMV" as bytes
	// flagsWanted: newline detection, compressed grains, markers.
	flagsWanted = 1 | 1<<16 | 1<<17
	deflate     = 1
	// markerSize is the head of a grain: u64 LBA, u32 compressed size.
	markerSize = 12
	// atEnd as directory offset says that a footer has the real one.
	atEnd = 1<<64 - 1
)

// ErrFormat is what every error about the content of a file is.
var ErrFormat = errors.New("not a streamOptimized VMDK that this can read")

// header is the sparse extent header, all addresses in sectors.
type header struct {
	version, flags             uint32
	capacity, grain            uint64
	descriptorAt, descriptorIn uint64
	perTable                   uint32
	redundantAt, directoryAt   uint64
	overhead                   uint64
	unclean                    byte
	compress                   uint16
}

var newlines = [4]byte{'\n', ' ', '\r', '\n'}

func (h header) encode() []byte {
	b := make([]byte, SectorSize)
	le := binary.LittleEndian
	le.PutUint32(b[0:], magic)
	le.PutUint32(b[4:], h.version)
	le.PutUint32(b[8:], h.flags)
	le.PutUint64(b[12:], h.capacity)
	le.PutUint64(b[20:], h.grain)
	le.PutUint64(b[28:], h.descriptorAt)
	le.PutUint64(b[36:], h.descriptorIn)
	le.PutUint32(b[44:], h.perTable)
	le.PutUint64(b[48:], h.redundantAt)
	le.PutUint64(b[56:], h.directoryAt)
	le.PutUint64(b[64:], h.overhead)
	b[72] = h.unclean
	copy(b[73:], newlines[:])
	le.PutUint16(b[77:], h.compress)
	return b
}

// decodeHeader reads b, one sector, and refuses what this package can't read.
func decodeHeader(b []byte) (h header, err error) {
	le := binary.LittleEndian
	bad := func(format string, args ...any) (header, error) {
		return header{}, fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
	}
	if len(b) < SectorSize || le.Uint32(b) != magic {
		return bad("no KDMV at its start")
	}
	h = header{
		version: le.Uint32(b[4:]), flags: le.Uint32(b[8:]), capacity: le.Uint64(b[12:]), grain: le.Uint64(b[20:]),
		descriptorAt: le.Uint64(b[28:]), descriptorIn: le.Uint64(b[36:]), perTable: le.Uint32(b[44:]),
		redundantAt: le.Uint64(b[48:]), directoryAt: le.Uint64(b[56:]), overhead: le.Uint64(b[64:]),
		unclean: b[72], compress: le.Uint16(b[77:]),
	}
	switch {
	case h.version < 1 || h.version > 3:
		return bad("version %d", h.version)
	case [4]byte(b[73:]) != newlines:
		return bad("its line ends were changed in transfer: fetch it again as binary")
	case h.flags&flagsWanted != flagsWanted:
		return bad("flags %#x, without compressed grains and markers", h.flags)
	case h.compress != deflate:
		return bad("compression %d, not deflate", h.compress)
	case h.grain != grainSectors || h.perTable != entries:
		return bad("grains of %d sectors, %d a table, not %d and %d", h.grain, h.perTable, grainSectors, entries)
	case h.capacity == 0 || h.capacity > MaxCapacity/SectorSize:
		return bad("a capacity of %d sectors", h.capacity)
	case h.directoryAt == atEnd:
		return bad("its grain directory is behind the grains: convert it with `qemu-img convert -O vmdk -o subformat=streamOptimized`")
	}
	return h, nil
}

// layout of a file for a disk of some capacity, in bytes unless named so.
type layout struct {
	capacity int64
	// grains, tables are numbers; a table is 2 KiB.
	grains, tables int64
	tablesAt       int64
	grainsAt       int64
}

func newLayout(capacity int64) layout {
	l := layout{capacity: capacity, grains: ceil(capacity, GrainSize)}
	l.tables = ceil(l.grains, entries)
	l.tablesAt = (directoryAt + ceil(l.tables*4, SectorSize)) * SectorSize
	l.grainsAt = l.tablesAt + l.tables*tableSize
	return l
}

// grainLen is the length of a grain's content: the last one ends with the disk.
func (l layout) grainLen(grain int64) int64 { return min(GrainSize, l.capacity-grain*GrainSize) }

func (l layout) header() header {
	return header{
		version: 3, flags: flagsWanted, capacity: uint64(l.capacity / SectorSize), grain: grainSectors,
		descriptorAt: descriptorAt, descriptorIn: descriptorSectors, perTable: entries,
		directoryAt: directoryAt, overhead: uint64(l.grainsAt / SectorSize), compress: deflate,
	}
}

// descriptor is the text part. Hardware version 4 and lsilogic are what VMware's
// tools write for every stream: the OVF decides both. 2147483647 as version of
// the tools means that the guest looks after its own.
func descriptor(name string, capacity int64, cid uint32) ([]byte, error) {
	if name == "" || name != filepath.Base(name) || strings.ContainsAny(name, "\"\r\n\x00") || len(name) > 255 {
		return nil, fmt.Errorf("%q can't be the name of a VMDK: use a plain file name", name)
	}
	sectors := capacity / SectorSize
	var b strings.Builder
	fmt.Fprintf(&b, "# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n", cid)
	fmt.Fprintf(&b, "# Extent description\nRW %d SPARSE \"%s\"\n\n", sectors, name)
	b.WriteString("# The Disk Data Base\n#DDB\n\n")
	for _, kv := range [][2]string{
		{"virtualHWVersion", "4"},
		{"geometry.cylinders", fmt.Sprint(min(65535, ceil(sectors, 255*63)))},
		{"geometry.heads", "255"},
		{"geometry.sectors", "63"},
		{"adapterType", "lsilogic"},
		{"toolsVersion", "2147483647"},
	} {
		fmt.Fprintf(&b, "ddb.%s = \"%s\"\n", kv[0], kv[1])
	}
	return []byte(b.String()), nil
}

func ceil(n, unit int64) int64 { return (n + unit - 1) / unit }
