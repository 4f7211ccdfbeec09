// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast/holdfast/images/esp"
	"github.com/holdfast/holdfast/images/extents"
	"github.com/holdfast/holdfast/images/gpt"
	"github.com/holdfast/holdfast/images/layout"
)

// Sizes a bake uses where the configuration names none: an ESP for three UKIs
// and systemd-boot twice, slots with room for a root three times as large.
const (
	espSize         = 256 << 20
	defaultSlotSize = 768 << 20
)

// loaderConf is systemd-boot's configuration: no menu, no editor, so that the
// firmware's console cannot change a signed command line.
const loaderConf = "timeout 0\neditor no\nauto-entries no\nauto-firmware no\n"

// firstGeneration is the number in the name of the UKI that a bake installs.
const firstGeneration = 1

func stepDisk(ctx context.Context, w *work) (m made, err error) {
	root, err := hex.DecodeString(w.seal.meta.RootHash)
	if err != nil {
		return m, err
	}
	factory, err := os.Stat(w.factory)
	if err != nil {
		return m, err
	}
	slot := w.cfg.SlotSize
	if slot == 0 {
		slot = defaultSlotSize
	}
	uki, err := os.ReadFile(w.uki)
	if err != nil {
		return m, err
	}
	boot, err := os.ReadFile(w.bootloader)
	if err != nil {
		return m, err
	}
	// What the disk is follows from what is on it.
	seed := sha256.New()
	fmt.Fprintf(seed, "disk 1 %x %x %s\n", root, sha256.Sum256(uki), w.factoryKey)
	table, err := layout.Plan(layout.Spec{ESPSize: espSize, SlotSize: slot, FactorySize: factory.Size(),
		RootSize: w.seal.meta.Bytes, MinDiskSize: w.cfg.DiskSize, RootUUID: [16]byte(root[:16]), Seed: [32]byte(seed.Sum(nil))})
	if err != nil {
		return m, err
	}
	f, err := os.OpenFile(filepath.Join(w.tmp, "disk.raw"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(table.DiskSize); err != nil {
		return m, err
	}
	written, err := fillDisk(ctx, w, f, table, uki, boot)
	if err != nil {
		return m, err
	}
	// On disk first: where data is while it is on its way there, a file system
	// may answer wrongly, and a hash of zeros in its place would be believed.
	if err := f.Sync(); err != nil {
		return m, err
	}
	sum, err := extents.HashSparse(ctx, f, nil)
	if err != nil {
		return m, err
	}
	for _, p := range table.Parts {
		w.parts = append(w.parts, ManifestPartition{Label: p.Label, UUID: p.UUID.String(), Offset: p.Offset, Bytes: p.Size})
	}
	w.diskHash, w.diskSize = hex.EncodeToString(sum[:]), table.DiskSize
	return made{bytes: written}, nil
}

// fillDisk writes what the partitions hold, then the partition table: backup
// before primary, so that no reader finds a table whose partitions are empty.
func fillDisk(ctx context.Context, w *work, f *os.File, t layout.Table, uki, boot []byte) (int64, error) {
	part := func(label string) gpt.Part { p, _ := t.Part(label); return p }
	var written int64
	rootA, factory := part(layout.RootALabel).Offset, part(layout.FactoryLabel).Offset
	for _, c := range []struct {
		path string
		at   int64
	}{{w.seal.image, rootA}, {w.seal.tree, rootA + w.seal.meta.HashOffset}, {w.factory, factory}} {
		src, err := os.Open(c.path)
		if err != nil {
			return 0, err
		}
		n, err := extents.Copy(ctx, f, src, c.at, nil)
		src.Close()
		if err != nil {
			return 0, fmt.Errorf("copying %s: %w", c.path, err)
		}
		written += n
	}
	e := part(layout.ESPLabel)
	err := esp.Write(io.NewOffsetWriter(f, e.Offset), e.Size, []esp.File{
		{Path: "EFI/BOOT/BOOTX64.EFI", Data: boot},
		{Path: "EFI/systemd/systemd-bootx64.efi", Data: boot},
		{Path: fmt.Sprintf("EFI/Linux/holdfast-%010d.efi", firstGeneration), Data: uki},
		{Path: "loader/loader.conf", Data: []byte(loaderConf)},
	}, layout.DeriveVolumeID(sha256.Sum256(uki), layout.ESPLabel), time.Unix(w.lock.Epoch, 0).UTC())
	if err != nil {
		return 0, fmt.Errorf("%s: %w", layout.ESPLabel, err)
	}
	written += int64(len(uki) + 2*len(boot))
	head, tail, err := gpt.Encode(t.Table, t.DiskSize)
	if err != nil {
		return 0, err
	}
	if _, err := f.WriteAt(tail, t.DiskSize-int64(len(tail))); err != nil {
		return 0, err
	}
	_, err = f.WriteAt(head, 0)
	return written, err
}
