// SPDX-License-Identifier: Apache-2.0

package ovf

import (
	"crypto/sha256"
	"fmt"
)

// machine is the machine in VirtualBox's own format, settings version 1.16
// (VirtualBox 5.1) for the widest range of readers. VirtualBox ignores VMware's
// firmware key, so without this block it makes a BIOS machine, which can't boot
// the disk. Where the block is, it replaces the hardware section: one without
// the disk's attachment, by the uuid in the disk section, fails to import. It
// has no pvscsi and no vmxnet3, so the disk is on AHCI and the NIC is virtio.
type machine struct {
	Required bool   `xml:"ovf:required,attr"`
	Version  string `xml:"version,attr"`
	UUID     string `xml:"uuid,attr"`
	Name     string `xml:"name,attr"`
	OSType   string `xml:"OSType,attr"`

	Info     string       `xml:"ovf:Info"`
	Hardware vboxHardware `xml:"Hardware"`
	Storage  []vboxStore  `xml:"StorageControllers>StorageController"`
}

type vboxHardware struct {
	CPU struct {
		Count int `xml:"count,attr"`
		PAE   on  `xml:"PAE"`
		Long  on  `xml:"LongMode"`
	} `xml:"CPU"`
	Memory struct {
		Size int `xml:"RAMSize,attr"`
	} `xml:"Memory"`
	Firmware typed       `xml:"Firmware"`
	Boot     []vboxOrder `xml:"Boot>Order"`
	Display  struct {
		Controller string `xml:"controller,attr"`
		VRAM       int    `xml:"VRAMSize,attr"`
	} `xml:"Display"`
	IOAPIC on        `xml:"BIOS>IOAPIC"`
	NICs   []vboxNIC `xml:"Network>Adapter"`
	Clock  struct {
		Kind string `xml:"localOrUTC,attr"`
	} `xml:"RTC"`
}

type on struct {
	Enabled bool `xml:"enabled,attr"`
}

type typed struct {
	Type string `xml:"type,attr"`
}

type vboxOrder struct {
	Position int    `xml:"position,attr"`
	Device   string `xml:"device,attr"`
}

type vboxNIC struct {
	Slot    int      `xml:"slot,attr"`
	Enabled bool     `xml:"enabled,attr"`
	Type    string   `xml:"type,attr"`
	NAT     struct{} `xml:"NAT"`
}

type vboxStore struct {
	Name     string       `xml:"name,attr"`
	Type     string       `xml:"type,attr"`
	Ports    int          `xml:"PortCount,attr"`
	Cache    bool         `xml:"useHostIOCache,attr"`
	Bootable bool         `xml:"Bootable,attr"`
	Devices  []vboxDevice `xml:"AttachedDevice"`
}

type vboxDevice struct {
	Passthrough string     `xml:"passthrough,attr,omitempty"`
	Type        string     `xml:"type,attr"`
	Port        int        `xml:"port,attr"`
	Device      int        `xml:"device,attr"`
	Image       *vboxImage `xml:"Image"`
}

type vboxImage struct {
	UUID string `xml:"uuid,attr"`
}

// maxVirtualBoxNICs is what VirtualBox's default chipset takes.
const maxVirtualBoxNICs = 8

func newMachine(o Options) machine {
	m := machine{
		Version: "1.16-linux", UUID: "{" + uuid("machine", o.ID) + "}", Name: o.Name, OSType: "Debian_64",
		Info: "The same machine in VirtualBox's format",
		Storage: []vboxStore{{Name: "SATA", Type: "AHCI", Ports: 2, Bootable: true, Devices: []vboxDevice{
			{Type: "HardDisk", Image: &vboxImage{UUID: "{" + uuid("disk", o.ID) + "}"}},
			{Passthrough: "false", Type: "DVD", Port: 1},
		}}},
	}
	h := &m.Hardware
	h.CPU.Count, h.CPU.PAE.Enabled, h.CPU.Long.Enabled = o.CPUs, true, true
	h.Memory.Size = o.MemoryMiB
	h.Firmware.Type = "EFI"
	for i, device := range []string{"HardDisk", "DVD", "None", "None"} {
		h.Boot = append(h.Boot, vboxOrder{Position: i + 1, Device: device})
	}
	h.Display.Controller, h.Display.VRAM = "VMSVGA", 16
	h.IOAPIC.Enabled = true
	for i := range min(len(o.Networks), maxVirtualBoxNICs) {
		h.NICs = append(h.NICs, vboxNIC{Slot: i, Enabled: true, Type: "virtio"})
	}
	h.Clock.Kind = "UTC"
	return m
}

// uuid is a UUID version 8 (RFC 9562) from the hash of what it names.
func uuid(what, id string) string {
	b := sha256.Sum256([]byte("holdfast ovf " + what + "\x00" + id))
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
