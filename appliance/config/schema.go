// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/compose/budget"
)

// schema is the whole document.
var schema = mapping([]field{
	{"hostname", text(hostName)},
	{"network", mapping([]field{
		{"interface", text(interfaceName)}, {"dhcp", truth},
		{"addresses", list(entry(hostPrefix))}, {"gateways", list(entry(gateway))},
	}, network)},
	{"dns", mapping([]field{{"servers", list(entry(address))}, {"search", list(entry(domain))}}, nil)},
	{"ntp", list(entry(hostOrAddress))},
	{"proxy", mapping([]field{
		{"http", text(proxyURL)}, {"https", text(proxyURL)}, {"no_proxy", list(entry(noProxy))},
	}, nil)},
	{"admin", mapping([]field{{"ssh_keys", list(entry(sshKey))}}, nil)},
	{"tls", mapping([]field{{"certificate", text(pemCertificate)}, {"key", text(pemKey)}}, tlsPair)},
	{"size", text(size)},
	{"registry_mirrors", list(mapping([]field{
		{"registry", entry(registry)}, {"mirrors", list(entry(mirrorURL))},
	}, mirror))},
	{"metrics", mapping([]field{
		{"listen", text(metricsListen)},
		{"users", list(mapping([]field{{"name", entry(metricsUser)}, {"password_hash", entry(bcryptHash)}}, metricsUserPair))},
		{"insecure", truth}, {"container_names", truth},
	}, metrics)},
	{"data", mapping([]field{{"disk", text(dataDisk)}, {"adopt", truth}}, adoption)},
	{"updates", mapping([]field{
		{"source", text(updateSource)}, {"channel", text(channel)}, {"auto", truth},
		{"window", text(window)}, {"bandwidth", text(bandwidth)},
	}, updates)},
}, registriesOnce)

// network judges addresses and gateways together and settles what `dhcp` is
// where the document does not say.
func network(p *parser, m *mapped) {
	addresses := m.texts("addresses")
	dhcp, said := m.values["dhcp"].(bool)
	if !said {
		dhcp = len(addresses) == 0
		m.values["dhcp"] = dhcp
	}
	if !dhcp && len(addresses) == 0 {
		p.bad(m.line("dhcp"), m.path("dhcp"), "without DHCP the box has no address", "add `addresses: [10.0.0.5/24]`, or set `dhcp: true`")
		return
	}
	var nets []netip.Prefix
	for _, a := range addresses {
		nets = append(nets, netip.MustParsePrefix(a))
	}
	seen := map[bool]bool{}
	for i, g := range m.texts("gateways") {
		addr := netip.MustParseAddr(g)
		key := fmt.Sprintf("%s.%d", m.path("gateways"), i)
		version := map[bool]string{true: "IPv4", false: "IPv6"}[addr.Is4()]
		at := m.entry("gateways", i)
		switch {
		case len(addresses) == 0:
			p.bad(at, key, "a gateway without an address of the box's own", "add `addresses`, or leave the gateway to DHCP")
		case slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Addr() == addr }):
			p.bad(at, key, g+" is the box itself", "write the address of the router")
		case seen[addr.Is4()]:
			p.bad(at, key, "a second "+version+" gateway", "keep one for each IP version")
		case !reaches(nets, addr):
			p.bad(at, key, fmt.Sprintf("%s is in no subnet of %s", g, orList(addresses)), "correct the gateway, or the length after the / of the address")
		}
		seen[addr.Is4()] = true
	}
}

// reaches says whether a gateway is a neighbour.
func reaches(nets []netip.Prefix, gateway netip.Addr) bool {
	for _, n := range nets {
		// Every IPv6 interface has its link-local subnet too.
		if n.Contains(gateway) || gateway.Is6() && gateway.IsLinkLocalUnicast() && n.Addr().Is6() {
			return true
		}
	}
	return false
}

func mirror(p *parser, m *mapped) {
	for _, name := range []string{"registry", "mirrors"} {
		if m.values[name] == nil {
			p.bad(m.node, m.key, "`"+name+"` is missing", "write both: {registry: docker.io, mirrors: [https://mirror.example.com]}")
			return
		}
	}
	if len(m.texts("mirrors")) == 0 {
		p.bad(m.line("mirrors"), m.path("mirrors"), "the list is empty", "add a mirror or remove the entry")
	}
}

// registriesOnce refuses two entries for one registry.
func registriesOnce(p *parser, m *mapped) {
	all, _ := m.values["registry_mirrors"].([]any)
	first := map[string]int{}
	for i, v := range all {
		entry, _ := v.(map[string]any)
		name, _ := entry["registry"].(string)
		if j, twice := first[name]; twice {
			p.bad(m.entry("registry_mirrors", i), fmt.Sprintf("registry_mirrors.%d.registry", i), fmt.Sprintf("%s is there twice, first as entry %d", name, j), "put all its mirrors into one entry")
			continue
		}
		first[name] = i
	}
}

func adoption(p *parser, m *mapped) {
	if adopt, _ := m.values["adopt"].(bool); adopt && m.text("disk") == "none" {
		p.bad(m.line("adopt"), m.path("adopt"), "there is no disk to adopt with `disk: none`", "remove one of the two")
	}
}

func size(v string) (clean, text, mend string) {
	names := []string{"auto"}
	for _, s := range budget.Sizes() {
		names = append(names, s.Name)
	}
	for _, n := range names {
		if v == n {
			return v, "", ""
		}
	}
	return "", quote(v) + " is no size", "use " + orList(names)
}

func dataDisk(v string) (clean, text, mend string) {
	if v == "auto" || v == "none" || diskPath.MatchString(v) {
		return v, "", ""
	}
	mend = "use auto, none, or a path from `ls /dev/disk/by-id`"
	if strings.HasPrefix(v, "/dev/") {
		return "", quote(v) + " is no lasting name of a disk", mend
	}
	return "", quote(v) + " is no disk", mend
}
