// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/appliance/slot/slottest"
)

const ovfHead = `<?xml version="1.0" encoding="UTF-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:oe="http://schemas.dmtf.org/ovf/environment/1">
<PropertySection>
`

// environment puts each KEY=VALUE on a line of its own, from line 4.
func environment(properties ...string) string {
	text := ovfHead
	for _, p := range properties {
		k, v, _ := strings.Cut(p, "=")
		v = strings.NewReplacer("&", "&amp;", `"`, "&quot;", "\n", "&#10;").Replace(v)
		text += fmt.Sprintf("<Property oe:key=%q oe:value=\"%s\"/>\n", k, v)
	}
	return text + "</PropertySection>\n</Environment>\n"
}

func TestOVF(t *testing.T) {
	b := newBox(t, "VMware, Inc.", "VMware20,1")
	whole := base64.StdEncoding.EncodeToString([]byte("hostname: whole\nsize: M\ndns: {search: [example.com]}\n"))
	b.guestinfo = map[string]string{"guestinfo.ovfEnv": environment(
		"holdfast.hostname=box1.example.com", "holdfast.address=10.0.0.5/24, 2001:db8::5/64", "holdfast.gateway=10.0.0.1", "holdfast.dns=10.0.0.2,10.0.0.3",
		"holdfast.ntp=", "holdfast.proxy=http://proxy.example.com:3128", "holdfast.ssh_keys="+sshLine+",\n"+sshLine+", of the office,"+sshLine, "holdfast.config="+whole, "vami.ip=x")}
	local, full := b.boot()
	b.want(full, "box1.example.com", "file absent, ovf applied, ovf absent, smbios absent", "")
	c := local.Config
	if c.Network.DHCP || len(c.Network.Addresses) != 2 || c.Network.Gateways[0] != "10.0.0.1" || c.DNS.Servers[1] != "10.0.0.3" || len(c.DNS.Search) > 0 ||
		c.Size != "M" || c.Proxy.HTTPS != "http://proxy.example.com:3128" || len(c.Admin.SSHKeys) != 3 || c.Admin.SSHKeys[1] != sshLine+", of the office" {
		t.Errorf("%v", c)
	}
	// The host, not vCenter, starts the machine: no environment is handed over.
	b.guestinfo = map[string]string{"guestinfo.holdfast.config": "size: L"}
	_, full = b.boot()
	b.want(full, "box1.example.com", "file absent, ovf kept/absent, ovf applied, smbios absent", "config-kept")
	if full.Config.Size != "L" || full.Conditions()[0].Severity != "info" {
		t.Error(full.Config.Size, full.Conditions())
	}
	// An empty environment is a wish.
	b.guestinfo = map[string]string{"guestinfo.ovfEnv": environment("holdfast.hostname=")}
	_, full = b.boot()
	b.want(full, "", "file absent, ovf applied, ovf absent, smbios absent", "")
}

func TestOVFRefused(t *testing.T) {
	for _, c := range []struct{ env, want string }{
		{environment("holdfast.hostname=box_1"), `OVF environment:4: holdfast.hostname: "box_1" is no host name`},
		{environment("a=b", "holdfast.address=10.0.0.5/24,10.0.0.6"), `OVF environment:5: holdfast.address: "10.0.0.6" lacks the length`},
		{environment("holdfast.gateway=10.0.0.1"), `OVF environment:4: holdfast.gateway: a gateway without an address`},
		{environment("holdfast.address=10.0.0.5/24", "holdfast.gateway=10.1.0.1"), `OVF environment:5: holdfast.gateway: 10.1.0.1 is in no subnet`},
		{environment("holdfast.dns=dns.example.com"), `holdfast.dns: "dns.example.com" is no address`},
		{environment("holdfast.ntp=a b c!"), `holdfast.ntp: "c!" is neither`},
		{environment("holdfast.proxy=proxy:3128"), `holdfast.proxy: the URL begins neither`},
		{environment("holdfast.ssh_keys=no key"), `holdfast.ssh_keys: "no key" is no ssh public key`},
		{environment("holdfast.hostnam=x"), `OVF environment:4: holdfast.hostnam: the property is not known; known here: config, hostname, address, gateway, dns, ntp, proxy, ssh_keys`},
		{environment("holdfast.config=bogus: 1"), `OVF property holdfast.config:1: bogus: the key is not known`},
		{environment("holdfast.config=#cloud-config\nx: 1"), `OVF property holdfast.config:1: this is cloud-config`},
		{environment("holdfast.hostname=a", "holdfast.hostname=b"), `OVF environment:5: the property "holdfast.hostname" is there twice`},
		{"<!DOCTYPE x>" + environment(), "a document type"},
		{"hello", "there is no Environment"},
	} {
		layers, problems := ovfLayers([]byte(c.env))
		text := fmt.Sprint(problems)
		if layers != nil || !strings.Contains(text, c.want) {
			t.Errorf("%s\nwant %s", text, c.want)
		}
		if len(problems) != 1 {
			t.Errorf("%d problems: %s", len(problems), text)
		}
	}
}

