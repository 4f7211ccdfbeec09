// SPDX-License-Identifier: Apache-2.0

package powercut

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Group is a volume group on one physical volume, as far as it is needed to
// find the bytes of its volumes. All sizes are bytes.
type Group struct {
	Name string
	// Seq counts the changes of the metadata.
	Seq    int64
	Extent int64
	// Start is where the first extent lies on the physical volume.
	Start   int64
	Volumes map[string]Volume
}

// Volume is a logical volume of one segment or more.
type Volume struct {
	// Type of its segments: "striped" (also for linear ones), "thin-pool",
	// "thin".
	Type string
	Size int64
	// Tags as LVM lists them.
	Tags []string
	// Runs are a striped volume's bytes on the physical volume, in order.
	Runs []Run
	// Pool, Device and Origin of a thin volume.
	Pool   string
	Device int64
	Origin string
	// Metadata, Data, Chunk and Transaction of a thin pool.
	Metadata, Data     string
	Chunk, Transaction int64
}

// Run is a part of a volume that lies in one piece.
type Run struct{ Offset, Len int64 }

const (
	// lvmSeed is what LVM starts its CRC-32 with (lib/misc/crc.c).
	lvmSeed = 0xf597a6cf
	// mdaHead is the length of a metadata area's header in bytes.
	mdaHead = 512
	// maxText bounds the metadata text in bytes.
	maxText = 4 << 20
)

func lvmSum(b []byte) uint32 { return ^crc32.Update(^uint32(lvmSeed), crc32.IEEETable, b) }

// ReadGroup reads the metadata of a physical volume of size bytes: label,
// header and text, with their checksums, as lvm would (lvm's
// lib/format_text/layout.h). A second metadata area is not looked for.
func ReadGroup(r io.ReaderAt, size int64) (*Group, error) {
	le := binary.LittleEndian
	b := make([]byte, 4*512)
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, size), b); err != nil {
		return nil, fmt.Errorf("lvm: read the label: %w", err)
	}
	var label []byte
	for at := 0; at < len(b); at += 512 {
		if s := b[at : at+512]; string(s[:8]) == "LABELONE" && string(s[24:32]) == "LVM2 001" {
			if le.Uint64(s[8:]) != uint64(at/512) || lvmSum(s[20:]) != le.Uint32(s[16:]) {
				return nil, errors.New("lvm: the label's checksum does not match")
			}
			label = s
			break
		}
	}
	if label == nil {
		return nil, errors.New("lvm: no label in the first four sectors")
	}
	at := int(le.Uint32(label[20:]))
	if at < 32 || at > 512-40 {
		return nil, errors.New("lvm: the label's header lies outside its sector")
	}
	// After 32 bytes of id and 8 of size come two lists of places, the data
	// areas and the metadata areas, each ended by an empty one.
	areas, lists := []Run{}, 0
	for p := at + 40; lists < 2; p += 16 {
		if p+16 > len(label) {
			return nil, errors.New("lvm: the lists of areas leave the label")
		}
		run := Run{int64(le.Uint64(label[p:])), int64(le.Uint64(label[p+8:]))}
		switch {
		case run.Offset == 0:
			lists++
		case lists == 1:
			areas = append(areas, run)
		}
	}
	if len(areas) == 0 {
		return nil, errors.New("lvm: no metadata area")
	}
	text, err := readText(r, size, areas[0])
	if err != nil {
		return nil, err
	}
	root, err := parseText(text)
	if err != nil {
		return nil, fmt.Errorf("lvm: metadata: %w", err)
	}
	return groupOf(root)
}

// readText reads the committed text of a metadata area, which is a ring.
func readText(r io.ReaderAt, size int64, area Run) (string, error) {
	le := binary.LittleEndian
	if area.Offset < 0 || area.Len <= mdaHead || area.Offset > size || area.Len > size-area.Offset {
		return "", errors.New("lvm: the metadata area is not on the volume")
	}
	h := make([]byte, mdaHead)
	if _, err := r.ReadAt(h, area.Offset); err != nil {
		return "", err
	}
	if string(h[4:20]) != " LVM2 x[5A%r0N*>" || lvmSum(h[4:]) != le.Uint32(h) {
		return "", errors.New("lvm: the checksum of the metadata area's header does not match")
	}
	off, n, sum := le.Uint64(h[40:]), le.Uint64(h[48:]), le.Uint32(h[56:])
	if off == 0 || n == 0 {
		return "", errors.New("lvm: no group is written")
	}
	if n > maxText || off < mdaHead || off >= uint64(area.Len) || n > uint64(area.Len)-mdaHead {
		return "", errors.New("lvm: the metadata text is not in its area")
	}
	text := make([]byte, n)
	first := min(n, uint64(area.Len)-off)
	if _, err := r.ReadAt(text[:first], area.Offset+int64(off)); err != nil {
		return "", err
	}
	if _, err := r.ReadAt(text[first:], area.Offset+mdaHead); err != nil {
		return "", err
	}
	if lvmSum(text) != sum {
		return "", errors.New("lvm: the checksum of the metadata text does not match")
	}
	return string(text), nil
}

