// SPDX-License-Identifier: Apache-2.0

// Package config is the configuration of a box: one schema, written as YAML,
// from whichever source the place has where the box landed. Its inputs are a
// file on the EFI system partition, an SMBIOS credential, the OVF environment
// and the metadata service of EC2 or GCE; its output is one Effective with
// the source of each key.
//
// It refuses a document as a whole when anything in it is unknown or wrong,
// and then goes on with the last good document of that source, or with the
// defaults: a box always comes up. It changes nothing on the box beyond its
// own two places, /run/holdfast/config.json and /var/lib/holdfast/config.
package config

import (
	"net/url"
	"slices"
	"strings"
)

// Config is what an admin may set. Every field has a default (Default), so a
// document names only what is to be different.
type Config struct {
	// Hostname is a host name of RFC 1123, at most 64 characters, which is
	// what Linux takes; "" leaves it to the cloud's name of the instance.
	Hostname string  `yaml:"hostname" json:"hostname" mapstructure:"hostname"`
	Network  Network `yaml:"network" json:"network" mapstructure:"network"`
	DNS      DNS     `yaml:"dns" json:"dns" mapstructure:"dns"`
	// NTP are host names or addresses of time servers, in place of those of
	// DHCP and the built-in ones.
	NTP             []string `yaml:"ntp" json:"ntp" mapstructure:"ntp"`
	Proxy           Proxy    `yaml:"proxy" json:"proxy" mapstructure:"proxy"`
	Admin           Admin    `yaml:"admin" json:"admin" mapstructure:"admin"`
	TLS             TLS      `yaml:"tls" json:"tls" mapstructure:"tls"`
	Size            string   `yaml:"size" json:"size" mapstructure:"size"`
	RegistryMirrors []Mirror `yaml:"registry_mirrors" json:"registry_mirrors" mapstructure:"registry_mirrors"`
	Metrics         Metrics  `yaml:"metrics" json:"metrics" mapstructure:"metrics"`
	Data            Data     `yaml:"data" json:"data" mapstructure:"data"`
	Updates         Updates  `yaml:"updates" json:"updates" mapstructure:"updates"`
}

// Network is how one interface gets its addresses; all others use DHCP.
type Network struct {
	// Interface is a kernel name ("ens192") or a MAC address in lower case
	// ("52:54:00:12:34:56"); "" means the first for addresses, else every one.
	Interface string `yaml:"interface" json:"interface" mapstructure:"interface"`
	// DHCP is for IPv4 and IPv6 alike. It is true unless Addresses are given.
	DHCP bool `yaml:"dhcp" json:"dhcp" mapstructure:"dhcp"`
	// Addresses are host addresses in CIDR form, "10.0.0.5/24".
	Addresses []string `yaml:"addresses" json:"addresses" mapstructure:"addresses"`
	// Gateways are at most one per IP version, each inside the subnet of one
	// of Addresses, or an IPv6 link-local address.
	Gateways []string `yaml:"gateways" json:"gateways" mapstructure:"gateways"`
}

// DNS are name servers (addresses) and search domains. Each replaces what DHCP
// says.
type DNS struct {
	Servers []string `yaml:"servers" json:"servers" mapstructure:"servers"`
	Search  []string `yaml:"search" json:"search" mapstructure:"search"`
}

// Proxy are URLs of a web proxy, which may hold a user name and a password.
type Proxy struct {
	HTTP  string `yaml:"http" json:"http" mapstructure:"http"`
	HTTPS string `yaml:"https" json:"https" mapstructure:"https"`
	// NoProxy are host names, .domains, addresses, CIDRs, or "*".
	NoProxy []string `yaml:"no_proxy" json:"no_proxy" mapstructure:"no_proxy"`
}

// Admin is who may log in.
type Admin struct {
	// SSHKeys are lines of an authorized_keys file without options; ssh is
	// off without any.
	SSHKeys []string `yaml:"ssh_keys" json:"ssh_keys" mapstructure:"ssh_keys"`
}

// TLS is the certificate of the box's own web pages, both PEM: the leaf first,
// then its chain. Both or neither are set.
type TLS struct {
	Certificate string `yaml:"certificate" json:"certificate" mapstructure:"certificate"`
	Key         Secret `yaml:"key" json:"key" mapstructure:"key"`
}

// Mirror says where else images of a registry come from.
type Mirror struct {
	// Registry is HOST or HOST:PORT as image names have it, "docker.io".
	Registry string `yaml:"registry" json:"registry" mapstructure:"registry"`
	// Mirrors are URLs, https://HOST[:PORT][/PREFIX], tried in order.
	Mirrors []string `yaml:"mirrors" json:"mirrors" mapstructure:"mirrors"`
}

