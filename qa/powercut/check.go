// SPDX-License-Identifier: Apache-2.0

package powercut

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/images/gpt"
	"github.com/holdfast/holdfast/images/verity"
)

// Outcome is what a disk is in, in words that can be counted.
type Outcome struct {
	// Record is which generation is committed and whether one is on trial;
	// ESP the kernel images by name; FAT what fsck.fat names; Pool how LVM and
	// the thin pool stand to each other.
	Record, ESP, FAT, Pool string
	// Problems are what must never be.
	Problems []string
}

func (o Outcome) String() string {
	s := "record: " + o.Record + " | ESP: " + o.ESP + " | FAT: " + o.FAT + " | pool: " + o.Pool
	if len(o.Problems) > 0 {
		s += " | WRONG: " + strings.Join(o.Problems, "; ")
	}
	return s
}

func (o *Outcome) wrong(format string, args ...any) {
	o.Problems = append(o.Problems, fmt.Sprintf(format, args...))
}

// Checker looks at disks of one recorded run. Its fields are set before use.
type Checker struct {
	Programs Programs
	// Dir is a folder for work, best in memory: volumes are copied there.
	Dir string
	// Table is what both copies of the partition table must say.
	Table gpt.Table
	// Allowed are generations that may be committed; nil allows any.
	Allowed []slot.Generation
	// Images are digests of the kernel images and boot loaders of the releases
	// involved; nil allows any.
	Images map[string]bool
	// verified remembers which slot was found whole, by what it was at.
	verified map[string]error
	// Record is the generation record last read, nil where there was none.
	Record *slot.Record
	// Found are the ESP's files last read.
	Found []FATFile
}

// Disk is what is looked at: the file and, where it is a Replay's, its count
// of changes, which spares what was looked at already.
type Disk struct {
	File    *os.File
	Size    int64
	Changes func(at, length int64) uint64
}

// Check looks at a whole disk. Errors are of the check itself; what is wrong
// with the disk is in the outcome.
func (c *Checker) Check(ctx context.Context, d Disk) (Outcome, error) {
	var o Outcome
	c.Record, c.Found = nil, nil
	c.tables(d, &o)
	if err := c.esp(ctx, d, &o); err != nil {
		return o, err
	}
	state, ok := c.Table.Part("state")
	if !ok {
		return o, errors.New("the disk has no partition state: record a run of a box that has been set up")
	}
	if err := c.state(ctx, d, state, &o); err != nil {
		return o, err
	}
	if c.Record == nil {
		return o, nil
	}
	return o, c.generations(ctx, d, &o)
}

// hide reads a disk with one range as zeros.
type hide struct {
	io.ReaderAt
	at, end int64
}

func (h hide) ReadAt(b []byte, at int64) (int, error) {
	n, err := h.ReaderAt.ReadAt(b, at)
	for i := max(at, h.at); i < min(at+int64(n), h.end); i++ {
		b[i-at] = 0
	}
	return n, err
}

// tables looks at each copy of the partition table alone.
func (c *Checker) tables(d Disk, o *Outcome) {
	for _, copy := range []struct {
		name    string
		at, end int64 // of the other copy
	}{{"backup", 0, gpt.HeadSize}, {"primary", d.Size - gpt.TailSize, d.Size}} {
		t, err := gpt.Decode(hide{d.File, copy.at, copy.end}, d.Size)
		switch {
		case err != nil:
			o.wrong("the %s partition table does not read", copy.name)
		case t.DiskGUID != c.Table.DiskGUID || !slices.Equal(t.Parts, c.Table.Parts):
			o.wrong("the %s partition table is another one", copy.name)
		}
	}
}

