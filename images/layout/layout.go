// SPDX-License-Identifier: Apache-2.0

// Package layout plans the partitions of a Holdfast disk: where each one
// begins, how long it is and what identifies it. It is pure arithmetic over a
// Spec; it refuses a slot that cannot hold the root and a disk that cannot
// hold the partitions.
package layout

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/holdfast/holdfast/images/gpt"
)

// Labels of the partitions a bake makes, in disk order. StateLabel is made by
// systemd-repart at first boot in the free space after them.
const (
	ESPLabel     = "esp"
	RootALabel   = "root-a"
	RootBLabel   = "root-b"
	FactoryLabel = "factory"
	StateLabel   = "state"
)

const (
	mib = 1 << 20
	gib = 1 << 30
	// align is where every partition begins and what it is a multiple of:
	// 1 MiB suits every sector, erase block and stripe size in use.
	align = mib
	// free is left after the partitions so that first boot has room for the
	// smallest state even where a disk is not enlarged.
	free = gib
	// minESP is the least FAT32 can be made in with room for two UKIs.
	minESP = 64 * mib
	// maxSize bounds each input so that sums cannot overflow: 64 TiB.
	maxSize = 64 << 40
)

// Spec is what a plan depends on; sizes are bytes.
type Spec struct {
	ESPSize     int64
	SlotSize    int64
	FactorySize int64 // of the content; the partition is rounded up to MiB
	RootSize    int64 // of the content with its hash tree
	MinDiskSize int64 // 0: as long as needed
	// RootUUID identifies slot A: the first 128 bits of its root hash.
	RootUUID [16]byte
	// Seed is a hash over the content of the disk; every other id derives
	// from it.
	Seed [32]byte
}

// Table is a planned disk.
type Table struct {
	gpt.Table
	// DiskSize is the length of the disk in bytes, whole MiB.
	DiskSize int64
}

// Plan lays out ESP, slot A, slot B and factory.
//
// Slots have the root type of the Discoverable Partitions Specification, so
// tools show what they are, and the no-auto attribute, so that
// systemd-gpt-auto-generator neither picks a slot by itself nor stumbles over
// the empty one: only the command line in the signed UKI chooses. Factory is
// no-auto too, because dissection would otherwise count a lone generic
// partition as a possible root.
func Plan(s Spec) (Table, error) {
	for _, f := range []struct {
		key  string
		v    int64
		zero bool
	}{
		{"esp_size", s.ESPSize, false}, {"slot_size", s.SlotSize, false}, {"size of the factory", s.FactorySize, false},
		{"size of the root", s.RootSize, false}, {"disk_size", s.MinDiskSize, true},
	} {
		if f.v < 0 || f.v > maxSize || f.v == 0 && !f.zero {
			return Table{}, fmt.Errorf("%s of %d bytes is out of range: at least 1 byte, at most 64 TiB", f.key, f.v)
		}
	}
	if s.RootUUID == [16]byte{} {
		return Table{}, fmt.Errorf("the root has no id: it is the first half of the root hash")
	}
	if s.ESPSize < minESP {
		return Table{}, fmt.Errorf("esp_size of %s is too small: set it to at least %dMiB", size(s.ESPSize), int64(minESP)/mib)
	}
	slot := s.SlotSize / align * align
	if s.RootSize > slot {
		return Table{}, fmt.Errorf("slot of %s is too small for the root (%s): set slot_size to at least %dMiB",
			size(s.SlotSize), size(s.RootSize), up(s.RootSize)/mib)
	}

	t := Table{Table: gpt.Table{DiskGUID: DeriveGUID(s.Seed, "disk")}}
	at := int64(align)
	add := func(label string, typ, id gpt.GUID, n int64, attrs uint64) {
		t.Parts = append(t.Parts, gpt.Part{Label: label, Type: typ, UUID: id, Offset: at, Size: n, Attrs: attrs})
		at += n
	}
	add(ESPLabel, gpt.TypeESP, DeriveGUID(s.Seed, ESPLabel), up(s.ESPSize), 0)
	add(RootALabel, gpt.TypeRootX8664, gpt.GUID(s.RootUUID), slot, gpt.AttrReadOnly|gpt.AttrNoAuto)
	add(RootBLabel, gpt.TypeRootX8664, DeriveGUID(s.Seed, RootBLabel), slot, gpt.AttrReadOnly|gpt.AttrNoAuto)
	add(FactoryLabel, gpt.TypeLinux, DeriveGUID(s.Seed, FactoryLabel), up(s.FactorySize), gpt.AttrReadOnly|gpt.AttrNoAuto)

	// The last MiB holds the backup table.
	need := at + align
	if s.MinDiskSize > 0 && s.MinDiskSize < need {
		return Table{}, fmt.Errorf("disk_size of %s is too small: partitions need %s, set disk_size to at least %dMiB or leave it out",
			size(s.MinDiskSize), size(need), need/mib)
	}
	t.DiskSize = max(need+free, up(s.MinDiskSize))
	return t, t.Check(t.DiskSize)
}

// DeriveGUID makes an id from content: RFC 9562 version 8 over sha256, which is
// what that RFC (appendix B.2) gives for names hashed with sha256. A version 4
// would claim randomness that is not there.
func DeriveGUID(seed [32]byte, label string) gpt.GUID {
	h := derive(seed, label)
	g := gpt.GUID(h[:16])
	g[6] = g[6]&0x0f | 0x80
	g[8] = g[8]&0x3f | 0x80
	return g
}

// DeriveVolumeID makes a FAT serial number from content, never zero.
func DeriveVolumeID(seed [32]byte, label string) uint32 {
	h := derive(seed, label)
	return binary.BigEndian.Uint32(h[:]) | 1
}

func derive(seed [32]byte, label string) [32]byte {
	return sha256.Sum256(append(append([]byte("holdfast disk id\x00"), seed[:]...), label...))
}

func up(n int64) int64 { return (n + align - 1) / align * align }

// size writes bytes as MiB; a fraction shows one digit, rounded up so that a
// size that does not fit never looks as if it did.
func size(n int64) string {
	if n%mib == 0 {
		return fmt.Sprintf("%d MiB", n/mib)
	}
	tenths := (n*10 + mib - 1) / mib
	return fmt.Sprintf("%d.%d MiB", tenths/10, tenths%10)
}

// String is the table as text: what goldens compare and people read.
func (t Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "disk %s %s\n", t.DiskGUID, size(t.DiskSize))
	for i, p := range t.Parts {
		fmt.Fprintf(&b, "%d %-8s at %9s, %9s, type %s, id %s", i+1, p.Label, size(p.Offset), size(p.Size), p.Type, p.UUID)
		for _, a := range []struct {
			bit  uint64
			name string
		}{{gpt.AttrReadOnly, "read-only"}, {gpt.AttrNoAuto, "no-auto"}, {gpt.AttrGrowFS, "grow-file-system"}} {
			if p.Attrs&a.bit != 0 {
				b.WriteString(" " + a.name)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