// groupOf takes the group out of the parsed text.
func groupOf(root *section) (*Group, error) {
	for name, s := range root.sections {
		pvs := s.sections["physical_volumes"]
		if pvs == nil || len(pvs.sections) != 1 {
			return nil, fmt.Errorf("lvm: group %s is not on one physical volume", name)
		}
		g := &Group{Name: name, Volumes: map[string]Volume{}, Seq: s.numbers["seqno"], Extent: s.numbers["extent_size"] * 512}
		if g.Extent <= 0 || g.Extent > 1<<40 {
			return nil, fmt.Errorf("lvm: extents of %d bytes", g.Extent)
		}
		for _, pv := range pvs.sections {
			g.Start = pv.numbers["pe_start"] * 512
		}
		if lvs := s.sections["logical_volumes"]; lvs != nil {
			for name, lv := range lvs.sections {
				v, err := g.volume(lv)
				if err != nil {
					return nil, fmt.Errorf("lvm: volume %s: %w", name, err)
				}
				g.Volumes[name] = v
			}
		}
		return g, nil
	}
	return nil, errors.New("lvm: no group in the metadata")
}

// maxExtents keeps products with the extent's size far from an overflow.
const maxExtents = 1 << 22

func (g *Group) volume(s *section) (v Volume, err error) {
	v.Tags = s.lists["tags"]
	n := s.numbers["segment_count"]
	for i := int64(1); i <= n; i++ {
		seg := s.sections[fmt.Sprintf("segment%d", i)]
		if seg == nil {
			return v, fmt.Errorf("segment %d of %d is missing", i, n)
		}
		count := seg.numbers["extent_count"]
		if count <= 0 || count > maxExtents {
			return v, fmt.Errorf("a segment of %d extents", count)
		}
		v.Type = seg.texts["type"]
		v.Size += count * g.Extent
		switch v.Type {
		case "striped":
			if len(seg.lists["stripes"]) != 2 || seg.numbers["stripe_count"] != 1 {
				return v, errors.New("it is spread over several stripes")
			}
			var start int64
			if _, err := fmt.Sscan(seg.lists["stripes"][1], &start); err != nil || start < 0 || start > maxExtents {
				return v, errors.New("its place is not an extent")
			}
			v.Runs = append(v.Runs, Run{g.Start + start*g.Extent, count * g.Extent})
		case "thin":
			v.Pool, v.Device, v.Origin = seg.texts["thin_pool"], seg.numbers["device_id"], seg.texts["origin"]
		case "thin-pool":
			v.Metadata, v.Data, v.Chunk = seg.texts["metadata"], seg.texts["pool"], seg.numbers["chunk_size"]*512
			v.Transaction = seg.numbers["transaction_id"]
			if v.Chunk <= 0 || v.Chunk > 1<<30 {
				return v, fmt.Errorf("chunks of %d bytes", v.Chunk)
			}
		default:
			return v, fmt.Errorf("segments of type %q are not read", v.Type)
		}
	}
	return v, nil
}

// Reader reads a striped volume on the physical volume pv.
func (v Volume) Reader(pv io.ReaderAt) io.ReaderAt { return runs{pv, v.Runs} }

type runs struct {
	pv   io.ReaderAt
	runs []Run
}

func (r runs) ReadAt(b []byte, at int64) (n int, err error) {
	for _, run := range r.runs {
		if at >= run.Len {
			at -= run.Len
			continue
		}
		k := int(min(int64(len(b)-n), run.Len-at))
		if _, err := r.pv.ReadAt(b[n:n+k], run.Offset+at); err != nil {
			return n, err
		}
		n, at = n+k, 0
		if n == len(b) {
			return n, nil
		}
	}
	return n, io.EOF
}
