// SPDX-License-Identifier: Apache-2.0

package vmdk

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/zlib"
)

const (
	// maxRecord bounds a grain's compressed size: deflate grows what it can't
	// shrink by under 1 %.
	maxRecord = GrainSize + GrainSize/8
	// maxDescriptor bounds the text, in sectors.
	maxDescriptor = 128
)

// Reader is the disk in a streamOptimized VMDK. Its ReadAt may be called from
// several goroutines.
type Reader struct {
	r    io.ReaderAt
	size int64
	l    layout
	// text is the descriptor, directory where the grain tables are, in sectors.
	text      string
	directory []uint32

	mu       sync.Mutex
	tableNo  int64
	table    []byte
	grainNo  int64
	content  []byte
	in       []byte
	inflater io.ReadCloser
}

// Open reads the head of a file of size bytes. Memory is bounded by the file's
// length and by 9 MiB. Errors about its content are ErrFormat.
func Open(r io.ReaderAt, size int64) (*Reader, error) {
	b := make([]byte, SectorSize)
	if size < SectorSize {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrFormat, size)
	}
	d := &Reader{r: r, size: size, tableNo: -1, grainNo: -1}
	if err := d.readAt(b, 0, "header"); err != nil {
		return nil, err
	}
	h, err := decodeHeader(b)
	if err != nil {
		return nil, err
	}
	d.l = newLayout(int64(h.capacity) * SectorSize)
	if h.descriptorIn == 0 || h.descriptorIn > maxDescriptor || h.descriptorAt > uint64(size)/SectorSize {
		return nil, fmt.Errorf("%w: a descriptor of %d sectors at %d", ErrFormat, h.descriptorIn, h.descriptorAt)
	}
	text := make([]byte, h.descriptorIn*SectorSize)
	if err := d.readAt(text, int64(h.descriptorAt)*SectorSize, "descriptor"); err != nil {
		return nil, err
	}
	text, _, _ = bytes.Cut(text, []byte{0})
	d.text = string(text)
	// The directory's length is checked against the file's before memory is
	// taken for it.
	if h.directoryAt > uint64(size)/SectorSize || d.l.tables*4 > size-int64(h.directoryAt)*SectorSize {
		return nil, fmt.Errorf("%w: its grain directory lies outside the file", ErrFormat)
	}
	dir := make([]byte, d.l.tables*4)
	if err := d.readAt(dir, int64(h.directoryAt)*SectorSize, "grain directory"); err != nil {
		return nil, err
	}
	d.directory = make([]uint32, d.l.tables)
	for i := range d.directory {
		d.directory[i] = binary.LittleEndian.Uint32(dir[i*4:])
	}
	return d, nil
}

// Capacity is the length of the disk in bytes.
func (d *Reader) Capacity() int64 { return d.l.capacity }

// Descriptor is the text part.
func (d *Reader) Descriptor() string { return d.text }

// CID is the content id, 0 where the descriptor has none.
func (d *Reader) CID() uint32 {
	for line := range strings.Lines(d.text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "CID="); ok {
			n, err := strconv.ParseUint(v, 16, 32)
			if err != nil {
				return 0
			}
			return uint32(n)
		}
	}
	return 0
}

// ReadAt implements io.ReaderAt over the disk; what has no grain is zeros.
func (d *Reader) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d", off)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for n < len(p) {
		at := off + int64(n)
		if at >= d.l.capacity {
			return n, io.EOF
		}
		index, in := at/GrainSize, at%GrainSize
		part := p[n:min(int64(len(p)), int64(n)+d.l.grainLen(index)-in)]
		content, err := d.grain(index)
		if err != nil {
			return n, err
		}
		if content == nil {
			clear(part)
		} else {
			copy(part, content[in:])
		}
		n += len(part)
	}
	return n, nil
}

