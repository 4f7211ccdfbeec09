// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

var (
	// label is one part of a host name (RFC 1123, section 2.1).
	label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	// linkName is an interface name Linux takes (dev_valid_name), without the
	// characters that stand for others in networkd's Name=.
	linkName = regexp.MustCompile(`^[A-Za-z0-9_.:@+-]{1,15}$`)
	// diskPath is a link that udev makes from what the disk says of itself.
	diskPath = regexp.MustCompile(`^/dev/disk/by-(id|path)/[A-Za-z0-9#+.:=@_-]{1,200}$`)
)

const (
	// maxHostname is Linux' HOST_NAME_MAX.
	maxHostname = 64
	// maxDomain is the longest name in DNS, without the last dot (RFC 1035).
	maxDomain = 253
)

func hostName(v string) (clean, text, mend string) {
	const mend1 = "use letters, digits and hyphens, with dots between the parts: box1.example.com"
	if _, err := netip.ParseAddr(v); err == nil {
		return "", quote(v) + " is an address, not a host name", mend1
	}
	if len(v) > maxHostname {
		return "", quote(v) + " is longer than 64 characters", "shorten it; Linux takes no more"
	}
	if !domainName(v) {
		return "", quote(v) + " is no host name", mend1
	}
	return strings.ToLower(v), "", ""
}

func domainName(v string) bool {
	if len(v) > maxDomain {
		return false
	}
	for part := range strings.SplitSeq(strings.ToLower(v), ".") {
		if !label.MatchString(part) {
			return false
		}
	}
	return true
}

func domain(v string) (clean, text, mend string) {
	if _, err := netip.ParseAddr(v); err == nil || !domainName(v) {
		return "", quote(v) + " is no domain", "write it like example.com"
	}
	return strings.ToLower(v), "", ""
}

func hostOrAddress(v string) (clean, text, mend string) {
	if a, ok := plainAddress(v); ok {
		return a.String(), "", ""
	}
	if looksNumeric(v) || !domainName(v) {
		return "", quote(v) + " is neither a host name nor an address", "write it like time.example.com or 10.0.0.1, without a port"
	}
	return strings.ToLower(v), "", ""
}

// looksNumeric is true for what is meant as an IPv4 address: the last part of
// a host name is never a number (RFC 1123).
func looksNumeric(v string) bool {
	_, err := strconv.Atoi(v[strings.LastIndexByte(v, '.')+1:])
	return err == nil
}