// esp looks at the ESP as firmware and systemd-boot do, and as fsck.fat does.
func (c *Checker) esp(ctx context.Context, d Disk, o *Outcome) error {
	p, ok := c.Table.Part("esp")
	if !ok {
		return errors.New("the disk has no ESP")
	}
	files, err := ReadFAT(io.NewSectionReader(d.File, p.Offset, p.Size), p.Size)
	if err != nil {
		o.wrong("the ESP does not read: %v", err)
		return nil
	}
	c.Found = files
	var names []string
	loaders := 0
	for _, f := range files {
		path := strings.ToLower(f.Path)
		known := f.Digest != "" && (c.Images == nil || c.Images[f.Digest])
		switch {
		case !strings.HasSuffix(path, ".efi"): // a temporary name, nobody starts it
		case strings.HasPrefix(path, "efi/linux/"), strings.HasPrefix(path, "efi/holdfast/"):
			names = append(names, strings.TrimPrefix(f.Path, "EFI/"))
			if !known {
				o.wrong("a kernel image under its final name is not whole: %s", f.Path)
			}
		case known:
			loaders++
		}
	}
	if loaders == 0 {
		o.wrong("no boot loader is whole")
	}
	slices.Sort(names)
	o.ESP = strings.Join(names, " ")
	dev, err := loop(d.File.Name(), p.Offset, p.Size, true)
	if err != nil {
		return err
	}
	defer dev.Close()
	out, err := c.Programs.Run(ctx, "fsck.fat", "-n", dev.Name())
	o.FAT = strings.Join(FsckFAT(out), ", ")
	if o.FAT == "" {
		if o.FAT = "clean"; err != nil {
			o.FAT = "other: " + lastLines(out, 3)
		}
	}
	return nil
}

// generations holds the record against the slots, the volumes and the ESP.
func (c *Checker) generations(ctx context.Context, d Disk, o *Outcome) error {
	rec := c.Record
	same := func(g slot.Generation) bool {
		return g.Number == rec.Committed.Number && g.Slot == rec.Committed.Slot && g.RootHash == rec.Committed.RootHash && g.Data == rec.Committed.Data
	}
	if c.Allowed != nil && !slices.ContainsFunc(c.Allowed, same) {
		o.wrong("generation %d is committed, which is neither the old nor the new", rec.Committed.Number)
	}
	named := []slot.Generation{rec.Committed}
	if rec.Kept != nil {
		named = append(named, *rec.Kept)
	}
	if rec.Trial != nil {
		named = append(named, rec.Trial.Generation)
	}
	for i, g := range named {
		what := [...]string{"committed", "other"}[min(i, 1)]
		if err := c.slotWhole(ctx, d, g); err != nil {
			o.wrong("the slot of the %s generation %d is not whole: %v", what, g.Number, err)
		}
	}
	number := rec.Committed.UKI
	if number == 0 {
		number = rec.Committed.Number
	}
	prefix := fmt.Sprintf("efi/linux/holdfast-%010d", number)
	found := slices.ContainsFunc(c.Found, func(f FATFile) bool {
		path := strings.ToLower(f.Path)
		return strings.HasPrefix(path, prefix) && strings.HasSuffix(path, ".efi")
	})
	if !found {
		o.wrong("the committed generation %d has no kernel image to start", rec.Committed.Number)
	}
	return nil
}

// slotWhole verifies a slot against the generation's root hash, once for each
// content.
func (c *Checker) slotWhole(ctx context.Context, d Disk, g slot.Generation) error {
	p, ok := c.Table.Part("root-" + strings.ToLower(g.Slot))
	if !ok {
		return fmt.Errorf("there is no slot %q", g.Slot)
	}
	key := ""
	if d.Changes != nil {
		key = fmt.Sprint(g.Slot, g.RootHash, d.Changes(p.Offset, p.Size))
		if err, ok := c.verified[key]; ok {
			return err
		}
	}
	err := verifySlot(ctx, io.NewSectionReader(d.File, p.Offset, p.Size), p.Size, g.RootHash)
	if key != "" {
		if c.verified == nil {
			c.verified = map[string]error{}
		}
		c.verified[key] = err
	}
	return err
}

func verifySlot(ctx context.Context, r io.ReaderAt, size int64, hash string) error {
	raw, err := hex.DecodeString(hash)
	if err != nil || len(raw) != 32 {
		return errors.New("its root hash is none")
	}
	head := make([]byte, 48)
	if _, err := r.ReadAt(head, 0); err != nil {
		return err
	}
	used := int64(binary.LittleEndian.Uint64(head[40:]))
	if !bytes.HasPrefix(head, []byte("hsqs")) || used <= 0 || used > size {
		return errors.New("there is no squashfs")
	}
	return verity.Verify(ctx, r, (used+4095)/4096*4096, [32]byte(raw), nil)
}

// work makes a file in the work folder.
func (c *Checker) work(name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(c.Dir, name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
}
