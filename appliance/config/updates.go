// SPDX-License-Identifier: Apache-2.0

package config

import (
	"math"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/appliance/upgrade"
)

// Updates is where other releases come from and when they are installed.
type Updates struct {
	// Source is a folder or a bundle file, https:// or http:// and the address
	// of a folder, oci://HOST/REPOSITORY or usb:; "" is what the release says.
	Source string `yaml:"source" json:"source" mapstructure:"source"`
	// Channel that is followed; "" is what the release says.
	Channel string `yaml:"channel" json:"channel" mapstructure:"channel"`
	// Auto installs releases of the channel in Window without a request.
	Auto bool `yaml:"auto" json:"auto" mapstructure:"auto"`
	// Window of maintenance as upgrade.ParseWindow reads it, in UTC; "" is at
	// any time.
	Window string `yaml:"window" json:"window" mapstructure:"window"`
	// Bandwidth of a fetch at most; "" is no limit.
	Bandwidth Rate `yaml:"bandwidth" json:"bandwidth" mapstructure:"bandwidth"`
}

// Rate is bytes per second as people write it, "10 MB/s".
type Rate string

// Bytes per second, 0 for no limit.
func (r Rate) Bytes() int64 {
	n, _ := parseRate(string(r))
	return n
}

// minRate is the least limit in bytes per second: with less an upgrade would
// take days.
const minRate = 16 << 10

var rateForm = regexp.MustCompile(`^([0-9]{1,6}(?:\.[0-9]{1,3})?) ?(k|K|M|G)?B/s$`)

func parseRate(v string) (int64, bool) {
	m := rateForm.FindStringSubmatch(v)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, false
	}
	n *= map[string]float64{"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}[m[2]]
	return int64(math.Round(n)), true
}

func bandwidth(v string) (clean, text, mend string) {
	n, ok := parseRate(v)
	if !ok {
		return "", quote(v) + " is no rate", "write bytes per second, such as 10 MB/s or 500 kB/s"
	}
	if n < minRate {
		return "", quote(v) + " is too slow for an upgrade", "use 16384 B/s or more, or leave it out"
	}
	return v, "", ""
}

var channelForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// CheckChannel says why v is no name of a channel, "" where it is one.
func CheckChannel(v string) string {
	_, text, mend := channel(v)
	if text == "" {
		return ""
	}
	return text + "; " + mend
}

func channel(v string) (clean, text, mend string) {
	if !channelForm.MatchString(v) {
		return "", quote(v) + " is no channel", "use the name the vendor gave it, such as stable; small letters, digits, dots, hyphens and underscores"
	}
	return v, "", ""
}

func updateSource(v string) (clean, text, mend string) {
	mend = "write https://HOST/FOLDER, oci://HOST/REPOSITORY, usb:, or the path of a folder or bundle on the box"
	scheme, rest, isURL := strings.Cut(v, "://")
	switch {
	case v == "usb:", strings.HasPrefix(v, "/") && len(v) < 4096 && !strings.ContainsAny(v, "\x00\n"):
		return v, "", ""
	case !isURL || rest == "":
		return "", quote(v) + " is no source of releases", mend
	}
	switch scheme {
	case "https", "http", "oci", "oci+http":
	default:
		return "", quote(v) + " has the unknown scheme " + quote(scheme), mend
	}
	u, err := url.Parse(v)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return "", quote(v) + " is no address", mend
	}
	return v, "", ""
}

func window(v string) (clean, text, mend string) {
	if _, err := upgrade.ParseWindow(v); err != nil {
		return "", quote(v) + " is no maintenance window", "write days and times, such as Sun 02:00-04:00, Mon-Fri 01:00-02:00 or daily 02:00-04:00; in UTC"
	}
	return v, "", ""
}

// updates judges the keys together.
func updates(p *parser, m *mapped) {
	if auto, _ := m.values["auto"].(bool); auto && m.text("window") == "" {
		p.bad(m.line("auto"), m.path("auto"), "without a window the box would interrupt its services at any time",
			"add `window`, such as Sun 02:00-04:00; daily 00:00-24:00 where any time will do")
	}
}
