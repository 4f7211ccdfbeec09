// SPDX-License-Identifier: Apache-2.0

package platform

import (
	"os"
	"path/filepath"
	"testing"
)

// The strings are what these machines show in /sys/class/dmi/id.
func TestDetect(t *testing.T) {
	for _, c := range []struct {
		name string
		s    Strings
		want Platform
	}{
		{"EC2 m5.large", Strings{SysVendor: "Amazon EC2", ProductName: "m5.large", BIOSVendor: "Amazon EC2", BIOSVersion: "1.0", BoardVendor: "Amazon EC2", BoardAssetTag: "i-0123456789abcdef0", ChassisVendor: "Amazon EC2", ChassisAssetTag: "Amazon EC2"}, EC2},
		{"EC2 t3.micro", Strings{SysVendor: "Amazon EC2", ProductName: "t3.micro", BIOSVendor: "Amazon EC2", BIOSVersion: "1.0", ChassisAssetTag: "Amazon EC2"}, EC2},
		{"EC2 i3.metal", Strings{SysVendor: "Amazon EC2", ProductName: "i3.metal", BIOSVendor: "Amazon EC2", BIOSVersion: "1.0", BoardVendor: "Amazon EC2", BoardAssetTag: "Not Specified"}, EC2},
		{"EC2 t2.micro (Xen)", Strings{SysVendor: "Xen", ProductName: "HVM domU", ProductUUID: "ec2f1a2b-0000-0000-0000-000000000000", BIOSVendor: "Xen", BIOSVersion: "4.11.amazon", ChassisVendor: "Xen"}, EC2},
		{"Xen of one's own", Strings{SysVendor: "Xen", ProductName: "HVM domU", BIOSVendor: "Xen", BIOSVersion: "4.17.3"}, Unknown},
		{"GCE n2-standard-4", Strings{SysVendor: "Google", ProductName: "Google Compute Engine", BIOSVendor: "Google", BIOSVersion: "Google", BoardVendor: "Google", BoardAssetTag: "12345678-1234-1234-1234-123456789abc", ChassisVendor: "Google"}, GCE},
		{"Chromebook", Strings{SysVendor: "Google", ProductName: "Eve", BIOSVendor: "coreboot"}, Unknown},
		{"ESXi 6.5, BIOS", Strings{SysVendor: "VMware, Inc.", ProductName: "VMware Virtual Platform", BIOSVendor: "Phoenix Technologies LTD", BIOSVersion: "6.00", BoardVendor: "Intel Corporation", ChassisVendor: "No Enclosure", ChassisAssetTag: "No Asset Tag"}, VMware},
		{"ESXi 7, EFI", Strings{SysVendor: "VMware, Inc.", ProductName: "VMware7,1", BIOSVendor: "VMware, Inc.", BIOSVersion: "VMW71.00V.18452719.B64.2108091906", BoardVendor: "Intel Corporation"}, VMware},
		{"ESXi 8 and Workstation 17, EFI", Strings{SysVendor: "VMware, Inc.", ProductName: "VMware20,1", BIOSVendor: "VMware, Inc.", BIOSVersion: "VMW201.00V.21805430.B64.2305221830"}, VMware},
		{"VirtualBox 7", Strings{SysVendor: "innotek GmbH", ProductName: "VirtualBox", BIOSVendor: "innotek GmbH", BIOSVersion: "VirtualBox", BoardVendor: "Oracle Corporation", ChassisVendor: "Oracle Corporation"}, VirtualBox},
		{"QEMU q35", Strings{SysVendor: "QEMU", ProductName: "Standard PC (Q35 + ICH9, 2009)", BIOSVendor: "Debian distribution of EDK II", ChassisVendor: "QEMU"}, QEMU},
		{"Proxmox 8", Strings{SysVendor: "QEMU", ProductName: "Standard PC (i440FX + PIIX, 1996)", BIOSVendor: "Proxmox distribution of EDK II", ChassisVendor: "QEMU"}, QEMU},
		{"RHEL KVM", Strings{SysVendor: "Red Hat", ProductName: "KVM", BIOSVendor: "SeaBIOS", ChassisVendor: "Red Hat"}, QEMU},
		{"oVirt", Strings{SysVendor: "oVirt", ProductName: "RHEL", ChassisVendor: "Red Hat"}, QEMU},
		{"OpenStack Nova", Strings{SysVendor: "OpenStack Foundation", ProductName: "OpenStack Nova", BIOSVendor: "SeaBIOS", ChassisVendor: "QEMU"}, QEMU},
		{"Nutanix AHV", Strings{SysVendor: "Nutanix", ProductName: "AHV", BIOSVendor: "SeaBIOS", ChassisVendor: "QEMU"}, QEMU},
		{"KubeVirt", Strings{SysVendor: "KubeVirt", ProductName: "None", ChassisVendor: "Red Hat"}, QEMU},
		{"Hyper-V 2022", Strings{SysVendor: "Microsoft Corporation", ProductName: "Virtual Machine", BIOSVendor: "Microsoft Corporation", BIOSVersion: "Hyper-V UEFI Release v4.1"}, HyperV},
		{"Azure", Strings{SysVendor: "Microsoft Corporation", ProductName: "Virtual Machine", ChassisAssetTag: "7783-7084-3265-9085-8269-3286-77"}, HyperV},
		{"Surface", Strings{SysVendor: "Microsoft Corporation", ProductName: "Surface Pro 9"}, Unknown},
		{"a server", Strings{SysVendor: "Dell Inc.", ProductName: "PowerEdge R760", BIOSVendor: "Dell Inc."}, Unknown},
		{"QEMU told to look like EC2", Strings{SysVendor: "Amazon EC2", ProductName: "Standard PC (Q35 + ICH9, 2009)", BIOSVendor: "Debian distribution of EDK II", ChassisVendor: "QEMU"}, EC2},
		{"nothing", Strings{}, Unknown},
	} {
		if got := Detect(c.s); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestRead(t *testing.T) {
	root := t.TempDir()
	if s := Read(root); s != (Strings{}) {
		t.Errorf("a machine without SMBIOS: %+v", s)
	}
	dir := filepath.Join(root, "sys/class/dmi/id")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"sys_vendor": "Amazon EC2\n", "product_name": "m5.large\n", "product_uuid": "EC2A\n", "bios_vendor": " x \n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := Read(root), (Strings{SysVendor: "Amazon EC2", ProductName: "m5.large", ProductUUID: "EC2A", BIOSVendor: "x"}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func FuzzDetect(f *testing.F) {
	f.Add("Amazon EC2", "m5.large", "4.11.amazon")
	f.Add("Google", "Google Compute Engine", "")
	f.Fuzz(func(t *testing.T, vendor, product, version string) {
		p := Detect(Strings{SysVendor: vendor, ProductName: product, BIOSVersion: version})
		if p.Cloud() && vendor != "Amazon EC2" && vendor != "Xen" && vendor != "Google" {
			t.Fatalf("%q %q %q is taken for %s, whose metadata would be asked for", vendor, product, version, p)
		}
	})
}
