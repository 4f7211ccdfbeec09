// SPDX-License-Identifier: Apache-2.0

package gpt

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

var errCut = errors.New("the power failed")

// cutDisk takes writes sector by sector until a number of them was written.
type cutDisk struct {
	data []byte
	left int
}

func (d *cutDisk) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(d.data).ReadAt(p, off)
}
func (d *cutDisk) Sync() error { return nil }

func (d *cutDisk) WriteAt(p []byte, off int64) (int, error) {
	for n := 0; n < len(p); n += SectorSize {
		if d.left == 0 {
			return n, errCut
		}
		d.left--
		copy(d.data[off+int64(n):], p[n:min(n+SectorSize, len(p))])
	}
	return len(p), nil
}

func smallDisk(t *testing.T) (data []byte, size int64) {
	t.Helper()
	size = 8 << 20
	table := Table{DiskGUID: GUID{1}, Parts: []Part{
		{Label: "root-a", Type: TypeRootX8664, UUID: GUID{2}, Offset: 1 << 20, Size: 1 << 20, Attrs: AttrReadOnly},
		{Label: "root-b", Type: TypeRootX8664, UUID: GUID{3}, Offset: 2 << 20, Size: 1 << 20, Attrs: AttrNoAuto},
		{Label: "state", Type: TypeLVM, UUID: GUID{4}, Offset: 3 << 20, Size: 1 << 20},
	}}
	head, tail, err := Encode(table, size)
	if err != nil {
		t.Fatal(err)
	}
	data = make([]byte, size)
	copy(data, head)
	copy(data[size-int64(len(tail)):], tail)
	return data, size
}

// TestSetUUIDCuts: after a cut at any sector the table says the old id or the
// new one, the rest is as it was, and a second call ends it in both copies.
func TestSetUUIDCuts(t *testing.T) {
	fresh, size := smallDisk(t)
	want, err := Decode(bytes.NewReader(fresh), size)
	if err != nil {
		t.Fatal(err)
	}
	done, olds, news := false, 0, 0
	for cut := 0; !done; cut++ {
		d := &cutDisk{data: bytes.Clone(fresh), left: cut}
		err := SetUUID(d, size, "root-b", GUID{9})
		if done = err == nil; !done && !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		got, err := Decode(d, size)
		if err != nil {
			t.Fatalf("cut %d: %v", cut, err)
		}
		switch got.Parts[1].UUID {
		case GUID{3}:
			olds++
		case GUID{9}:
			news++
		default:
			t.Fatalf("cut %d: %s", cut, got.Parts[1].UUID)
		}
		got.Parts[1].UUID = GUID{3}
		for i := range want.Parts {
			if got.Parts[i] != want.Parts[i] || got.DiskGUID != want.DiskGUID {
				t.Fatalf("cut %d: %+v", cut, got)
			}
		}
		// A second cut while the first is mended leaves no less.
		again := &cutDisk{data: bytes.Clone(d.data), left: 20}
		if err := SetUUID(again, size, "root-b", GUID{9}); err != nil && !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		if _, err := Decode(again, size); err != nil {
			t.Fatalf("cut %d and again: %v", cut, err)
		}
		d.left = 1 << 20
		if err := SetUUID(d, size, "root-b", GUID{9}); err != nil {
			t.Fatalf("cut %d: %v", cut, err)
		}
		for _, lba := range []uint64{1, uint64(size/SectorSize) - 1} {
			if c, err := decodeCopy(d, size, lba); err != nil || c.Parts[1].UUID != (GUID{9}) {
				t.Fatalf("cut %d: copy at %d: %v", cut, lba, err)
			}
		}
	}
	if olds < 30 || news < 30 {
		t.Errorf("%d cuts left the old id, %d the new one", olds, news)
	}
}

func TestSetUUIDRefuses(t *testing.T) {
	data, size := smallDisk(t)
	for label, id := range map[string]GUID{"root-c": {9}, "root-b": {2}} {
		d := &cutDisk{data: bytes.Clone(data), left: 1 << 20}
		if err := SetUUID(d, size, label, id); err == nil || !bytes.Equal(d.data, data) {
			t.Errorf("%s %s: %v", label, id, err)
		}
	}
	// As it is already: nothing is written.
	if err := SetUUID(&cutDisk{data: data}, size, "root-b", GUID{3}); err != nil {
		t.Error(err)
	}
	if err := SetUUID(&cutDisk{data: make([]byte, size)}, size, "root-b", GUID{9}); err == nil || !strings.Contains(err.Error(), "primary") {
		t.Errorf("no table: %v", err)
	}
}
