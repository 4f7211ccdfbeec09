// SPDX-License-Identifier: Apache-2.0

package ovf

import (
	"encoding/xml"
	"fmt"
	"strconv"
)

// The name spaces. encoding/xml knows no prefixes, so they are part of the
// names in the tags below and declared once, on the root.
const (
	nsOVF  = "http://schemas.dmtf.org/ovf/envelope/1"
	nsCIM  = "http://schemas.dmtf.org/wbem/wscim/1/common"
	nsRASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
	nsVSSD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
	nsVMW  = "http://www.vmware.com/schema/ovf"
	nsVBOX = "http://www.virtualbox.org/ovf/machine"

	// DiskFormat is the format URI of a streamOptimized VMDK.
	DiskFormat = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
	// transport: how the guest gets the properties; both, as either may lack.
	transport = "com.vmware.guestInfo iso"
	// linux64 is CIM's operating system 101, "Linux 64-Bit".
	linux64 = 101
)

type envelope struct {
	XMLName xml.Name `xml:"Envelope"`
	NS      string   `xml:"xmlns,attr"`
	OVF     string   `xml:"xmlns:ovf,attr"`
	CIM     string   `xml:"xmlns:cim,attr"`
	RASD    string   `xml:"xmlns:rasd,attr"`
	VSSD    string   `xml:"xmlns:vssd,attr"`
	VMW     string   `xml:"xmlns:vmw,attr"`
	VBOX    string   `xml:"xmlns:vbox,attr"`

	Files    []file        `xml:"References>File"`
	Disks    diskSection   `xml:"DiskSection"`
	Networks networks      `xml:"NetworkSection"`
	System   virtualSystem `xml:"VirtualSystem"`
}

type file struct {
	Href string `xml:"ovf:href,attr"`
	ID   string `xml:"ovf:id,attr"`
	Size int64  `xml:"ovf:size,attr"`
}

type diskSection struct {
	Info string `xml:"Info"`
	Disk disk   `xml:"Disk"`
}

type disk struct {
	Capacity  int64  `xml:"ovf:capacity,attr"`
	Units     string `xml:"ovf:capacityAllocationUnits,attr"`
	ID        string `xml:"ovf:diskId,attr"`
	FileRef   string `xml:"ovf:fileRef,attr"`
	Format    string `xml:"ovf:format,attr"`
	Populated int64  `xml:"ovf:populatedSize,attr"`
	UUID      string `xml:"vbox:uuid,attr"`
}

type networks struct {
	Info     string    `xml:"Info"`
	Networks []network `xml:"Network"`
}

type network struct {
	Name        string `xml:"ovf:name,attr"`
	Description string `xml:"Description"`
}

type virtualSystem struct {
	ID         string      `xml:"ovf:id,attr"`
	Info       string      `xml:"Info"`
	Name       string      `xml:"Name"`
	Annotation *annotation `xml:"AnnotationSection"`
	Product    product     `xml:"ProductSection"`
	EULA       *eula       `xml:"EulaSection"`
	OS         system      `xml:"OperatingSystemSection"`
	Hardware   hardware    `xml:"VirtualHardwareSection"`
	VirtualBox machine     `xml:"vbox:Machine"`
}

type annotation struct {
	Info string `xml:"Info"`
	Text string `xml:"Annotation"`
}

type eula struct {
	Info string `xml:"Info"`
	Text string `xml:"License"`
}

type product struct {
	Class      string `xml:"ovf:class,attr"`
	Info       string `xml:"Info"`
	Product    string `xml:"Product,omitempty"`
	Vendor     string `xml:"Vendor,omitempty"`
	Version    string `xml:"Version,omitempty"`
	ProductURL string `xml:"ProductUrl,omitempty"`
	VendorURL  string `xml:"VendorUrl,omitempty"`
	// Items are category and property in turn.
	Items []any
}

type category struct {
	XMLName xml.Name `xml:"Category"`
	Text    string   `xml:",chardata"`
}

type property struct {
	XMLName     xml.Name `xml:"Property"`
	Key         string   `xml:"ovf:key,attr"`
	Type        string   `xml:"ovf:type,attr"`
	Qualifiers  string   `xml:"ovf:qualifiers,attr"`
	UserCanSet  bool     `xml:"ovf:userConfigurable,attr"`
	Value       string   `xml:"ovf:value,attr"`
	Label       string   `xml:"Label"`
	Description string   `xml:"Description"`
}

type system struct {
	ID          int    `xml:"ovf:id,attr"`
	Type        string `xml:"vmw:osType,attr"`
	Info        string `xml:"Info"`
	Description string `xml:"Description"`
}

type hardware struct {
	Transport string   `xml:"ovf:transport,attr"`
	Info      string   `xml:"Info"`
	System    vssd     `xml:"System"`
	Items     []item   `xml:"Item"`
	Config    []config `xml:"vmw:Config"`
	Extra     []config `xml:"vmw:ExtraConfig"`
}

type vssd struct {
	Name       string `xml:"vssd:ElementName"`
	InstanceID int    `xml:"vssd:InstanceID"`
	Identifier string `xml:"vssd:VirtualSystemIdentifier"`
	Type       string `xml:"vssd:VirtualSystemType"`
}