// plainAddress reads an address that names one machine.
func plainAddress(v string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(v)
	return a, err == nil && a.Zone() == "" && !a.Is4In6() && !a.IsMulticast() && !a.IsUnspecified() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func address(v string) (clean, text, mend string) {
	a, ok := plainAddress(v)
	if !ok {
		return "", quote(v) + " is no address of a machine", "write it like 10.0.0.1 or 2001:db8::1"
	}
	return a.String(), "", ""
}

func gateway(v string) (clean, text, mend string) {
	clean, text, mend = address(v)
	if text == "" && netip.MustParseAddr(clean).IsLoopback() {
		return "", quote(v) + " is a loopback address", "write the address of the router"
	}
	return clean, text, mend
}

// hostPrefix is an address of the box with the length of its subnet.
func hostPrefix(v string) (clean, text, mend string) {
	const mend1 = "write it like 10.0.0.5/24 or 2001:db8::5/64"
	p, err := netip.ParsePrefix(v)
	if err != nil {
		if _, err := netip.ParseAddr(v); err == nil {
			return "", quote(v) + " lacks the length of its subnet", mend1
		}
		return "", quote(v) + " is no address with the length of its subnet", mend1
	}
	a, ok := plainAddress(p.Addr().String())
	if !ok || a.IsLoopback() || p.Bits() == 0 {
		return "", quote(v) + " is no address a machine can have", mend1
	}
	if p.Bits() < a.BitLen()-1 {
		if p.Masked().Addr() == a && a.Is4() {
			return "", quote(v) + " is the subnet itself, not an address in it", mend1
		}
		if a.Is4() && broadcast(p) == a {
			return "", quote(v) + " is the broadcast address of its subnet", mend1
		}
	}
	return p.String(), "", ""
}

func broadcast(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(b)
}

func interfaceName(v string) (clean, text, mend string) {
	if mac, err := net.ParseMAC(v); err == nil && len(mac) == 6 {
		return mac.String(), "", ""
	}
	if !linkName.MatchString(v) || v == "." || v == ".." || v == "lo" || v == "all" || v == "default" {
		return "", quote(v) + " is no network interface", "write a name like ens192, or a MAC address like 52:54:00:12:34:56"
	}
	return v, "", ""
}

// prefix is a path below which a mirror has its repositories (OCI
// Distribution 1.1, <name>).
var prefix = regexp.MustCompile(`^(/[a-z0-9]+([._-]+[a-z0-9]+)*)*/?$`)

// plainURL reads an http or https URL with no query and no fragment. It shows
// no part of a wrong one: a password may stand in it.
func plainURL(v string) (*url.URL, string) {
	for _, c := range []byte(v) {
		// RFC 3986 knows no others; a quote or a line end could break out of
		// the unit files and settings the URL ends up in.
		if c <= ' ' || c > '~' || strings.IndexByte("\"<>\\^`{|}", c) >= 0 {
			return nil, "the URL holds a character that must be percent-encoded"
		}
	}
	u, err := url.Parse(v)
	switch {
	case err != nil:
		return nil, "this is no URL"
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, "the URL begins neither with http:// nor with https://"
	case u.Opaque != "" || u.Hostname() == "":
		return nil, "the URL names no host"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(v, "#"):
		return nil, "the URL has a query or a fragment"
	}
	if !hostPort(u.Hostname(), u.Port(), u.Host) {
		return nil, "the URL's host or port is none"
	}
	return u, ""
}

func hostPort(host, port, both string) bool {
	if strings.HasSuffix(both, ":") {
		return false
	}
	if n, err := strconv.Atoi(port); port != "" && (err != nil || n < 1 || n > 65535) {
		return false
	}
	if _, ok := plainAddress(host); ok {
		return true
	}
	return domainName(host) && !looksNumeric(host)
}

func proxyURL(v string) (clean, text, mend string) {
	u, text := plainURL(v)
	if text == "" && u.Path != "" && u.Path != "/" {
		text = "the URL has a path"
	}
	if text != "" {
		return "", text, "write it like http://proxy.example.com:3128, with a user and password as http://USER:PASSWORD@HOST:PORT"
	}
	u.Path = ""
	return u.String(), "", ""
}

func mirrorURL(v string) (clean, text, mend string) {
	const mend1 = "write it like https://mirror.example.com or https://mirror.example.com/docker-hub"
	u, text := plainURL(v)
	if text != "" {
		return "", text, mend1
	}
	if u.User != nil {
		return "", "the URL holds a user name", mend1
	}
	if !prefix.MatchString(u.Path) || u.RawPath != "" {
		return "", "the URL's path can't begin the name of a repository", mend1
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	return u.String(), "", ""
}

// registry is a host as it stands before the first / of an image name.
func registry(v string) (clean, text, mend string) {
	u, err := url.Parse("https://" + v)
	if err != nil || u.Host != v || !hostPort(u.Hostname(), u.Port(), u.Host) || v != "localhost" && !strings.ContainsAny(v, ".:") {
		return "", quote(v) + " is no registry", "write the host as image names have it: docker.io, registry.example.com:5000"
	}
	v = strings.ToLower(v)
	// Docker Hub has three names; images are called by the first.
	if v == "index.docker.io" || v == "registry-1.docker.io" {
		v = "docker.io"
	}
	return v, "", ""
}

// noProxy is one entry of NO_PROXY as Go's and curl's clients read it.
func noProxy(v string) (clean, text, mend string) {
	if v == "*" {
		return v, "", ""
	}
	if p, err := netip.ParsePrefix(v); err == nil && !p.Addr().Is4In6() {
		return p.Masked().String(), "", ""
	}
	if a, err := netip.ParseAddr(v); err == nil && a.Zone() == "" {
		return a.String(), "", ""
	}
	host, port := v, ""
	if i := strings.LastIndexByte(v, ':'); i >= 0 {
		host, port = v[:i], v[i+1:]
		if port == "" {
			port = "none"
		}
	}
	name := strings.TrimPrefix(strings.TrimPrefix(host, "*"), ".")
	if strings.HasPrefix(host, "*") && !strings.HasPrefix(host, "*.") || name == "" || !domainName(name) || !hostPort("a.example", port, "") {
		return "", quote(v) + " is no host, domain, address or subnet", "write it like localhost, .example.com or 10.0.0.0/8"
	}
	return strings.ToLower(v), "", ""
}