// WriteRaw writes the disk to f, an empty file, as a raw disk whose holes are
// the VMDK's; only grains that it holds are read.
func (d *Reader) WriteRaw(ctx context.Context, f *os.File) error {
	if err := f.Truncate(d.l.capacity); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for t := range d.l.tables {
		if err := ctx.Err(); err != nil {
			return err
		}
		if d.directory[t] == 0 {
			continue
		}
		for index := t * entries; index < min((t+1)*entries, d.l.grains); index++ {
			content, err := d.grain(index)
			if err != nil {
				return err
			}
			if content == nil {
				continue
			}
			if _, err := f.WriteAt(content, index*GrainSize); err != nil {
				return err
			}
		}
	}
	return nil
}

// grain is the content of a grain, nil for one of zeros; it is valid until the
// next call.
func (d *Reader) grain(index int64) ([]byte, error) {
	if index == d.grainNo {
		return d.content, nil
	}
	sector, err := d.entry(index)
	if err != nil {
		return nil, err
	}
	// 1 would be a grain that is known to be zeros, which only other kinds of
	// VMDK have: it lies inside the descriptor here.
	if sector == 0 {
		return nil, nil
	}
	d.grainNo = -1
	if err := d.inflate(index, int64(sector)*SectorSize); err != nil {
		return nil, fmt.Errorf("grain %d at sector %d: %w", index, sector, err)
	}
	d.grainNo = index
	return d.content, nil
}

// entry is where a grain is, in sectors.
func (d *Reader) entry(index int64) (uint32, error) {
	t := index / entries
	if d.directory[t] == 0 {
		return 0, nil
	}
	if d.tableNo != t {
		d.tableNo = -1
		if d.table == nil {
			d.table = make([]byte, tableSize)
		}
		if err := d.readAt(d.table, int64(d.directory[t])*SectorSize, "grain table"); err != nil {
			return 0, err
		}
		d.tableNo = t
	}
	return binary.LittleEndian.Uint32(d.table[index%entries*4:]), nil
}

func (d *Reader) inflate(index, at int64) error {
	if d.in == nil {
		d.in, d.content = make([]byte, maxRecord), make([]byte, 0, GrainSize)
	}
	marker := d.in[:markerSize]
	if err := d.readAt(marker, at, "marker"); err != nil {
		return err
	}
	lba, size := binary.LittleEndian.Uint64(marker), binary.LittleEndian.Uint32(marker[8:])
	if lba != uint64(index)*grainSectors {
		return fmt.Errorf("%w: its marker says sector %d", ErrFormat, lba)
	}
	if size == 0 || size > maxRecord {
		return fmt.Errorf("%w: its marker says %d compressed bytes", ErrFormat, size)
	}
	in := d.in[:size]
	if err := d.readAt(in, at+markerSize, "content"); err != nil {
		return err
	}
	var err error
	if d.inflater == nil {
		d.inflater, err = zlib.NewReader(bytes.NewReader(in))
	} else {
		err = d.inflater.(zlib.Resetter).Reset(bytes.NewReader(in), nil)
	}
	if err != nil {
		d.inflater = nil
		return fmt.Errorf("%w: %v", ErrFormat, err)
	}
	d.content = d.content[:d.l.grainLen(index)]
	if _, err := io.ReadFull(d.inflater, d.content); err != nil {
		return fmt.Errorf("%w: %v", ErrFormat, err)
	}
	// The checksum is compared at the end only.
	if n, err := d.inflater.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return fmt.Errorf("%w: %d bytes too many, %v", ErrFormat, n, err)
	}
	return nil
}

func (d *Reader) readAt(b []byte, at int64, what string) error {
	if at < 0 || at > d.size-int64(len(b)) {
		return fmt.Errorf("%w: its %s lies outside the file of %d bytes", ErrFormat, what, d.size)
	}
	if n, err := d.r.ReadAt(b, at); n < len(b) {
		return fmt.Errorf("read the %s: %w", what, err)
	}
	return nil
}