// Data is where the volumes live.
type Data struct {
	// Disk is "auto" (an empty second disk, else the system disk), "none" (the
	// system disk) or a path below /dev/disk/by-id or /dev/disk/by-path.
	Disk string `yaml:"disk" json:"disk" mapstructure:"disk"`
	// Adopt takes a data disk that another box has used last.
	Adopt bool `yaml:"adopt" json:"adopt" mapstructure:"adopt"`
}

// Secret is text that is never printed. As JSON it is plain, because the box
// hands its configuration on in a file; use Redacted for what people see.
type Secret string

// Hidden stands for a secret in what is shown.
const Hidden = "(hidden)"

// String implements fmt.Stringer.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return Hidden
}

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// Default is the configuration of a box that was told nothing.
func Default() Config {
	c, err := build(nil)
	if err != nil {
		panic(err) // the defaults are compiled in
	}
	return c
}

// Redacted is c without its secrets: the TLS key, the passwords in proxy URLs
// and the hashes of passwords.
func (c Config) Redacted() Config {
	c.Metrics.Users = slices.Clone(c.Metrics.Users)
	for i := range c.Metrics.Users {
		c.Metrics.Users[i].PasswordHash = Hidden
	}
	if c.TLS.Key != "" {
		c.TLS.Key = Hidden
	}
	if c.Updates.Source != "" {
		c.Updates.Source = withoutPassword(c.Updates.Source)
	}
	c.Proxy.HTTP, c.Proxy.HTTPS = withoutPassword(c.Proxy.HTTP), withoutPassword(c.Proxy.HTTPS)
	return c
}

func withoutPassword(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return Hidden
	}
	return u.Redacted()
}

// String is the configuration for people, one key a line, without secrets.
func (c Config) String() string {
	var b strings.Builder
	for _, r := range c.Rows() {
		b.WriteString(r.Key + ": " + r.Value + "\n")
	}
	return b.String()
}

// Row is one key of a configuration as people see it.
type Row struct{ Key, Value string }

// Rows lists the keys in the order of the schema, without secrets; "-" stands
// for what is not set.
func (c Config) Rows() []Row {
	c = c.Redacted()
	yes := map[bool]string{false: "false", true: "true"}
	rows := []Row{
		{"hostname", c.Hostname},
		{"network.interface", c.Network.Interface}, {"network.dhcp", yes[c.Network.DHCP]},
		{"network.addresses", commas(c.Network.Addresses)}, {"network.gateways", commas(c.Network.Gateways)},
		{"dns.servers", commas(c.DNS.Servers)}, {"dns.search", commas(c.DNS.Search)},
		{"ntp", commas(c.NTP)},
		{"proxy.http", c.Proxy.HTTP}, {"proxy.https", c.Proxy.HTTPS}, {"proxy.no_proxy", commas(c.Proxy.NoProxy)},
	}
	add := func(key, value string) { rows = append(rows, Row{key, value}) }
	if len(c.Admin.SSHKeys) == 0 {
		add("admin.ssh_keys", "")
	}
	for _, k := range c.Admin.SSHKeys {
		add("admin.ssh_keys", describeSSHKey(k))
	}
	add("tls.certificate", describeCertificate(c.TLS.Certificate))
	add("tls.key", string(c.TLS.Key))
	add("size", c.Size)
	if len(c.RegistryMirrors) == 0 {
		add("registry_mirrors", "")
	}
	for _, m := range c.RegistryMirrors {
		add("registry_mirrors", m.Registry+" from "+commas(m.Mirrors))
	}
	add("metrics.listen", c.Metrics.Listen)
	var users []string
	for _, u := range c.Metrics.Users {
		users = append(users, u.Name)
	}
	add("metrics.users", commas(users))
	add("metrics.insecure", yes[c.Metrics.Insecure])
	add("metrics.container_names", yes[c.Metrics.ContainerNames])
	add("data.disk", c.Data.Disk)
	add("data.adopt", yes[c.Data.Adopt])
	add("updates.source", c.Updates.Source)
	add("updates.channel", c.Updates.Channel)
	add("updates.auto", yes[c.Updates.Auto])
	add("updates.window", c.Updates.Window)
	add("updates.bandwidth", string(c.Updates.Bandwidth))
	for i := range rows {
		if rows[i].Value == "" {
			rows[i].Value = "-"
		}
	}
	return rows
}

func commas(list []string) string { return strings.Join(list, ", ") }

// Keys are the top-level keys of a document, in the order of the schema.
func Keys() []string { return slices.Clone(topKeys) }

var topKeys = []string{"hostname", "network", "dns", "ntp", "proxy", "admin", "tls", "size", "registry_mirrors", "metrics", "data", "updates"}
