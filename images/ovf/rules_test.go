// SPDX-License-Identifier: Apache-2.0

package ovf

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rules are what importers hold an envelope against, each with where it is
// from. The DMTF schema (dsp8023) is in no Debian package; testdata/*.xsd has
// the order and types of the elements we write, these have what a schema can't
// say.
var rules = []struct {
	name  string
	check func(e *node) error
}{
	{"DSP0243 7: the root is Envelope of OVF 1; vSphere refuses OVF 2", func(e *node) error {
		return want(e.name.Space+" "+e.name.Local, nsOVF+" Envelope")
	}},
	{"DSP0243 7.1: references, sections, then the content", func(e *node) error {
		return want(strings.Join(names(e), " "), "References DiskSection NetworkSection VirtualSystem")
	}},
	{"DSP0243 7.1: attributes of OVF elements are in a name space", func(e *node) error {
		return e.walk(func(n *node) error {
			for _, a := range n.attrs {
				if a.Name.Space == "" && a.Name.Local != "xmlns" {
					return fmt.Errorf("attribute %s of %s has none", a.Name.Local, n.name.Local)
				}
			}
			return nil
		})
	}},
	{"DSP0243 8: a file's size is its exact length, and the VMDK is not compressed once more", func(e *node) error {
		for _, f := range e.one("References").kids {
			if n, err := strconv.ParseInt(f.attr("size"), 10, 64); err != nil || n <= 0 || f.attr("compression") != "" || f.attr("chunkSize") != "" {
				return fmt.Errorf("%v", f.attrs)
			}
			if strings.ContainsAny(f.attr("href"), "/:\\") {
				return fmt.Errorf("href %s is not a file beside the envelope", f.attr("href"))
			}
		}
		return nil
	}},
	{"DSP0243 9.1: each disk's file is referenced, and each file used", func(e *node) error {
		var files, used []string
		for _, f := range e.one("References").kids {
			files = append(files, f.attr("id"))
		}
		for _, d := range e.one("DiskSection").all("Disk") {
			used = append(used, d.attr("fileRef"))
		}
		return want(strings.Join(used, " "), strings.Join(files, " "))
	}},
	{"VMware: the format is streamOptimized, the capacity in bytes", func(e *node) error {
		d := e.one("DiskSection").one("Disk")
		if _, err := strconv.ParseInt(d.attr("capacity"), 10, 64); err != nil {
			return err
		}
		return want(d.attr("capacityAllocationUnits")+" "+d.attr("format"), "byte "+DiskFormat)
	}},
	{"DSP0243 7.2: every section starts with Info", func(e *node) error {
		return e.walk(func(n *node) error {
			if strings.HasSuffix(n.name.Local, "Section") && (len(n.kids) == 0 || n.kids[0].name.Local != "Info") {
				return fmt.Errorf("%s does not", n.name.Local)
			}
			return nil
		})
	}},
	{"DSP0243 8.1: instance ids are unique, parents exist and come first", func(e *node) error {
		seen := map[string]bool{}
		for _, i := range hw(e).all("Item") {
			id, parent := i.value("InstanceID"), i.value("Parent")
			if id == "" || seen[id] || parent != "" && !seen[parent] {
				return fmt.Errorf("instance %s, parent %s", id, parent)
			}
			seen[id] = true
		}
		return nil
	}},
	{"CIM_ResourceAllocationSettingData: elements in alphabetical order", func(e *node) error {
		for _, i := range append(hw(e).all("Item"), hw(e).one("System")) {
			if !slices.IsSorted(names(i)) {
				return fmt.Errorf("%v", names(i))
			}
		}
		return nil
	}},
	{"every NIC's network is in the NetworkSection", func(e *node) error {
		var listed, used []string
		for _, n := range e.one("NetworkSection").all("Network") {
			listed = append(listed, n.attr("name"))
		}
		for _, i := range ofType(e, "10") {
			used = append(used, i.value("Connection"))
		}
		return want(strings.Join(used, "\n"), strings.Join(listed, "\n"))
	}},
	{"vSphere: names of subtypes in their exact case", func(e *node) error {
		for _, i := range ofType(e, "10") {
			if err := want(i.value("ResourceSubType"), "VmxNet3"); err != nil {
				return err
			}
		}
		return want(ofType(e, "6")[0].value("ResourceSubType"), "VirtualSCSI")
	}},
	{"one processor item, one memory item in MiB, one disk", func(e *node) error {
		for _, kind := range []string{"3", "4", "6", "17"} {
			if n := len(ofType(e, kind)); n != 1 {
				return fmt.Errorf("%d of type %s", n, kind)
			}
		}
		return want(ofType(e, "4")[0].value("AllocationUnits"), "byte * 2^20")
	}},
	{"Proxmox and VirtualBox: the disk item names the disk as ovf:/disk/ID", func(e *node) error {
		return want(ofType(e, "17")[0].value("HostResource"), "ovf:/disk/"+e.one("DiskSection").one("Disk").attr("diskId"))
	}},
	{"vSphere: an ISO with the properties needs a CD drive", func(e *node) error {
		if strings.Contains(hw(e).attr("transport"), "iso") && len(ofType(e, "15")) == 0 {
			return fmt.Errorf("there is none")
		}
		return nil
	}},
	{"VMware: firmware is a Config, disk.EnableUUID an ExtraConfig; neither is required elsewhere", func(e *node) error {
		keys := map[string]string{}
		for _, name := range []string{"Config", "ExtraConfig"} {
			for _, c := range hw(e).all(name) {
				keys[name+" "+c.attr("key")] = c.attr("value") + " " + c.attr("required")
			}
		}
		if err := want(keys["Config firmware"], "efi false"); err != nil {
			return err
		}
		return want(keys["ExtraConfig disk.EnableUUID"], "true false")
	}},
	{"DSP0243 9.5: a property has class, key and type, and a key has neither dot nor colon", func(e *node) error {
		p := e.one("VirtualSystem").one("ProductSection")
		for _, q := range p.all("Property") {
			if q.attr("key") == "" || strings.ContainsAny(q.attr("key"), ".:") || q.attr("type") != "string" || q.attr("userConfigurable") != "true" {
				return fmt.Errorf("%v", q.attrs)
			}
		}
		return want(p.attr("class"), Class)
	}},
	{"VirtualBox: its machine is EFI and has the disk attached by the uuid in the DiskSection", func(e *node) error {
		m := e.one("VirtualSystem").one("Machine")
		if err := want(m.one("Hardware").one("Firmware").attr("type"), "EFI"); err != nil {
			return err
		}
		device := m.one("StorageControllers").one("StorageController").all("AttachedDevice")[0]
		return want(device.one("Image").attr("uuid"), "{"+e.one("DiskSection").one("Disk").attr("uuid")+"}")
	}},
}

