// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/images/durable"
)

const (
	// DataFile is where Data says what it did in this boot.
	DataFile = "/run/holdfast/data.json"
	// lastFile keeps the last one that came to use a data disk: where a disk
	// is missing, a person is told which.
	lastFile = "/var/lib/holdfast/data-disk.json"
	// maxDataFile bounds both in bytes.
	maxDataFile = 1 << 20

	onSystem = "system-disk"
	onDisk   = "data-disk"
)

// ErrNoDataFile is returned by ReadData where Data has not run in this boot.
var ErrNoDataFile = errors.New("holdfast-data has not run in this boot")

// ReadData reads what Data said in this boot, below root ("" on a box).
func ReadData(root string) (status.DataDisk, error) {
	d, err := readDataFile(filepath.Join("/", root, DataFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrNoDataFile, err)
	}
	return d, err
}

func readDataFile(name string) (status.DataDisk, error) {
	f, err := os.Open(name)
	if err != nil {
		return status.DataDisk{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxDataFile+1))
	if err != nil {
		return status.DataDisk{}, err
	}
	var d status.DataDisk
	if len(data) > maxDataFile {
		return d, fmt.Errorf("%s: more than %d bytes", name, maxDataFile)
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return status.DataDisk{}, fmt.Errorf("%s: %w", name, err)
	}
	return d, nil
}

func writeDataFile(env Env, name string, d status.DataDisk) error {
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(env.path(filepath.Dir(name)), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(env.path(name), append(data, '\n'), 0o644)
}

// describe is what people and the daemon are told of a home.
func (h Home) describe() status.DataDisk {
	d := status.DataDisk{
		Place: onSystem, Group: h.Group.Name, GroupID: h.Group.ID, Volume: h.Volume, Mapper: mapperName(h.Group.Name, h.Volume),
		Device: h.Group.Dev, Label: h.Label.describe(),
	}
	if h.Disk != nil {
		id := h.Disk.describeID()
		d.Place, d.Disk = onDisk, &id
	}
	return d
}

func (l Label) describe() *status.DataLabel {
	return &status.DataLabel{Box: l.Box, Release: l.Release, Version: l.Version, ReadableFrom: l.ReadableFrom, Generation: l.Generation, Trial: l.Trial}
}

func (d Disk) describeID() status.DiskID {
	return status.DiskID{Device: d.Name, ID: d.ID, Model: d.Model, Serial: d.Serial, Bytes: d.Bytes}
}

// others are all disks but the home's.
func (v View) others(h Home) []status.OtherDisk {
	out := []status.OtherDisk{}
	for _, d := range v.Disks {
		if h.Disk != nil && d.Kernel == h.Disk.Kernel {
			continue
		}
		o := status.OtherDisk{DiskID: d.describeID(), Holds: d.Found, Unfit: d.Unfit}
		if d.Group != nil {
			if l, err := ParseLabel(d.Group.Tags); err == nil {
				o.Label = l.describe()
			}
		}
		out = append(out, o)
	}
	return out
}

// notes are the conditions about disks that are left alone, on a box whose
// data has a home.
func (v View) notes(h Home) []status.Condition {
	out := []status.Condition{}
	info := func(remedy, format string, args ...any) {
		out = append(out, status.Condition{Code: "data-disk-unused", Severity: "info", Text: fmt.Sprintf(format, args...), Remedy: remedy})
	}
	lives := "the data lives on the system disk"
	if h.Disk != nil {
		lives = fmt.Sprintf("the data lives on %s", h.Disk)
	}
	switch {
	case v.Wish.Disk == wishNone && h.Disk == nil:
		return out // the admin has said not to look at any
	case v.Wish.Disk == wishNone:
		info("remove data.disk from the configuration", "data.disk is none, but %s since this box was first started", lives)
	case v.Wish.Disk != "" && v.Wish.Disk != wishAuto && (h.Disk == nil || v.Named != h.Disk.Kernel):
		info("remove data.disk from the configuration, or start a new box with it", "data.disk is %s, but %s since this box was first started", v.Wish.Disk, lives)
	}
	leave := "detach the disk, or leave it as it is"
	if h.Disk == nil {
		leave += "; with data.disk: none it is not spoken of"
	}
	for _, d := range v.Disks {
		switch {
		case h.Disk != nil && d.Kernel == h.Disk.Kernel:
		case d.Group != nil:
			l, err := ParseLabel(d.Group.Tags)
			text := "volumes of Holdfast with a label that cannot be read"
			if err == nil {
				text = fmt.Sprintf("the data of a box (machine id %s%s)", l.Box, lastRelease(l))
			}
			info("detach the disk; a new box takes it with holdfast data adopt", "disk %s holds %s and is not used: %s", d, text, lives)
		case d.empty():
			info(leave, "disk %s is empty and is not used: %s", d, lives)
		case d.Unfit == "" && d.Found != "":
			info(leave, "disk %s holds %s and is not touched", d, d.Found)
		}
	}
	return out
}
