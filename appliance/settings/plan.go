// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/appliance/config"
)

// Where the effects lie, below the root.
const (
	hostnamePath = "/run/holdfast/hostname"
	// networkPath is for the card the configuration names; otherPath adds to
	// what the sealed root says of all cards.
	networkPath  = "/run/systemd/network/10-holdfast.network"
	otherPath    = "/run/systemd/network/80-holdfast.network.d/10-config.conf"
	resolvedPath = "/run/systemd/resolved.conf.d/10-holdfast.conf"
	timePath     = "/run/systemd/timesyncd.conf.d/10-holdfast.conf"
	keysPath     = "/run/holdfast/ssh/authorized_keys"

	// ProxyEnv is an environment file (systemd.exec(5)) for whoever fetches
	// something over the network; absent without a proxy.
	ProxyEnv = "/run/holdfast/proxy.env"
	// TLSCertificate and TLSKey are the pair for the box's own pages, PEM;
	// both are there or none.
	TLSCertificate = "/run/holdfast/tls/tls.crt"
	TLSKey         = "/run/holdfast/tls/tls.key"
)

// The units that read them.
const (
	networkUnit  = "systemd-networkd.service"
	resolvedUnit = "systemd-resolved.service"
	timeUnit     = "systemd-timesyncd.service"
	sshUnit      = "holdfast-sshd.service"
)

// File is one file that shall be there, or not.
type File struct {
	Path string
	Mode fs.FileMode
	// Data is the content; nil means that the file shall not be there.
	Data []byte
	// Unit is told when the file changed, "" for nobody.
	Unit string
	// Says is for the console when it changed.
	Says string
}

// DirMode is the mode of the file's folder.
func (f File) DirMode() fs.FileMode {
	if f.Mode&0o077 == 0 && f.Path != ProxyEnv {
		return 0o700
	}
	return 0o755
}

// Plan is all that a configuration means for the box.
type Plan struct {
	// Hostname to set, "" to leave the one there is.
	Hostname string
	Files    []File
}

// String is the plan as tests and people read it; files that are for root
// alone are not shown.
func (p Plan) String() string {
	var b strings.Builder
	if p.Hostname != "" {
		fmt.Fprintf(&b, "hostname %s\n", p.Hostname)
	}
	for _, f := range p.Files {
		switch {
		case f.Data == nil:
			fmt.Fprintf(&b, "-- %s: none\n", f.Path)
		case f.Mode&0o077 == 0 && f.Path != keysPath:
			fmt.Fprintf(&b, "-- %s %04o: hidden\n", f.Path, f.Mode)
		default:
			fmt.Fprintf(&b, "-- %s %04o\n%s", f.Path, f.Mode, f.Data)
		}
	}
	return b.String()
}

// NewPlan says what a configuration means on a box with these network cards.
// It is pure. Every file of the box's is in the plan, also those that shall
// not be there. The error is a value that can't be written down as it is.
func NewPlan(e config.Effective, cards []Card) (Plan, error) {
	c := e.Config
	n := pickCard(c.Network, cards)
	p := Plan{Hostname: c.Hostname}
	if p.Hostname == "" && isHostname(e.Instance.Name) {
		p.Hostname = e.Instance.Name // what the cloud calls the machine
	}
	name := File{Path: hostnamePath, Mode: 0o644}
	if p.Hostname != "" {
		name.Data, name.Says = []byte(p.Hostname+"\n"), "host name "+p.Hostname
	}
	p.Files = append(p.Files, name,
		File{Path: networkPath, Mode: 0o644, Unit: networkUnit, Data: cardFile(n, c), Says: networkSays(n)},
		File{Path: otherPath, Mode: 0o644, Unit: networkUnit, Data: otherFile(c)},
		File{Path: resolvedPath, Mode: 0o644, Unit: resolvedUnit, Data: resolvedFile(c.DNS), Says: listSays("name servers", c.DNS.Servers)},
		File{Path: timePath, Mode: 0o644, Unit: timeUnit, Data: timeFile(c.NTP), Says: listSays("time servers", c.NTP)},
		File{Path: ProxyEnv, Mode: 0o600, Data: proxyFile(c.Proxy)},
	)
	crt, key := File{Path: TLSCertificate, Mode: 0o600}, File{Path: TLSKey, Mode: 0o600}
	if c.TLS.Certificate != "" && c.TLS.Key != "" {
		crt.Data, key.Data = []byte(c.TLS.Certificate), []byte(c.TLS.Key)
	}
	keys := File{Path: keysPath, Mode: 0o600, Unit: sshUnit}
	if len(c.Admin.SSHKeys) > 0 {
		keys.Data = []byte(strings.Join(c.Admin.SSHKeys, "\n") + "\n")
		keys.Says = fmt.Sprintf("admin access by ssh is on, %d keys", len(c.Admin.SSHKeys))
		if len(c.Admin.SSHKeys) == 1 {
			keys.Says = "admin access by ssh is on, 1 key"
		}
	} else {
		keys.Says = "admin access by ssh is off"
	}
	p.Files = append(p.Files, crt, key, keys)
	return p, oneLine(c)
}

// isHostname is for names that no admin has given: RFC 1123, and at most the
// 64 characters that Linux takes.
func isHostname(name string) bool { return len(name) <= 64 && hostname.MatchString(name) }

var hostname = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*$`)

func listSays(what string, list []string) string {
	if len(list) == 0 {
		return ""
	}
	return what + " " + strings.Join(list, ", ")
}

// oneLine refuses values with a line end or another control character: they
// would be read as more than one setting. The schema refuses them too; a file
// between the two may have been changed by hand.
func oneLine(c config.Config) error {
	values := map[string][]string{
		"hostname":          {c.Hostname},
		"network.interface": {c.Network.Interface}, "network.addresses": c.Network.Addresses, "network.gateways": c.Network.Gateways,
		"dns.servers": c.DNS.Servers, "dns.search": c.DNS.Search, "ntp": c.NTP,
		"proxy.http": {c.Proxy.HTTP}, "proxy.https": {c.Proxy.HTTPS}, "proxy.no_proxy": c.Proxy.NoProxy,
		"admin.ssh_keys": c.Admin.SSHKeys,
	}
	for key, list := range values {
		control := func(r rune) bool { return r < ' ' || r == 0x7f }
		if slices.ContainsFunc(list, func(v string) bool { return strings.ContainsFunc(v, control) }) {
			return fmt.Errorf("%s holds a line end or a control character; give it as one line", key)
		}
		// Lists are written with blanks between.
		blank := key != "admin.ssh_keys" && slices.ContainsFunc(list, func(v string) bool { return strings.Contains(v, " ") })
		if blank {
			return fmt.Errorf("%s holds a blank; give each value apart", key)
		}
	}
	return nil
}
