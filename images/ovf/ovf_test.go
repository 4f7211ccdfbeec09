// SPDX-License-Identifier: Apache-2.0

package ovf

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func sample() Options {
	return Options{
		Name: "demo-1.0.0", Product: "Demo", Vendor: "Example <& Co>", Version: "1.0.0", ProductURL: "https://example.com/demo?a=1&b=2",
		Description: "A guest book.\nTwo lines.", EULA: "Be kind.", CPUs: 2, MemoryMiB: 4096, Capacity: 20 << 30,
		DiskFile: "demo-1.0.0-disk1.vmdk", DiskSize: 123456789, Populated: 240 << 20, ID: "demo",
		Networks: []string{"VM Network", "Büro"}, Properties: map[string]string{"ntp": "time.example.com", "config": "hostname: \"x\"\n"},
	}
}

func marshal(t testing.TB, o Options) []byte {
	t.Helper()
	b, err := Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGolden(t *testing.T) {
	got := marshal(t, sample())
	if *update {
		if err := os.WriteFile("testdata/demo.ovf.golden", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/demo.ovf.golden")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the envelope changed:\n%s", got)
	}
}

// What a file's length may change in the envelope is its digits.
func TestLengthDependsOnDigitsOnly(t *testing.T) {
	o := sample()
	a := marshal(t, o)
	o.DiskSize, o.Populated = 987654321, 999<<20
	o.DiskSize = o.DiskSize*10 + 1
	o.Populated++
	if b := marshal(t, o); len(b) != len(a)+2 {
		t.Errorf("%d bytes, were %d", len(b), len(a))
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		want   string
		change func(o *Options)
	}{
		{"Name: \"\"", func(o *Options) { o.Name = "" }},
		{"Name: \"a/b\"", func(o *Options) { o.Name = "a/b" }},
		{"Name: \" a\"", func(o *Options) { o.Name = " a" }},
		{"80 characters", func(o *Options) { o.Name = strings.Repeat("a", 81) }},
		{"CPUs: 0 is", func(o *Options) { o.CPUs = 0 }},
		{"a multiple of 4", func(o *Options) { o.MemoryMiB = 4097 }},
		{"1024 or more", func(o *Options) { o.MemoryMiB = 512 }},
		{"a disk of 0 bytes", func(o *Options) { o.Capacity = 0 }},
		{"plain file name", func(o *Options) { o.DiskFile = "a/b.vmdk" }},
		{"plain file name", func(o *Options) { o.DiskFile = "..vmdk" }},
		{"write it like vmx-17", func(o *Options) { o.Hardware = "17" }},
		{"needs vmx-13", func(o *Options) { o.Hardware = "vmx-10" }},
		{"GuestOS: ", func(o *Options) { o.GuestOS = "Debian 13" }},
		{"name of its own", func(o *Options) { o.Networks = []string{"a", "a"} }},
		{"name of its own", func(o *Options) { o.Networks = []string{""} }},
		{"vSphere allows 10", func(o *Options) { o.Networks = strings.Split("abcdefghijk", "") }},
		{"use one of hostname, address", func(o *Options) { o.Properties = map[string]string{"hostnam": "x"} }},
		{"Properties: hostname has 300 bytes", func(o *Options) { o.Properties = map[string]string{"hostname": strings.Repeat("a", 300)} }},
		{"EULA: the text holds a character", func(o *Options) { o.EULA = "caf\xe9" }},
		{"Description: the text holds a character", func(o *Options) { o.Description = "a\x00" }},
		{"EULA: 2097152 bytes", func(o *Options) { o.EULA = strings.Repeat("a", 2<<20) }},
		{"Properties: the text holds a character", func(o *Options) { o.Properties = map[string]string{"config": "a\x1b"} }},
	} {
		o := sample()
		c.change(&o)
		if _, err := Marshal(o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

// FuzzMarshal: whatever the texts are, it is refused or becomes a document with
// the same texts in it that follows the rules.
func FuzzMarshal(f *testing.F) {
	f.Add("demo", "Product", "a description", "ssh-ed25519 AAAA a,ssh-ed25519 BBBB b", "VM Network")
	f.Add("a&b <c>", "]]>", "\"'\r\n\t", "\u2028\ufffd", "x")
	f.Fuzz(func(t *testing.T, name, product, description, keys, network string) {
		o := sample()
		o.Name, o.Product, o.Description, o.Networks = name, product, description, []string{network}
		o.Properties = map[string]string{"ssh_keys": keys}
		b, err := Marshal(o)
		if err != nil {
			return
		}
		root := parse(t, b)
		for _, broken := range checkRules(root) {
			t.Error(broken)
		}
		if got := root.one("VirtualSystem").attr("id"); got != name {
			t.Errorf("name %q became %q", name, got)
		}
		for _, p := range root.one("VirtualSystem").one("ProductSection").all("Property") {
			if p.attr("key") == "ssh_keys" && p.attr("value") != keys {
				t.Errorf("keys %q became %q", keys, p.attr("value"))
			}
		}
	})
}

// node is an element of a parsed document, names without prefix.
type node struct {
	name  xml.Name
	attrs []xml.Attr
	text  string
	kids  []*node
}

func parse(t testing.TB, b []byte) *node {
	t.Helper()
	root := &node{}
	open := []*node{root}
	for d := xml.NewDecoder(bytes.NewReader(b)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the envelope is not well-formed: %v", err)
		}
		top := open[len(open)-1]
		switch v := token.(type) {
		case xml.StartElement:
			n := &node{name: v.Name, attrs: v.Attr}
			top.kids, open = append(top.kids, n), append(open, n)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			top.text += string(v)
		}
	}
	if len(root.kids) != 1 {
		t.Fatalf("%d root elements", len(root.kids))
	}
	return root.kids[0]
}

func (n *node) all(name string) (found []*node) {
	for _, k := range n.kids {
		if k.name.Local == name {
			found = append(found, k)
		}
	}
	return found
}

// one is the only child of a name; an empty node where there is none or many.
func (n *node) one(name string) *node {
	if found := n.all(name); len(found) == 1 {
		return found[0]
	}
	return &node{}
}

func (n *node) attr(name string) string {
	for _, a := range n.attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func (n *node) value(name string) string { return n.one(name).text }