// item is a device; CIM's schema wants the elements in alphabetical order.
type item struct {
	Required        string `xml:"ovf:required,attr,omitempty"`
	Address         string `xml:"rasd:Address,omitempty"`
	AddressOnParent string `xml:"rasd:AddressOnParent,omitempty"`
	Units           string `xml:"rasd:AllocationUnits,omitempty"`
	Automatic       string `xml:"rasd:AutomaticAllocation,omitempty"`
	Connection      string `xml:"rasd:Connection,omitempty"`
	Description     string `xml:"rasd:Description,omitempty"`
	Name            string `xml:"rasd:ElementName"`
	HostResource    string `xml:"rasd:HostResource,omitempty"`
	InstanceID      int    `xml:"rasd:InstanceID"`
	Parent          string `xml:"rasd:Parent,omitempty"`
	SubType         string `xml:"rasd:ResourceSubType,omitempty"`
	Type            int    `xml:"rasd:ResourceType"`
	Quantity        string `xml:"rasd:VirtualQuantity,omitempty"`
}

type config struct {
	Required bool   `xml:"ovf:required,attr"`
	Key      string `xml:"vmw:key,attr"`
	Value    string `xml:"vmw:value,attr"`
}

func newEnvelope(o Options) envelope {
	e := envelope{
		NS: nsOVF, OVF: nsOVF, CIM: nsCIM, RASD: nsRASD, VSSD: nsVSSD, VMW: nsVMW, VBOX: nsVBOX,
		Files: []file{{Href: o.DiskFile, ID: "file1", Size: o.DiskSize}},
		Disks: diskSection{Info: "Virtual disks", Disk: disk{
			Capacity: o.Capacity, Units: "byte", ID: diskID, FileRef: "file1", Format: DiskFormat, Populated: o.Populated,
			UUID: uuid("disk", o.ID),
		}},
		Networks: networks{Info: "Networks the machine is connected to"},
		System: virtualSystem{
			ID: o.Name, Info: "A virtual machine", Name: o.Name, Product: newProduct(o),
			OS:         system{ID: linux64, Type: o.GuestOS, Info: "The operating system", Description: "Linux 64-Bit"},
			Hardware:   newHardware(o),
			VirtualBox: newMachine(o),
		},
	}
	for _, n := range o.Networks {
		e.Networks.Networks = append(e.Networks.Networks, network{Name: n, Description: "The " + n + " network"})
	}
	if o.Description != "" {
		e.System.Annotation = &annotation{Info: "A description of the machine", Text: o.Description}
	}
	if o.EULA != "" {
		e.System.EULA = &eula{Info: "The licence agreement", Text: o.EULA}
	}
	return e
}

func newProduct(o Options) product {
	p := product{
		Class: Class, Info: "What is inside, and its settings",
		Product: o.Product, Vendor: o.Vendor, Version: o.Version, ProductURL: o.ProductURL, VendorURL: o.VendorURL,
	}
	last := ""
	for _, q := range Properties() {
		if q.Category != last {
			p.Items = append(p.Items, category{Text: q.Category})
			last = q.Category
		}
		p.Items = append(p.Items, property{
			Key: q.Key, Type: "string", Qualifiers: fmt.Sprintf("MaxLen(%d)", q.MaxLen), UserCanSet: true,
			Value: o.Properties[q.Key], Label: q.Label, Description: q.Description,
		})
	}
	return p
}

const diskID = "vmdisk1"

// newHardware lists the devices, with the resource types of
// CIM_ResourceAllocationSettingData. The CD drive is where vCenter puts the
// properties for a guest that reads them from an ISO; it is on IDE because that
// is the controller which every importer knows.
func newHardware(o Options) hardware {
	const scsi, ide, firstNIC = 3, 4, 7
	h := hardware{
		Transport: transport, Info: "Virtual hardware",
		System: vssd{Name: "Virtual Hardware Family", InstanceID: 0, Identifier: o.Name, Type: o.Hardware},
		Items: []item{
			{Units: "hertz * 10^6", Description: "Number of virtual CPUs", Name: fmt.Sprintf("%d virtual CPU(s)", o.CPUs), InstanceID: 1, Type: 3, Quantity: strconv.Itoa(o.CPUs)},
			{Units: "byte * 2^20", Description: "Memory size", Name: fmt.Sprintf("%d MiB of memory", o.MemoryMiB), InstanceID: 2, Type: 4, Quantity: strconv.Itoa(o.MemoryMiB)},
			{Address: "0", Description: "SCSI controller", Name: "SCSI controller 0", InstanceID: scsi, SubType: "VirtualSCSI", Type: 6},
			{Address: "0", Description: "IDE controller", Name: "IDE controller 0", InstanceID: ide, Type: 5},
			{AddressOnParent: "0", Name: "Hard disk 1", HostResource: "ovf:/disk/" + diskID, InstanceID: 5, Parent: strconv.Itoa(scsi), Type: 17},
			{Required: "false", AddressOnParent: "0", Automatic: "false", Name: "CD/DVD drive 1", InstanceID: 6, Parent: strconv.Itoa(ide), SubType: "vmware.cdrom.remotepassthrough", Type: 15},
		},
		Config: []config{{Key: "firmware", Value: "efi"}, {Key: "bootOptions.efiSecureBootEnabled", Value: strconv.FormatBool(o.SecureBoot)}},
		Extra:  []config{{Key: "disk.EnableUUID", Value: "true"}},
	}
	for i, n := range o.Networks {
		h.Items = append(h.Items, item{
			AddressOnParent: strconv.Itoa(firstNIC + i), Automatic: "true", Connection: n, Description: "VmxNet3 ethernet adapter on \"" + n + "\"",
			Name: fmt.Sprintf("Network adapter %d", i+1), InstanceID: firstNIC + i, SubType: "VmxNet3", Type: 10,
		})
	}
	return h
}
