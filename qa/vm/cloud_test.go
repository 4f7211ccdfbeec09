// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import (
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/status"
)

// dataSize is the size of data disks under test.
const dataSize = 4 << 30

// TestClouds is a data disk's way through two machines. The first is on EC2:
// it is configured by IMDSv2 user-data, takes the empty volume for its data,
// and takes nothing from a service without tokens. The second is on Google
// Cloud: its user-data is bad at first, which it says and comes up without;
// the disk is another box's, so it waits until the user-data says to adopt it.
func TestClouds(t *testing.T) {
	disk, err := NewDisk(t.Context(), tree, t.TempDir(), "data", dataSize)
	if err != nil {
		t.Fatal(err)
	}
	if !t.Run("EC2", func(t *testing.T) { onEC2(t, disk) }) {
		t.Fatal("without the first box there is nothing to adopt")
	}
	t.Run("Google", func(t *testing.T) { onGoogle(t, disk) })
}

func cloudBox(t *testing.T, values map[string]string) (*box, *Metadata) {
	t.Helper()
	b := newBox(t, "")
	m, err := NewMetadata(t.TempDir(), values)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	b.opts.Metadata = m.Command
	return b, m
}

func onEC2(t *testing.T, disk string) {
	b, m := cloudBox(t, map[string]string{
		"/latest/user-data":                          "hostname: shop.example.com\nntp: [169.254.169.123]\n",
		"/latest/meta-data/instance-id":              "i-0123456789abcdef0",
		"/latest/meta-data/placement/region":         "eu-central-1",
		"/latest/dynamic/instance-identity/document": "{}",
	})
	b.opts.System = System{Manufacturer: "Amazon EC2", Product: "t3.medium", AssetTag: "i-0123456789abcdef0", BIOSVendor: "Amazon EC2"}
	b.opts.DiskBus = "nvme"
	b.opts.Disks = []ExtraDisk{{Path: disk, Serial: "vol0123456789abcdef0", NVMe: true}}
	b.start()
	b.complete(0, 1)
	checkHealthy(b)
	signBook(b)

	if got := b.run("hostname"); got != "shop.example.com" {
		t.Errorf("the box is called %s", got)
	}
	r := b.report()
	if r.Hostname != "shop.example.com" || r.Platform != "ec2" {
		t.Errorf("status says %q on %q", r.Hostname, r.Platform)
	}
	if at := b.run("findmnt -no SOURCE /var/lib/holdfast/data"); !strings.Contains(at, "holdfast--data") {
		t.Errorf("the data is on %s, not on the data disk", at)
	}
	for _, a := range m.Asked() {
		if strings.HasPrefix(a, "GET /latest/") && !strings.HasSuffix(a, " 200") && !strings.HasSuffix(a, " 404") {
			t.Errorf("asked: %s", a)
		}
	}

	// The same machine offered version 1 only: nothing may be asked of it, and
	// what it knew stays.
	m.V1Only(true)
	m.Set("/latest/user-data", "hostname: evil.example.com\n")
	b.try("systemctl restart holdfast-config.service")
	if asked := m.Asked(); slices.ContainsFunc(asked, func(a string) bool { return strings.HasPrefix(a, "GET") }) {
		t.Errorf("without a token it asked: %q", asked)
	}
	if got := b.run("hostname"); got != "shop.example.com" {
		t.Errorf("a service without tokens named the box %s", got)
	}
	b.off()
}

func onGoogle(t *testing.T, disk string) {
	const userData = "/computeMetadata/v1/instance/attributes/user-data"
	b, m := cloudBox(t, map[string]string{
		userData:                          "hostname: shop2.example.com\nntpp: [a.example.com]\n",
		"/computeMetadata/v1/instance/id": "4711", "/computeMetadata/v1/instance/name": "shop2",
	})
	b.opts.System = System{Manufacturer: "Google", Product: "Google Compute Engine", BIOSVendor: "Google"}
	b.opts.DiskBus = "virtio-scsi"
	b.opts.Disks = []ExtraDisk{{Path: disk, Serial: "data"}}
	b.start()
	b.said(0, `holdfast: the stack is held: `)
	if _, err := b.Shell.Ready(b.within(bootTime, "a boot"), 1); err != nil {
		t.Fatal(err)
	}
	r := b.report()
	bad, ok := condition(r, "config-refused")
	if !ok || !strings.Contains(bad.Text, ":2") || !strings.Contains(bad.Text, "ntpp") {
		t.Errorf("the bad user-data shows as %+v", bad)
	}
	if got := b.run("hostname"); got == "shop2.example.com" {
		t.Error("half of a bad document was taken")
	}
	if foreign, ok := condition(r, "data-foreign"); !ok || !strings.Contains(foreign.Remedy, "holdfast data adopt") {
		t.Errorf("another box's disk shows as %+v", foreign)
	}
	if r.Stack != "held" {
		t.Errorf("the stack is %s on another box's data", r.Stack)
	}
	if out := b.run("docker ps -aq"); out != "" {
		t.Errorf("containers on another box's data: %s", out)
	}

	m.Set(userData, "hostname: shop2.example.com\ndata: {adopt: true}\n")
	mark := b.Console.Mark()
	b.try("systemctl reboot")
	b.complete(mark, 2)
	if got := b.run("hostname"); got != "shop2.example.com" {
		t.Errorf("the box is called %s", got)
	}
	checkBook(b)
	b.off()
}

func condition(r status.Report, code string) (status.Condition, bool) {
	i := slices.IndexFunc(r.Conditions, func(c status.Condition) bool { return c.Code == code })
	if i < 0 {
		return status.Condition{}, false
	}
	return r.Conditions[i], true
}
