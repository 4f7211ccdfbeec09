// SPDX-License-Identifier: Apache-2.0

// Package gpt turns a partition table into the bytes of a GUID partition table
// and back. It works on bytes only: 512-byte sectors, 128 entries, protective
// MBR, primary and backup copy. It refuses overlapping or out-of-range
// partitions, duplicate ids, and on reading any copy whose checksums do not
// match.
//
// Format: UEFI specification 2.10, chapter 5. Partition types and attribute
// bits: UAPI Group "Discoverable Partitions Specification".
package gpt

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"sort"
	"strings"
	"unicode/utf16"
)

const (
	// SectorSize is the logical block in bytes that all LBAs count.
	SectorSize = 512
	// MaxParts is the number of entries both tables have room for.
	MaxParts = 128
	// maxName is the room for a label in UTF-16 code units.
	maxName = 36

	entrySize   = 128
	entryBytes  = MaxParts * entrySize
	entryLBAs   = entryBytes / SectorSize
	headerBytes = 92
	// HeadSize and TailSize are the bytes at the two ends of a disk that
	// belong to the table: MBR, header and entries; entries and header.
	HeadSize = (2 + entryLBAs) * SectorSize
	TailSize = (1 + entryLBAs) * SectorSize
)

// Attribute bits of a partition. The upper 16 are per type; these are the ones
// systemd reads (Discoverable Partitions Specification).
const (
	AttrGrowFS   uint64 = 1 << 59
	AttrReadOnly uint64 = 1 << 60
	AttrNoAuto   uint64 = 1 << 63
)

// Partition types.
var (
	TypeESP = MustGUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
	// TypeRootX8664 is "Root Partition (amd64/x86_64)".
	TypeRootX8664 = MustGUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
	// TypeLinux is "Generic Linux Data Partition".
	TypeLinux = MustGUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
	TypeLVM   = MustGUID("e6d6d379-f507-44c2-a23c-238f2a3df928")
)

// GUID is a UUID in the order it is written as text (RFC 9562). On disk the
// first three fields are little-endian; only this package sees that form.
type GUID [16]byte

// String is the usual lower-case form, as in /dev/disk/by-partuuid.
func (g GUID) String() string {
	h := hex.EncodeToString(g[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// ParseGUID reads the form String writes, in either case.
func ParseGUID(s string) (GUID, error) {
	var g GUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return g, fmt.Errorf("%q is not a GUID like 0fc63daf-8483-4772-8e79-3d69d8477de4", s)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(g) {
		return g, fmt.Errorf("%q is not a GUID like 0fc63daf-8483-4772-8e79-3d69d8477de4", s)
	}
	copy(g[:], b)
	return g, nil
}

// MustGUID is ParseGUID for constants; it panics on a bad one.
func MustGUID(s string) GUID {
	g, err := ParseGUID(s)
	if err != nil {
		panic(err)
	}
	return g
}

// swap turns text order into disk order and back.
func (g GUID) swap() GUID {
	return GUID{g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6],
		g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]}
}

// Part is one partition; Offset and Size are bytes and whole sectors.
type Part struct {
	Label  string
	Type   GUID
	UUID   GUID
	Offset int64
	Size   int64
	Attrs  uint64
}

// Table is a disk's partitions in the order of their entries.
type Table struct {
	DiskGUID GUID
	Parts    []Part
}

// Part finds a partition by its label.
func (t Table) Part(label string) (Part, bool) {
	for _, p := range t.Parts {
		if p.Label == label {
			return p, true
		}
	}
	return Part{}, false
}

// Check refuses a table that cannot stand on a disk of diskSize bytes.
func (t Table) Check(diskSize int64) error {
	if diskSize%SectorSize != 0 || diskSize < HeadSize+TailSize {
		return fmt.Errorf("gpt: a disk of %d bytes cannot hold a table: it must be whole sectors of %d and at least %d",
			diskSize, SectorSize, HeadSize+TailSize)
	}
	if len(t.Parts) > MaxParts {
		return fmt.Errorf("gpt: %d partitions, at most %d fit", len(t.Parts), MaxParts)
	}
	if t.DiskGUID == (GUID{}) {
		return fmt.Errorf("gpt: the disk has no id")
	}
	ids := map[GUID]string{t.DiskGUID: "the disk"}
	byOffset := make([]Part, 0, len(t.Parts))
	for i, p := range t.Parts {
		who := fmt.Sprintf("partition %d (%s)", i+1, p.Label)
		switch {
		case p.Type == GUID{}:
			return fmt.Errorf("gpt: %s has no type", who)
		case p.UUID == GUID{}:
			return fmt.Errorf("gpt: %s has no id", who)
		case ids[p.UUID] != "":
			return fmt.Errorf("gpt: %s has the same id as %s: %s", who, ids[p.UUID], p.UUID)
		case p.Size <= 0 || p.Size%SectorSize != 0 || p.Offset%SectorSize != 0:
			return fmt.Errorf("gpt: %s at %d of %d bytes is not whole sectors of %d", who, p.Offset, p.Size, SectorSize)
		case p.Offset < HeadSize || p.Offset > diskSize-TailSize || p.Size > diskSize-TailSize-p.Offset:
			return fmt.Errorf("gpt: %s at %d of %d bytes reaches beyond the usable part of the disk (%d to %d)",
				who, p.Offset, p.Size, HeadSize, diskSize-TailSize)
		}
		if _, err := encodeName(p.Label); err != nil {
			return fmt.Errorf("gpt: %s: %w", who, err)
		}
		ids[p.UUID] = who
		byOffset = append(byOffset, p)
	}
	sort.Slice(byOffset, func(i, j int) bool { return byOffset[i].Offset < byOffset[j].Offset })
	for i := 1; i < len(byOffset); i++ {
		if a, b := byOffset[i-1], byOffset[i]; a.Offset+a.Size > b.Offset {
			return fmt.Errorf("gpt: partitions %s and %s overlap at byte %d", a.Label, b.Label, b.Offset)
		}
	}
	return nil
}

func encodeName(label string) ([2 * maxName]byte, error) {
	var out [2 * maxName]byte
	units := utf16.Encode([]rune(label))
	if len(units) > maxName {
		return out, fmt.Errorf("label is longer than %d characters", maxName)
	}
	for i, u := range units {
		if u == 0 {
			return out, fmt.Errorf("label holds a zero character")
		}
		binary.LittleEndian.PutUint16(out[2*i:], u)
	}
	return out, nil
}

func decodeName(b []byte) string {
	units := make([]uint16, 0, maxName)
	for i := 0; i+1 < len(b); i += 2 {
		u := binary.LittleEndian.Uint16(b[i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
