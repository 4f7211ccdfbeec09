// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"fmt"
	"strings"

	"github.com/holdfast/holdfast/appliance/config"
)

// needsCards is true where the network depends on which cards there are.
func needsCards(n config.Network) bool { return n.Interface == "" && len(n.Addresses) > 0 }

// pickCard gives fixed addresses a card where the configuration names none:
// the first, in the order of the bus. On all of them the same address would
// work on none. Without cards it stays open, for the one that comes.
func pickCard(n config.Network, cards []Card) config.Network {
	if needsCards(n) && len(cards) > 0 {
		n.Interface = cards[0].MAC
		if n.Interface == "" {
			n.Interface = cards[0].Name
		}
	}
	return n
}

// own says whether a card needs more than what the sealed root says of all.
func own(n config.Network) bool { return n.Interface != "" || len(n.Addresses) > 0 || !n.DHCP }

// cardFile is a systemd.network(5) file for one card, nil where what the
// sealed root says of all cards will do.
func cardFile(n config.Network, c config.Config) []byte {
	if !own(n) {
		return nil
	}
	var b strings.Builder
	b.WriteString("[Match]\n")
	switch {
	case n.Interface == "":
		b.WriteString("Type=ether\nKind=!*\n")
	case strings.Contains(n.Interface, ":"):
		// A bridge may have the address of its card.
		fmt.Fprintf(&b, "MACAddress=%s\nType=ether\nKind=!*\n", n.Interface)
	default:
		fmt.Fprintf(&b, "Name=%s\n", n.Interface)
	}
	on := "no"
	if n.DHCP {
		on = "yes"
	}
	// Router advertisements are IPv6's DHCP: who sets addresses by hand sets
	// all of them.
	fmt.Fprintf(&b, "\n[Network]\nDHCP=%s\nIPv6AcceptRA=%s\nLinkLocalAddressing=ipv6\n", on, on)
	for _, a := range n.Addresses {
		fmt.Fprintf(&b, "Address=%s\n", a)
	}
	for _, g := range n.Gateways {
		fmt.Fprintf(&b, "Gateway=%s\n", g)
	}
	if n.DHCP {
		b.WriteString("\n" + dhcp(c, "ClientIdentifier=mac\nUseHostname=no\n", "UseHostname=no\n", "UseDomains=yes\n"))
	}
	return []byte(b.String())
}

// otherFile adds to what the sealed root says of all cards.
func otherFile(c config.Config) []byte {
	if len(c.DNS.Servers)+len(c.DNS.Search)+len(c.NTP) == 0 {
		return nil
	}
	return []byte(dhcp(c, "", "", ""))
}

// dhcp are the sections of a .network file on DHCP and router advertisements,
// after what is given for IPv4 and IPv6; domains is for both. What DHCP offers
// does not mix with servers that were named: a resolver that asks both gets
// two answers for an internal name.
func dhcp(c config.Config, v4, v6, domains string) string {
	dns, ntp := "", ""
	if len(c.DNS.Servers) > 0 {
		dns = "UseDNS=no\n"
	}
	if len(c.DNS.Search) > 0 {
		domains = "UseDomains=no\n"
	}
	dns += domains
	if len(c.NTP) > 0 {
		ntp = "UseNTP=no\n"
	}
	text := "[DHCPv4]\n" + v4 + dns + ntp + "\n[DHCPv6]\n" + v6 + dns + ntp
	if dns != "" {
		text += "\n[IPv6AcceptRA]\n" + dns
	}
	return text
}

func networkSays(n config.Network) string {
	if !own(n) {
		return ""
	}
	text := "network: "
	if n.Interface != "" {
		text += n.Interface + " "
	}
	if len(n.Addresses) > 0 {
		text += strings.Join(n.Addresses, ", ")
	} else if n.DHCP {
		text += "by DHCP"
	} else {
		text += "without an address"
	}
	if len(n.Gateways) > 0 {
		text += ", gateway " + strings.Join(n.Gateways, ", ")
	}
	return text
}

// resolvedFile is for resolved.conf(5).
func resolvedFile(d config.DNS) []byte {
	var b strings.Builder
	if len(d.Servers) > 0 {
		fmt.Fprintf(&b, "DNS=%s\n", strings.Join(d.Servers, " "))
	}
	if len(d.Search) > 0 {
		fmt.Fprintf(&b, "Domains=%s\n", strings.Join(d.Search, " "))
	}
	if b.Len() == 0 {
		return nil
	}
	return []byte("[Resolve]\n" + b.String())
}

// timeFile is for timesyncd.conf(5).
func timeFile(servers []string) []byte {
	if len(servers) == 0 {
		return nil
	}
	return []byte("[Time]\nNTP=" + strings.Join(servers, " ") + "\n")
}

// proxyFile is an environment file. Both spellings: programs look for either.
// The metadata services answer on the link only, never through a proxy.
func proxyFile(p config.Proxy) []byte {
	if p.HTTP == "" && p.HTTPS == "" {
		return nil
	}
	var b strings.Builder
	set := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s=%s\n%s=%s\n", strings.ToUpper(name), quoteEnv(value), name, quoteEnv(value))
		}
	}
	set("http_proxy", p.HTTP)
	set("https_proxy", p.HTTPS)
	set("no_proxy", strings.Join(append([]string{"localhost", "127.0.0.1", "::1", "169.254.169.254", "metadata.google.internal"}, p.NoProxy...), ","))
	return []byte(b.String())
}

// quoteEnv writes a value so that systemd.exec(5) reads it back: in double
// quotes, where backslash takes away what a character means.
func quoteEnv(v string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`).Replace(v) + `"`
}