func TestISO(t *testing.T) {
	b := newBox(t, "innotek GmbH", "VirtualBox")
	b.drive(nil)
	_, full := b.boot()
	b.want(full, "", "file absent, ovf absent, smbios absent", "")
	b.drive(map[string]string{"OVF-ENV.XML": environment("holdfast.hostname=box1")})
	b.ran = nil
	local, _ := b.boot()
	b.want(local, "box1", "file absent, ovf applied, smbios absent", "")
	if want := "mount -t iso9660 -o ro,nodev,nosuid,noexec /dev/sr0 " + isoPlace + ", umount " + isoPlace; strings.Join(b.ran[:2], ", ") != want {
		t.Error(b.ran)
	}
	if _, err := os.Stat(filepath.Join(b.root, isoPlace)); err == nil {
		t.Error("the mount point is left behind")
	}
	// Another disc, then none: the settings stay.
	b.drive(map[string]string{"meta-data": "x"})
	_, full = b.boot()
	b.want(full, "box1", "file absent, ovf kept/absent, smbios absent", "config-kept")
	// On VMware an ISO serves where guestinfo has nothing.
	b = newBox(t, "VMware, Inc.", "VMware7,1")
	b.drive(map[string]string{"ovf-env.xml": environment("holdfast.hostname=box2")})
	_, full = b.boot()
	b.want(full, "box2", "file absent, ovf applied, ovf absent, smbios absent", "")
	if w := full.Sources[1].Where; w != "OVF environment (ISO in /dev/sr0)" {
		t.Error(w)
	}
}

// A link on the disc leads nowhere.
func TestISOLink(t *testing.T) {
	b := newBox(t, "QEMU", "x")
	b.drive(map[string]string{})
	place := filepath.Join(b.root, isoPlace)
	slottest.Put(t, b.root, "secret", environment("holdfast.hostname=evil"))
	if err := errors.Join(os.MkdirAll(place, 0o755), os.Symlink("../../../secret", filepath.Join(place, "ovf-env.xml"))); err != nil {
		t.Fatal(err)
	}
	_, full := b.boot()
	b.want(full, "", "file absent, ovf absent, smbios absent", "")
	if !strings.Contains(full.Sources[1].Text, "escapes") {
		t.Error(full.Sources[1])
	}
	// A pipe is no file, and is not waited for.
	name := filepath.Join(place, "ovf-env.xml")
	if err := errors.Join(os.Remove(name), unix.Mkfifo(name, 0o644)); err != nil {
		t.Fatal(err)
	}
	_, full = b.boot()
	if !strings.Contains(full.Sources[1].Text, "is no file") {
		t.Error(full.Sources[1])
	}
}

func FuzzOVF(f *testing.F) {
	f.Add([]byte(environment("holdfast.hostname=box1", "holdfast.address=10.0.0.5/24", "holdfast.ssh_keys="+sshLine)))
	f.Add([]byte(environment("holdfast.config=aG9zdG5hbWU6IGJveDEK", "holdfast.proxy=http://p:1")))
	f.Fuzz(func(t *testing.T, data []byte) {
		layers, problems := ovfLayers(data)
		if (layers == nil) != (len(problems) > 0) {
			t.Fatal(layers, problems)
		}
		if _, err := build(layers); err != nil {
			t.Fatal(err)
		}
	})
}
