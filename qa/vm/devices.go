// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"encoding/base64"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/images/gpt"
)

// ExtraDisk is a disk beside the system disk.
type ExtraDisk struct {
	// Path of a qcow2 file (see NewDisk), Serial as the guest sees it.
	Path, Serial string
	// NVMe attaches it so, else it is virtio-blk.
	NVMe bool
}

// System is what SMBIOS tells of the maker; empty fields are QEMU's own.
type System struct{ Manufacturer, Product, Serial, Version, AssetTag, BIOSVendor string }

// smbios are QEMU's arguments for the tables.
func (s System) smbios() []string {
	table := func(kind string, pairs ...string) []string {
		text := "type=" + kind
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i+1] != "" {
				text += "," + pairs[i] + "=" + comma(pairs[i+1])
			}
		}
		if text == "type="+kind {
			return nil
		}
		return []string{"-smbios", text}
	}
	list := table("0", "vendor", s.BIOSVendor)
	list = append(list, table("1", "manufacturer", s.Manufacturer, "product", s.Product, "serial", s.Serial, "version", s.Version)...)
	list = append(list, table("2", "manufacturer", s.Manufacturer, "asset", s.AssetTag)...)
	return append(list, table("3", "manufacturer", s.Manufacturer, "asset", s.AssetTag)...)
}

// disks are QEMU's arguments for the disks.
func (o Options) disks() []string {
	// Flushes must reach the overlay: a killed QEMU stands for lost power.
	disk := "if=none,id=disk0,format=qcow2,cache=writeback,file=" + comma(o.Disk)
	if o.Record != "" {
		disk = "if=none,id=disk0,cache=writeback,driver=blklogwrites,log-sector-size=512,file.driver=qcow2,file.file.driver=file,file.file.filename=" +
			comma(o.Disk) + ",log.driver=file,log.filename=" + comma(o.Record)
	}
	list := []string{"-drive", disk}
	switch o.DiskBus {
	case "":
		device := "virtio-blk-pci,drive=disk0,bootindex=0"
		if o.Record != "" {
			// A merged request has as many pieces as the host takes at once,
			// and the log adds one: the guest would see I/O errors.
			device += ",request-merging=off"
		}
		list = append(list, "-device", device)
	case "nvme":
		list = append(list, "-device", "nvme,drive=disk0,serial=vol00000000000000001,bootindex=0")
	default:
		bus := map[string]string{"pvscsi": "pvscsi", "virtio-scsi": "virtio-scsi-pci"}[o.DiskBus]
		list = append(list, "-device", bus+",id=scsi0", "-device", "scsi-hd,bus=scsi0.0,drive=disk0,bootindex=1")
	}
	if o.BootDisk != "" {
		list = append(list, "-drive", "if=none,id=boot,format=raw,readonly=on,file="+o.BootDisk, "-device", "virtio-blk-pci,drive=boot,bootindex=0")
	}
	for i, d := range o.Disks {
		id := "extra" + strconv.Itoa(i)
		model := "virtio-blk-pci"
		if d.NVMe {
			model = "nvme"
		}
		list = append(list, "-drive", "if=none,id="+id+",format=qcow2,cache=writeback,file="+d.Path,
			"-device", model+",drive="+id+",serial="+d.Serial)
	}
	return list
}

// comma doubles commas, which separate options for QEMU.
func comma(text string) string { return strings.ReplaceAll(text, ",", ",,") }

// credentials are QEMU's arguments for systemd credentials (systemd.system-credentials(7)).
func (o Options) credentials() []string {
	var list []string
	for name, value := range o.Credentials {
		list = append(list, "-smbios", "type=11,value="+comma("io.systemd.credential.binary:"+name+"="+base64.StdEncoding.EncodeToString([]byte(value))))
	}
	return list
}

// Overlay makes a disk of size bytes over the image's, which stays as it is.
func Overlay(ctx context.Context, t *Tree, img *Image, dir, name string, size int64) (string, error) {
	return OverlayOn(ctx, t, img.Disk(), "raw", dir, name, size)
}

// OverlayOn makes a disk of size bytes (0: of the same size) over a file in
// one of qemu-img's formats, which stays as it is.
func OverlayOn(ctx context.Context, t *Tree, backing, format, dir, name string, size int64) (string, error) {
	path := filepath.Join(dir, name+".qcow2")
	args := []string{"create", "-q", "-f", "qcow2", "-F", format, "-b", backing, path}
	if size > 0 {
		args = append(args, strconv.FormatInt(size, 10))
	}
	_, err := t.run(ctx, "qemu-img", args...)
	return path, err
}

// BootDisk makes a disk that holds the image's ESP and nothing else, in its
// place: for machines whose system disk the firmware at hand cannot read
// (Debian's has no driver for pvscsi; ESXi's own has). All but the boot loader
// and the kernel image then comes from the system disk.
func BootDisk(img *Image, dir string) (string, error) {
	part, err := img.Part("esp")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "boot.raw")
	out, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer out.Close()
	in, err := os.Open(img.Disk())
	if err != nil {
		return "", err
	}
	defer in.Close()
	if _, err := io.Copy(io.NewOffsetWriter(out, part.Offset), io.NewSectionReader(in, part.Offset, part.Bytes)); err != nil {
		return "", err
	}
	size := part.Offset + part.Bytes + 1<<20
	t := gpt.Table{DiskGUID: gpt.GUID{1}, Parts: []gpt.Part{{Label: "boot", Type: gpt.TypeESP, UUID: gpt.GUID{2}, Offset: part.Offset, Size: part.Bytes}}}
	head, tail, err := gpt.Encode(t, size)
	if err != nil {
		return "", err
	}
	if _, err := out.WriteAt(head, 0); err != nil {
		return "", err
	}
	_, err = out.WriteAt(tail, size-int64(len(tail)))
	return path, err
}

// NewDisk makes an empty disk of size bytes.
func NewDisk(ctx context.Context, t *Tree, dir, name string, size int64) (string, error) {
	path := filepath.Join(dir, name+".qcow2")
	_, err := t.run(ctx, "qemu-img", "create", "-q", "-f", "qcow2", path, strconv.FormatInt(size, 10))
	return path, err
}
