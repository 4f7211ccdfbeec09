// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import (
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/status"
)

// metadataFor gives a box a metadata service that serves values.
func metadataFor(t *testing.T, b *box, values map[string]string) *Metadata {
	t.Helper()
	m, err := NewMetadata(t.TempDir(), values)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	b.opts.Metadata = m.Command
	return m
}

// onEC2 makes a box an EC2 instance: its firmware says so, its disk is NVMe,
// and IMDSv2 has user-data for it.
func onEC2(t *testing.T, b *box) *Metadata {
	b.opts.System = System{Manufacturer: "Amazon EC2", Product: "t3.medium", AssetTag: "i-0123456789abcdef0", BIOSVendor: "Amazon EC2"}
	b.opts.DiskBus = "nvme"
	return metadataFor(t, b, map[string]string{
		"/latest/user-data":                  "hostname: shop.example.com\nntp: [169.254.169.123]\n",
		"/latest/meta-data/instance-id":      "i-0123456789abcdef0",
		"/latest/meta-data/placement/region": "eu-central-1",
	})
}

// checkEC2 sees that the user-data counts, and that nothing is asked of, or
// taken from, a service that offers version 1 only.
func checkEC2(b *box, m *Metadata) {
	b.t.Helper()
	checkNamed(b, "shop.example.com", "ec2")
	asked := m.Asked()
	if !slices.Contains(asked, "PUT /latest/api/token 200") || !slices.Contains(asked, "GET /latest/user-data 200") {
		b.t.Errorf("the box asked %q", asked)
	}
	if slices.ContainsFunc(asked, func(a string) bool { return strings.HasSuffix(a, " 401") }) {
		b.t.Errorf("the box asked without a token: %q", asked)
	}
	m.V1Only(true)
	m.Set("/latest/user-data", "hostname: evil.example.com\n")
	b.try("systemctl restart holdfast-config.service")
	if asked = m.Asked(); len(asked) == 0 || slices.ContainsFunc(asked, func(a string) bool { return strings.HasPrefix(a, "GET") }) {
		b.t.Errorf("of a service without tokens the box asked %q", asked)
	}
	checkNamed(b, "shop.example.com", "ec2")
}

const googleData = "/computeMetadata/v1/instance/attributes/user-data"

// onGoogle makes a box a machine of Google Cloud.
func onGoogle(t *testing.T, b *box) *Metadata {
	b.opts.System = System{Manufacturer: "Google", Product: "Google Compute Engine", BIOSVendor: "Google"}
	b.opts.DiskBus = "virtio-scsi"
	return metadataFor(t, b, map[string]string{
		googleData:                          "hostname: shop2.example.com\n",
		"/computeMetadata/v1/instance/id":   "4711",
		"/computeMetadata/v1/instance/name": "shop2",
	})
}

// checkGoogle sees that the user-data counts, and that a later mistake in it
// is named with its line while the last good one stays.
func checkGoogle(b *box, m *Metadata) {
	b.t.Helper()
	checkNamed(b, "shop2.example.com", "gce")
	m.Set(googleData, "hostname: shop3.example.com\nntpp: [a.example.com]\n")
	b.try("systemctl restart holdfast-config.service")
	b.run("systemctl restart holdfast.service")
	b.run("holdfast wait-healthy --timeout 8m")
	r := b.report()
	if bad, ok := condition(r, "config-refused"); !ok || !strings.Contains(bad.Text, ":2") || !strings.Contains(bad.Text, "ntpp") {
		b.t.Errorf("the bad user-data shows as %+v of %+v", bad, r.Conditions)
	}
	checkNamed(b, "shop2.example.com", "gce")
}

func checkNamed(b *box, name, platform string) {
	b.t.Helper()
	if got := b.run("hostname"); got != name {
		b.t.Errorf("the box is called %s, want %s", got, name)
	}
	if r := b.report(); r.Hostname != name || r.Platform != platform {
		b.t.Errorf("status says %q on %q, want %q on %q", r.Hostname, r.Platform, name, platform)
	}
}

func condition(r status.Report, code string) (status.Condition, bool) {
	i := slices.IndexFunc(r.Conditions, func(c status.Condition) bool { return c.Code == code })
	if i < 0 {
		return status.Condition{}, false
	}
	return r.Conditions[i], true
}
