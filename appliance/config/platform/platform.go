// SPDX-License-Identifier: Apache-2.0

// Package platform tells where the box landed, from what the firmware says of
// the machine (SMBIOS, DMTF DSP0134). It reads strings and judges them with a
// pure function; it talks to nobody. Whoever can set these strings is the
// machine's owner, so they decide where configuration is asked for, never what
// is trusted.
package platform

import (
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Platform is what runs the box.
type Platform string

// The platforms that are told apart.
const (
	EC2        Platform = "ec2"
	GCE        Platform = "gce"
	VMware     Platform = "vmware"
	VirtualBox Platform = "virtualbox"
	QEMU       Platform = "qemu"
	HyperV     Platform = "hyper-v"
	Unknown    Platform = "unknown"
)

// Cloud says whether p has a metadata service that is asked over the network.
func (p Platform) Cloud() bool { return p == EC2 || p == GCE }

// Strings are those of SMBIOS that tell platforms apart, as Linux gives them
// in /sys/class/dmi/id.
type Strings struct {
	SysVendor, ProductName, ProductUUID string
	BIOSVendor, BIOSVersion             string
	BoardVendor, BoardAssetTag          string
	ChassisVendor, ChassisAssetTag      string
}

// maxString bounds one string in bytes; SMBIOS strings are at most 64 by
// convention, and sysfs never gives more than a page.
const maxString = 4096

// Read reads the strings below root ("" on a box). What is not there, or may
// not be read, is empty.
func Read(root string) Strings {
	get := func(name string) string {
		f, err := os.Open(filepath.Join("/", root, "sys/class/dmi/id", name))
		if err != nil {
			return ""
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxString))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	return Strings{
		SysVendor: get("sys_vendor"), ProductName: get("product_name"), ProductUUID: get("product_uuid"),
		BIOSVendor: get("bios_vendor"), BIOSVersion: get("bios_version"),
		BoardVendor: get("board_vendor"), BoardAssetTag: get("board_asset_tag"),
		ChassisVendor: get("chassis_vendor"), ChassisAssetTag: get("chassis_asset_tag"),
	}
}

// qemuVendors put their own name on machines that QEMU and KVM run.
var qemuVendors = []string{"QEMU", "Red Hat", "oVirt", "OpenStack Foundation", "Nutanix", "KubeVirt", "Bochs"}

// Detect judges the strings.
func Detect(s Strings) Platform {
	switch {
	// Nitro and metal instances: every string of the vendor's is this one.
	case s.SysVendor == "Amazon EC2" || s.BIOSVendor == "Amazon EC2":
		return EC2
	// Instances under Xen show only in the version of its firmware.
	case s.SysVendor == "Xen" && strings.HasSuffix(s.BIOSVersion, ".amazon"):
		return EC2
	// Not by the vendor alone: it also makes laptops.
	case s.SysVendor == "Google" && strings.HasPrefix(s.ProductName, "Google"):
		return GCE
	case strings.HasPrefix(s.SysVendor, "VMware") || strings.HasPrefix(s.ProductName, "VMware"):
		return VMware
	case s.ProductName == "VirtualBox" || s.SysVendor == "innotek GmbH":
		return VirtualBox
	case s.SysVendor == "Microsoft Corporation" && s.ProductName == "Virtual Machine":
		return HyperV
	}
	for _, v := range qemuVendors {
		if s.SysVendor == v || s.ChassisVendor == v {
			return QEMU
		}
	}
	if strings.Contains(s.ProductName, "KVM") {
		return QEMU
	}
	return Unknown
}
