// SPDX-License-Identifier: Apache-2.0

package powercut

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// Mapping is a part of a thin volume: Len chunks from From on lie in the pool
// from To on.
type Mapping struct{ From, To, Len int64 }

// Thin are the devices of a thin pool, by their number.
type Thin struct {
	// Chunk in bytes.
	Chunk int64
	// Transaction as LVM counts them.
	Transaction int64
	Devices     map[int64][]Mapping
}

// maxChunks keeps offsets far from an overflow.
const maxChunks = 1 << 32

// ParseThin reads what thin_dump writes.
func ParseThin(r io.Reader) (*Thin, error) {
	t := &Thin{Devices: map[int64][]Mapping{}}
	dec := xml.NewDecoder(r)
	device := int64(-1)
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("thin_dump: %w", err)
		}
		switch e := tok.(type) {
		case xml.EndElement:
			if e.Name.Local == "device" {
				device = -1
			}
		case xml.StartElement:
			n := numbersOf(e)
			switch e.Name.Local {
			case "superblock":
				t.Chunk, t.Transaction = n["data_block_size"]*512, n["transaction"]
			case "device":
				device = n["dev_id"]
				t.Devices[device] = []Mapping{}
			case "single_mapping", "range_mapping":
				m := Mapping{n["origin_block"], n["data_block"], 1}
				if e.Name.Local == "range_mapping" {
					m = Mapping{n["origin_begin"], n["data_begin"], n["length"]}
				}
				if device < 0 || m.From < 0 || m.To < 0 || m.Len < 1 || max(m.From, m.To, m.Len) > maxChunks {
					return nil, fmt.Errorf("thin_dump: a mapping from %d to %d of %d chunks", m.From, m.To, m.Len)
				}
				t.Devices[device] = append(t.Devices[device], m)
			default:
				return nil, fmt.Errorf("thin_dump: %q is not known", e.Name.Local)
			}
		}
	}
	if t.Chunk <= 0 || t.Chunk > 1<<30 {
		return nil, errors.New("thin_dump: no size of chunks")
	}
	for _, list := range t.Devices {
		slices.SortFunc(list, func(a, b Mapping) int { return int(a.From - b.From) })
	}
	return t, nil
}

// numbersOf are the attributes of an element that are numbers.
func numbersOf(e xml.StartElement) map[string]int64 {
	n := map[string]int64{}
	for _, a := range e.Attr {
		var v int64
		if _, err := fmt.Sscan(a.Value, &v); err == nil {
			n[a.Name.Local] = v
		}
	}
	return n
}

// Copy writes a device as a sparse file of size bytes; pool reads the pool's
// data.
func (t *Thin) Copy(device int64, size int64, pool io.ReaderAt, to *os.File) error {
	list, ok := t.Devices[device]
	if !ok {
		return fmt.Errorf("the thin pool has no device %d", device)
	}
	if err := to.Truncate(0); err != nil {
		return err
	}
	if err := to.Truncate(size); err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for _, m := range list {
		from, length := m.From*t.Chunk, m.Len*t.Chunk
		if from > size-length {
			return fmt.Errorf("device %d reaches beyond its volume", device)
		}
		for done := int64(0); done < length; {
			b := buf[:min(int64(len(buf)), length-done)]
			if _, err := pool.ReadAt(b, m.To*t.Chunk+done); err != nil {
				return err
			}
			if _, err := to.WriteAt(b, from+done); err != nil {
				return err
			}
			done += int64(len(b))
		}
	}
	return nil
}
