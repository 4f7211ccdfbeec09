// SPDX-License-Identifier: Apache-2.0

package ovf

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// vcenter is what vCenter hands over, with a second machine of the vApp.
const vcenter = `<?xml version="1.0" encoding="UTF-8"?>
<Environment
     xmlns="http://schemas.dmtf.org/ovf/environment/1"
     xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
     xmlns:oe="http://schemas.dmtf.org/ovf/environment/1"
     xmlns:ve="http://www.vmware.com/schema/ovfenv"
     oe:id=""
     ve:vCenterId="vm-42">
   <PlatformSection>
      <Kind>VMware ESXi</Kind>
      <Version>8.0.2</Version>
      <Vendor>VMware, Inc.</Vendor>
      <Locale>en</Locale>
   </PlatformSection>
   <PropertySection>
         <Property oe:key="holdfast.hostname" oe:value="box1.example.com"/>
         <Property oe:key="holdfast.ssh_keys" oe:value="a&#10;b &amp; c"/>
         <Property oe:key="vami.ip0" oe:value="10.0.0.9"/>
   </PropertySection>
   <ve:EthernetAdapterSection>
      <ve:Adapter ve:mac="00:50:56:aa:bb:cc" ve:network="VM Network" ve:unitNumber="7"/>
   </ve:EthernetAdapterSection>
   <Entity oe:id="other">
      <PropertySection>
         <Property oe:key="holdfast.hostname" oe:value="other.example.com"/>
      </PropertySection>
   </Entity>
</Environment>
`

func TestParse(t *testing.T) {
	got, err := Parse([]byte(vcenter))
	want := []Property{{"holdfast.hostname", "box1.example.com", 16}, {"holdfast.ssh_keys", "a\nb & c", 17}, {"vami.ip0", "10.0.0.9", 18}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%+v", err, got)
	}
	// Other tools put no prefix before attributes, or another one.
	got, err = Parse([]byte(`<e:Environment xmlns:e="` + Namespace + `"><e:PropertySection><e:Property key="a" value="b"/></e:PropertySection></e:Environment>`))
	if err != nil || len(got) != 1 || got[0].Key != "a" || got[0].Value != "b" {
		t.Errorf("%v %+v", err, got)
	}
}

func TestParseRefuses(t *testing.T) {
	section := func(inner string) string {
		return `<Environment xmlns="` + Namespace + `"><PropertySection>` + inner + `</PropertySection></Environment>`
	}
	for _, c := range []struct{ name, data, want string }{
		{"empty", "", "no Environment"},
		{"no XML", "hostname: box1\n", "no Environment"},
		{"an envelope", `<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"/>`, "<Envelope> is no OVF environment"},
		{"another namespace", `<Environment xmlns="urn:x"/>`, "is no OVF environment"},
		{"cut off", vcenter[:800], "not XML"},
		{"entities", `<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/shadow">]>` + section(`<Property key="a" value="&a;"/>`), "document type"},
		{"unknown entity", section(`<Property key="a" value="&a;"/>`), "not XML"},
		{"Latin-1", `<?xml version="1.0" encoding="ISO-8859-1"?>` + section(""), "not XML"},
		{"twice", section("<Property key=\"a\" value=\"1\"/>\n<Property key=\"a\" value=\"2\"/>"), "line 2: the property \"a\" is there twice, first on line 1"},
		{"no key", section(`<Property value="1"/>`), "no key"},
		{"two roots", section("") + section(""), "is no OVF environment"},
		{"deep", strings.Repeat(`<Environment xmlns="`+Namespace+`">`, 40), "deep"},
		{"large", vcenter + strings.Repeat(" ", Max), "larger than 256 KiB"},
		{"many", section(manyProperties()), "more than 1000"},
	} {
		got, err := Parse([]byte(c.data))
		var e *Error
		if got != nil || !errors.As(err, &e) || e.Line < 1 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func manyProperties() string {
	var b strings.Builder
	for i := range 1001 {
		b.WriteString(`<Property key="` + strings.Repeat("x", i%90+1) + string(rune('a'+i/90)) + `" value=""/>`)
	}
	return b.String()
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(vcenter))
	f.Add([]byte(`<Environment xmlns="` + Namespace + `"><PropertySection><Property key="a" value="b"/></PropertySection></Environment>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Parse(data)
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Line < 1 || e.Text == "" || got != nil) {
			t.Fatalf("%v", err)
		}
		seen := map[string]bool{}
		for _, p := range got {
			if p.Key == "" || seen[p.Key] || p.Line < 1 {
				t.Fatalf("%+v", p)
			}
			seen[p.Key] = true
		}
	})
}
