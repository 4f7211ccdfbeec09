// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast/holdfast/appliance/config"
	"github.com/holdfast/holdfast/appliance/exporter"
	"github.com/holdfast/holdfast/appliance/settings"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/images/durable"
)

// Metrics says where metrics are served.
type Metrics struct {
	// Listen is an address with a port; "" serves none.
	Listen string
	// WebConfig is a file in exporter-toolkit's format, "" for plain HTTP.
	WebConfig string
	// ContainerNames adds cAdvisor's names.
	ContainerNames bool
}

// serveMetrics serves metrics until ctx ends.
func (d *Daemon) serveMetrics(ctx context.Context) {
	m := d.c.Metrics
	if d.c.Place != nil && m.Listen == "" {
		var err error
		if m, err = d.boxMetrics(); err != nil {
			d.setOther("metrics", []status.Condition{{Code: exporter.Off, Severity: "warning", Text: "metrics: " + err.Error(),
				Remedy: "make room in " + d.c.Run + ", then systemctl restart holdfast"}})
			return
		}
	}
	if m.Listen == "" || m.Listen == config.MetricsOff {
		return
	}
	closed := d.metricsClosed
	exporter.Run(ctx, exporter.Config{
		Listen: m.Listen, WebConfig: m.WebConfig, ContainerNames: m.ContainerNames, Version: d.c.Version,
		Report: func() status.Report { r, _ := d.feed.Get(); return r },
		Usage:  d.Usage,
		Work:   d.loopWork,
		Log:    func(line string) { d.say.line("%s", line) },
	}, func(c *status.Condition) {
		all := closed
		if c != nil {
			all = append(append([]status.Condition(nil), closed...), *c)
		}
		d.setOther("metrics", all)
	})
}

// boxMetrics is what the box's configuration says. Other machines get metrics
// over TLS only, unless the configuration says that plain HTTP is meant.
func (d *Daemon) boxMetrics() (Metrics, error) {
	e, err := config.Load(d.c.Root)
	if errors.Is(err, fs.ErrNotExist) {
		e.Config = config.Default()
	} else if err != nil {
		return Metrics{}, err
	}
	c := e.Config.Metrics
	m := Metrics{Listen: c.Listen, ContainerNames: c.ContainerNames || d.c.Metrics.ContainerNames}
	if c.Listen == config.MetricsOff {
		return m, nil
	}
	var web webConfig
	if c.Outside() {
		crt, key := filepath.Join("/", d.c.Root, settings.TLSCertificate), filepath.Join("/", d.c.Root, settings.TLSKey)
		_, err1 := os.Stat(crt)
		_, err2 := os.Stat(key)
		switch {
		case err1 == nil && err2 == nil:
			web.TLS = &webTLS{Certificate: crt, Key: key, MinVersion: "TLS12"}
		case !c.Insecure:
			m.Listen = config.MetricsListen
			d.metricsClosed = []status.Condition{{Code: "metrics-not-open", Severity: "warning",
				Text:   "metrics are configured for " + c.Listen + ", and there is no certificate (`tls`): they are served on " + m.Listen + " only",
				Remedy: "add `tls` to the configuration, or `metrics: {insecure: true}` where plain HTTP is meant; then reboot"}}
			d.setOther("metrics", d.metricsClosed)
		}
	}
	for _, u := range c.Users {
		if web.Users == nil {
			web.Users = map[string]string{}
		}
		web.Users[u.Name] = string(u.PasswordHash)
	}
	if web.TLS == nil && web.Users == nil {
		return m, nil
	}
	m.WebConfig = filepath.Join(d.c.Run, "metrics-web.yml")
	// JSON is YAML, without questions of quotes.
	text, err := json.Marshal(web)
	if err != nil {
		return m, err
	}
	return m, durable.WriteFile(m.WebConfig, append(text, '\n'), 0o600)
}

// webConfig is exporter-toolkit's web configuration file
// (https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md).
type webConfig struct {
	TLS   *webTLS           `json:"tls_server_config,omitempty"`
	Users map[string]string `json:"basic_auth_users,omitempty"`
}

type webTLS struct {
	Certificate string `json:"cert_file"`
	Key         string `json:"key_file"`
	MinVersion  string `json:"min_version"`
}
