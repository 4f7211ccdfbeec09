// SPDX-License-Identifier: Apache-2.0

// Package target is what all target formats (OVA, GCE, AMI) start from: the
// finished output folder of a bake, read by its data extents, and files in it
// that appear whole or not at all. It changes nothing a bake made.
package target

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/holdfast/holdfast/builder"
	"github.com/holdfast/holdfast/images/extents"
)

// DiskName is the file of an output folder that holds the disk.
const DiskName = "disk.raw"

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
)

// Disk is a baked disk, open for reading.
type Disk struct {
	// Dir is the output folder, absolute.
	Dir      string
	Manifest builder.Manifest
	File     *os.File
	// Size is the length of disk.raw in bytes, whole MiB.
	Size int64
	// Runs are its data; between them are zeros that nobody need read.
	Runs []extents.Run
}

// Open opens the disk of an output folder and checks that it is the one its
// manifest tells of.
func Open(dir string) (*Disk, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	m, err := builder.ReadManifest(abs)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s has no %s, so no bake made it: bake first, or name the folder of a bake", abs, builder.ManifestName)
	} else if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(abs, DiskName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s has no %s any more: bake again", abs, DiskName)
	} else if err != nil {
		return nil, err
	}
	d := &Disk{Dir: abs, Manifest: *m, File: f}
	if err := d.look(); err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

func (d *Disk) look() error {
	st, err := d.File.Stat()
	if err != nil {
		return err
	}
	d.Size = st.Size()
	if want := d.file().Bytes; d.Size != want {
		return fmt.Errorf("%s has %d bytes, its manifest says %d: bake again", d.File.Name(), d.Size, want)
	}
	if d.Size == 0 || d.Size%mib != 0 {
		return fmt.Errorf("%s has %d bytes, which is not a whole number of MiB: bake again", d.File.Name(), d.Size)
	}
	d.Runs, err = extents.Runs(d.File)
	return err
}

func (d *Disk) file() builder.ManifestFile {
	for _, f := range d.Manifest.Files {
		if f.Name == DiskName {
			return f
		}
	}
	return builder.ManifestFile{}
}

// SHA256 of disk.raw, 64 hex digits, as the bake wrote it down.
func (d *Disk) SHA256() string { return d.file().SHA256 }

// Release is "<name>-<version>".
func (d *Disk) Release() string { return d.Manifest.Name + "-" + d.Manifest.Version }

// Close closes the disk.
func (d *Disk) Close() error { return d.File.Close() }

// Capacity is the length of the target's disk in bytes for a wish in bytes (0:
// no wish): the wish rounded up to whole unit bytes, and never shorter than
// disk.raw. key names the option, for the error.
func (d *Disk) Capacity(key string, wish, unit int64) (int64, error) {
	if wish < 0 || wish > 64<<40 {
		return 0, fmt.Errorf("%s: %d bytes is out of range, at most 64 TiB", key, wish)
	}
	up := func(n int64) int64 { return (n + unit - 1) / unit * unit }
	if wish == 0 {
		return up(d.Size), nil
	}
	if up(wish) < d.Size {
		return 0, fmt.Errorf("%s: %d GiB is less than the baked disk needs, which is %d GiB: raise it, or leave it out", key, wish/gib, (d.Size+gib-1)/gib)
	}
	return up(wish), nil
}
