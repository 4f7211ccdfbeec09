// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/config"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

var cards = []Card{
	{Name: "ens192", MAC: "00:50:56:00:00:01", Device: "/sys/devices/pci0000:00/0000:00:16.0/0000:0b:00.0"},
	{Name: "ens224", MAC: "00:50:56:00:00:02", Device: "/sys/devices/pci0000:00/0000:00:17.0/0000:13:00.0"},
}

const pair = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"

// TestPlan holds each file against testdata/NAME.golden.
func TestPlan(t *testing.T) {
	static := func(n config.Network) config.Effective { return config.Effective{Config: config.Config{Network: n}} }
	dhcp := func(c config.Config) config.Effective { c.Network.DHCP = true; return config.Effective{Config: c} }
	named := dhcp(config.Config{})
	named.Instance.Name = "instance-7"
	for name, c := range map[string]struct {
		e     config.Effective
		cards []Card
	}{
		"nothing": {dhcp(config.Config{}), cards},
		"cloud":   {named, cards},
		"dhcp-card": {dhcp(config.Config{Network: config.Network{Interface: "ens224"}, DNS: config.DNS{Servers: []string{"10.0.0.2"}}, NTP: []string{"10.0.0.3"}}),
			cards},
		"static4":        {static(config.Network{Interface: "ens192", Addresses: []string{"10.0.0.5/24"}, Gateways: []string{"10.0.0.1"}}), cards},
		"static4-mac":    {static(config.Network{Interface: "00:50:56:00:00:02", Addresses: []string{"10.0.0.5/24"}}), cards},
		"static4-first":  {static(config.Network{Addresses: []string{"10.0.0.5/24"}, Gateways: []string{"10.0.0.1"}}), cards},
		"static4-nocard": {static(config.Network{Addresses: []string{"10.0.0.5/24"}}), nil},
		"static6": {static(config.Network{Interface: "ens192", Addresses: []string{"2001:db8::5/64", "10.0.0.5/24"}, Gateways: []string{"fe80::1", "10.0.0.1"}}),
			cards},
		"static-and-dhcp": {static(config.Network{Interface: "ens192", DHCP: true, Addresses: []string{"10.0.0.5/24"}}), cards},
		"servers": {dhcp(config.Config{Hostname: "box1.example.com", DNS: config.DNS{Servers: []string{"10.0.0.2", "2001:db8::2"}, Search: []string{"example.com", "example.org"}},
			NTP: []string{"time.example.com", "10.0.0.3"}}), cards},
		"search-alone": {dhcp(config.Config{DNS: config.DNS{Search: []string{"example.com"}}}), cards},
		"access": {dhcp(config.Config{Admin: config.Admin{SSHKeys: []string{"ssh-ed25519 AAAA one@example.com", "ssh-rsa BBBB two"}},
			TLS: config.TLS{Certificate: pair, Key: "KEY"}, Proxy: config.Proxy{HTTPS: "http://me:pass@10.0.0.9:3128"}}), cards},
		"half-a-pair": {dhcp(config.Config{TLS: config.TLS{Certificate: pair}}), cards},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := NewPlan(c.e, c.cards)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(p.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if p.String() != string(want) {
				t.Errorf("got\n%s\nwant\n%s", p, want)
			}
			if text := p.String(); strings.Contains(text, "pass") || strings.Contains(text, "KEY") {
				t.Errorf("the plan prints a secret:\n%s", text)
			}
		})
	}
}

// TestProxyFile: what is in it is not printed, so it has no golden.
func TestProxyFile(t *testing.T) {
	got := string(proxyFile(config.Proxy{HTTP: "http://me:p%20\"$x@h:1", NoProxy: []string{".example.com", "10.0.0.0/8"}}))
	want := `HTTP_PROXY="http://me:p%20\"\$x@h:1"
http_proxy="http://me:p%20\"\$x@h:1"
NO_PROXY="localhost,127.0.0.1,::1,169.254.169.254,metadata.google.internal,.example.com,10.0.0.0/8"
no_proxy="localhost,127.0.0.1,::1,169.254.169.254,metadata.google.internal,.example.com,10.0.0.0/8"
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestPlanRefuses values that would be read as more than one.
func TestPlanRefuses(t *testing.T) {
	for want, c := range map[string]config.Config{
		"hostname":          {Hostname: "a\nb"},
		"network.interface": {Network: config.Network{Interface: "ens1 ens2"}},
		"network.addresses": {Network: config.Network{Addresses: []string{"10.0.0.5/24\n[Route]"}}},
		"dns.search":        {DNS: config.DNS{Search: []string{"a b"}}},
		"ntp":               {NTP: []string{"a\rb"}},
		"proxy.http":        {Proxy: config.Proxy{HTTP: "http://x\nLD_PRELOAD=/x"}},
		"admin.ssh_keys":    {Admin: config.Admin{SSHKeys: []string{"ssh-ed25519 AAAA\nssh-ed25519 BBBB"}}},
	} {
		if _, err := NewPlan(config.Effective{Config: c}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// FuzzNewPlan: a value stays within its line, whatever it is.
func FuzzNewPlan(f *testing.F) {
	f.Add("box1", "ens192", "10.0.0.5/24", "http://h:1", "ssh-ed25519 AAAA a b")
	f.Add("x\n", "\x00", "\u2028", `"`, "")
	f.Fuzz(func(t *testing.T, host, card, address, proxy, key string) {
		e := config.Effective{Config: config.Config{
			Hostname: host, Network: config.Network{Interface: card, Addresses: []string{address}}, DNS: config.DNS{Servers: []string{address}},
			NTP: []string{address}, Proxy: config.Proxy{HTTP: proxy}, Admin: config.Admin{SSHKeys: []string{key}},
		}}
		p, err := NewPlan(e, nil)
		if err != nil {
			return
		}
		// The number of lines follows from the keys alone.
		e.Config = config.Config{Hostname: same(host), Network: config.Network{Interface: sameCard(card), Addresses: []string{"a"}}, DNS: config.DNS{Servers: []string{"a"}},
			NTP: []string{"a"}, Proxy: config.Proxy{HTTP: same(proxy)}, Admin: config.Admin{SSHKeys: []string{"a"}}}
		plain, err := NewPlan(e, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range p.Files {
			if a, b := bytes.Count(p.Files[i].Data, []byte("\n")), bytes.Count(plain.Files[i].Data, []byte("\n")); a != b {
				t.Errorf("%s has %d lines, want %d:\n%s", p.Files[i].Path, a, b, p.Files[i].Data)
			}
		}
	})
}

func same(v string) string {
	if v == "" {
		return ""
	}
	return "a"
}

func sameCard(v string) string {
	if strings.Contains(v, ":") {
		return "a:"
	}
	return same(v)
}
