// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// Metrics is who may read the box's metrics, and where.
type Metrics struct {
	// Listen is ADDRESS:PORT, ":PORT" for all addresses, or MetricsOff. The
	// default is MetricsListen.
	Listen string `yaml:"listen" json:"listen" mapstructure:"listen"`
	// Users may read them with a password; none is everybody.
	Users []MetricsUser `yaml:"users" json:"users" mapstructure:"users"`
	// Insecure opens the port to other machines also without TLS and users.
	Insecure bool `yaml:"insecure" json:"insecure" mapstructure:"insecure"`
	// ContainerNames adds the names that cAdvisor gives to the same values.
	ContainerNames bool `yaml:"container_names" json:"container_names" mapstructure:"container_names"`
}

// MetricsUser is one who may read metrics.
type MetricsUser struct {
	Name string `yaml:"name" json:"name" mapstructure:"name"`
	// PasswordHash is bcrypt's, as `htpasswd -nB NAME` prints it behind the
	// colon.
	PasswordHash Secret `yaml:"password_hash" json:"password_hash" mapstructure:"password_hash"`
}

const (
	// MetricsPort is outside of the range that Prometheus' list of exporters
	// gives out (9100 to 9999) and in use by nothing well known.
	MetricsPort = 4653
	// MetricsListen is where metrics are when nothing is configured: for
	// programs on the box alone.
	MetricsListen = "127.0.0.1:4653"
	// MetricsOff stands for no listener at all.
	MetricsOff = "off"
	// Costs of a bcrypt hash: below the first it is soon guessed, above the
	// second each request takes seconds.
	minBcrypt, maxBcrypt = 10, 14
	maxMetricsUsers      = 20
)

// Outside says whether other machines reach the listener.
func (m Metrics) Outside() bool {
	if m.Listen == MetricsOff {
		return false
	}
	a, err := netip.ParseAddrPort(m.Listen)
	return err != nil || !a.Addr().IsLoopback()
}

func metricsListen(v string) (clean, text, mend string) {
	mend = fmt.Sprintf("write :%d for all addresses, 10.0.0.5:%d for one, or off", MetricsPort, MetricsPort)
	if v == MetricsOff {
		return v, "", ""
	}
	if port, all := strings.CutPrefix(v, ":"); all {
		if n, err := strconv.ParseUint(port, 10, 16); err == nil && n > 0 && !strings.HasPrefix(port, "+") {
			return ":" + strconv.FormatUint(n, 10), "", ""
		}
		return "", quote(v) + " has no port from 1 to 65535", mend
	}
	a, err := netip.ParseAddrPort(v)
	if err != nil || a.Port() == 0 || a.Addr().Zone() != "" || a.Addr().IsMulticast() {
		return "", quote(v) + " is no address with a port", mend
	}
	return a.String(), "", ""
}

// userName has what HTTP's basic authentication takes, less what would need
// quotes somewhere.
var userName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

func metricsUser(v string) (clean, text, mend string) {
	if !userName.MatchString(v) {
		return "", quote(v) + " is no user name", "use letters, digits, dots, hyphens, underscores and @; at most 64"
	}
	return v, "", ""
}

// bcryptHash tells nothing of the value.
func bcryptHash(v string) (clean, text, mend string) {
	const make1 = "make one with `htpasswd -nBC 12 NAME` and take what stands behind the colon"
	cost, err := bcrypt.Cost([]byte(v))
	switch {
	case err != nil || len(v) != 60:
		return "", "this is no bcrypt hash (60 characters that begin with $2)", make1
	case cost < minBcrypt || cost > maxBcrypt:
		return "", fmt.Sprintf("the hash has cost %d", cost), fmt.Sprintf("use a cost of %d to %d: `htpasswd -nBC 12 NAME`", minBcrypt, maxBcrypt)
	}
	return v, "", ""
}

func metricsUserPair(p *parser, m *mapped) {
	for _, name := range []string{"name", "password_hash"} {
		if m.values[name] == nil {
			p.bad(m.node, m.key, "`"+name+"` is missing", `write both: {name: prometheus, password_hash: "$2y$12$..."}`)
			return
		}
	}
}

// metrics judges the keys together.
func metrics(p *parser, m *mapped) {
	users, _ := m.values["users"].([]any)
	if len(users) > maxMetricsUsers {
		p.bad(m.line("users"), m.path("users"), fmt.Sprintf("there are %d users", len(users)), fmt.Sprintf("at most %d are taken", maxMetricsUsers))
		return
	}
	first := map[string]int{}
	for i, u := range users {
		user, _ := u.(map[string]any)
		name, _ := user["name"].(string)
		if j, twice := first[name]; twice {
			p.bad(m.entry("users", i), fmt.Sprintf("%s.%d.name", m.path("users"), i), fmt.Sprintf("%s is there twice, first as entry %d", name, j), "keep one of them")
			return
		}
		first[name] = i
	}
	insecure, _ := m.values["insecure"].(bool)
	listen := m.text("listen")
	if listen != "" && (Metrics{Listen: listen}).Outside() && len(users) == 0 && !insecure {
		p.bad(m.line("listen"), m.path("listen"), "every machine that reaches "+listen+" could read the metrics",
			"add `users` and a certificate (`tls`), or set `insecure: true` in a network where that is meant")
	}
}