// walk visits all elements but VirtualBox's, which are not OVF's to rule.
func (n *node) walk(f func(*node) error) error {
	if n.name.Space == nsVBOX {
		return nil
	}
	if err := f(n); err != nil {
		return err
	}
	for _, k := range n.kids {
		if err := k.walk(f); err != nil {
			return err
		}
	}
	return nil
}

func hw(e *node) *node { return e.one("VirtualSystem").one("VirtualHardwareSection") }

func ofType(e *node, kind string) (found []*node) {
	for _, i := range hw(e).all("Item") {
		if i.value("ResourceType") == kind {
			found = append(found, i)
		}
	}
	return found
}

func names(n *node) (all []string) {
	for _, k := range n.kids {
		all = append(all, k.name.Local)
	}
	return all
}

func want(got, want string) error {
	if got != want {
		return fmt.Errorf("%q, want %q", got, want)
	}
	return nil
}

func checkRules(e *node) (broken []string) {
	for _, r := range rules {
		if err := r.check(e); err != nil {
			broken = append(broken, r.name+": "+err.Error())
		}
	}
	return broken
}

func TestRules(t *testing.T) {
	for _, broken := range checkRules(parse(t, marshal(t, sample()))) {
		t.Error(broken)
	}
	least := Options{Name: "x", CPUs: 1, MemoryMiB: 1024, Capacity: 1 << 20, DiskFile: "x.vmdk", DiskSize: 1}
	for _, broken := range checkRules(parse(t, marshal(t, least))) {
		t.Errorf("least options: %s", broken)
	}
}

// The rules find what they are there for.
func TestRulesFind(t *testing.T) {
	for _, c := range []struct{ old, new, rule string }{
		{"envelope/1\" xmlns:ovf", "envelope/2\" xmlns:ovf", "refuses OVF 2"},
		{"ovf:fileRef=\"file1\"", "ovf:fileRef=\"file2\"", "referenced"},
		{"ovf:size=\"123456789\"", "ovf:size=\"123456789\" ovf:compression=\"gzip\"", "exact length"},
		{"VmxNet3<", "vmxnet3<", "exact case"},
		{"<rasd:Parent>3<", "<rasd:Parent>9<", "parents exist"},
		{"Büro</rasd:Connection>", "Buero</rasd:Connection>", "NetworkSection"},
		{"vmw:value=\"efi\"", "vmw:value=\"bios\"", "firmware"},
		{"ovf:/disk/", "/disk/", "Proxmox"},
		{"type=\"EFI\"", "type=\"BIOS\"", "VirtualBox"},
		{"\"byte\"", "\"byte * 2^30\"", "capacity in bytes"},
	} {
		b := marshal(t, sample())
		if !bytes.Contains(b, []byte(c.old)) {
			t.Fatalf("no %q in the envelope", c.old)
		}
		broken := checkRules(parse(t, bytes.Replace(b, []byte(c.old), []byte(c.new), 1)))
		if !slices.ContainsFunc(broken, func(s string) bool { return strings.Contains(s, c.rule) }) {
			t.Errorf("%s: found %q, want %q", c.new, broken, c.rule)
		}
	}
}
