// SPDX-License-Identifier: Apache-2.0

package esp

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// folder is one folder of a Volume in memory.
type folder struct {
	v     *Volume
	chain []uint32
	b     []byte
	// now is what is on disk.
	now []byte
}

// dirEntry is one name: the slots from its first long entry to its short one.
type dirEntry struct {
	name    string
	short   [11]byte
	attr    byte
	cluster uint32
	size    int64
	first   int // slots, of entrySize each
	last    int
}

func (e dirEntry) dir() bool { return e.attr&attrDir != 0 }

const slotsPerSector = sector / entrySize

func (v *Volume) load(first uint32) (*folder, error) {
	chain, err := v.chain(first, maxFolder/v.clusterSize()+1)
	if err != nil {
		return nil, err
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("esp: a folder has no clusters")
	}
	d := &folder{v: v, chain: chain, b: make([]byte, int64(len(chain))*v.clusterSize())}
	for i, c := range chain {
		if _, err := v.dev.ReadAt(d.b[int64(i)*v.clusterSize():int64(i+1)*v.clusterSize()], v.clusterAt(c)); err != nil {
			return nil, fmt.Errorf("esp: read a folder: %w", err)
		}
	}
	d.now = slices.Clone(d.b)
	// What is behind the end counts for nothing, and must not come back when
	// the end moves.
	clear(d.b[d.end()*entrySize:])
	return d, nil
}

func (d *folder) slots() int { return len(d.b) / entrySize }

func (d *folder) slot(i int) []byte { return d.b[i*entrySize:][:entrySize] }

// end is the first slot that was never used.
func (d *folder) end() int {
	for i := range d.slots() {
		if d.slot(i)[0] == 0 {
			return i
		}
	}
	return d.slots()
}

// entries are the names, without dots and the volume's label.
func (d *folder) entries() []dirEntry {
	le := binary.LittleEndian
	var out []dirEntry
	var long longName
	first := -1
	for i := range d.end() {
		e := d.slot(i)
		switch {
		case e[0] == 0xe5:
			long, first = longName{}, -1
			continue
		case e[11]&0x3f == attrLong:
			if e[0]&0x40 != 0 {
				first = i
			}
			long.add(e)
			continue
		}
		short := [11]byte(e[:11])
		name := long.name(short)
		begin := first
		if name == "" {
			name, begin = shortText(e), i
		}
		long, first = longName{}, -1
		if e[11]&attrVolume != 0 || e[0] == '.' {
			continue
		}
		out = append(out, dirEntry{
			name: name, short: short, attr: e[11], first: begin, last: i, size: int64(le.Uint32(e[28:])),
			cluster: uint32(le.Uint16(e[20:]))<<16 | uint32(le.Uint16(e[26:])),
		})
	}
	return out
}

// lookup finds a name, whatever its case.
func (d *folder) lookup(name string) (dirEntry, bool) {
	list := d.entries()
	i := slices.IndexFunc(list, func(e dirEntry) bool { return strings.EqualFold(e.name, name) })
	if i < 0 {
		return dirEntry{}, false
	}
	return list[i], true
}

// clear marks the slots of a name as free.
func (d *folder) clear(e dirEntry) {
	for i := e.first; i <= e.last; i++ {
		d.slot(i)[0] = 0xe5
	}
}

// set is the slots of a name: long entries and the short one. An empty short
// name is chosen, unlike any other in the folder.
func (d *folder) set(name string, short [11]byte, attr byte, cluster uint32, size int64) []byte {
	exact := false
	if short == ([11]byte{}) {
		taken := map[[11]byte]bool{}
		for i := range d.end() {
			if e := d.slot(i); e[0] != 0xe5 && e[11]&0x3f != attrLong {
				taken[[11]byte(e[:11])] = true
			}
		}
		short, exact = shortName(name, taken)
	}
	var out []byte
	if !exact {
		out = longEntries(name, short)
	}
	date, clock := stamp(d.v.now())
	return append(out, shortEntry(short, attr, cluster, size, date, clock)...)
}

// place finds n free slots in a row that lie in one sector: in the sector of
// slot near, where that is not negative and has them, else anywhere; -1 for
// none. Slots between the old end and the new ones are marked as free.
func (d *folder) place(n, near int) int {
	free := func(i int) bool { return d.slot(i)[0] == 0xe5 || d.slot(i)[0] == 0 }
	in := func(s int) int {
		run := 0
		for i := s * slotsPerSector; i < (s+1)*slotsPerSector; i++ {
			if run++; !free(i) {
				run = 0
			}
			if run == n {
				return i - n + 1
			}
		}
		return -1
	}
	if near >= 0 {
		return in(near / slotsPerSector)
	}
	for s := range d.slots() / slotsPerSector {
		if at := in(s); at >= 0 {
			return at
		}
	}
	return -1
}

// put writes slots at a place.
func (d *folder) put(at int, set []byte) {
	for i := d.end(); i < at; i++ {
		d.slot(i)[0] = 0xe5
	}
	copy(d.b[at*entrySize:], set)
}

// grow adds an empty cluster to the folder, on disk.
func (d *folder) grow() error {
	v := d.v
	if int64(len(d.b))+v.clusterSize() > maxFolder {
		return fmt.Errorf("esp: a folder has too many names")
	}
	c, err := v.alloc()
	if err != nil {
		return err
	}
	empty := make([]byte, v.clusterSize())
	if _, err := v.dev.WriteAt(empty, v.clusterAt(c)); err != nil {
		return err
	}
	if err := v.dev.Sync(); err != nil {
		return err
	}
	v.set(d.chain[len(d.chain)-1], c)
	if err := v.flush(); err != nil {
		return err
	}
	d.chain, d.b, d.now = append(d.chain, c), append(d.b, empty...), append(d.now, empty...)
	return v.dev.Sync()
}

// commit writes the sectors that changed, the last one first and each on disk
// before the next: names behind the old end come to be with the write of the
// sector where the end was.
func (d *folder) commit() error {
	for s := len(d.b)/sector - 1; s >= 0; s-- {
		b := d.b[s*sector:][:sector]
		if slices.Equal(b, d.now[s*sector:][:sector]) {
			continue
		}
		at := int64(s) * sector
		c := d.chain[at/d.v.clusterSize()]
		if _, err := d.v.dev.WriteAt(b, d.v.clusterAt(c)+at%d.v.clusterSize()); err != nil {
			return err
		}
		if err := d.v.dev.Sync(); err != nil {
			return err
		}
		copy(d.now[s*sector:], b)
	}
	return nil
}
