// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"

	"github.com/spf13/viper"
)

// layer is the checked content of one document.
type layer struct {
	source Source
	values map[string]any
}

// build lays layers over the defaults, the last one on top. A top-level key is
// replaced as a whole: half a network of one source and half of another would
// be a network that nobody wrote.
func build(layers []layer) (Config, error) {
	v := viper.New()
	// A list that nobody wrote is an empty one, not null, in JSON too.
	for _, key := range []string{"network.addresses", "network.gateways", "dns.servers", "dns.search", "ntp", "proxy.no_proxy", "admin.ssh_keys"} {
		v.SetDefault(key, []string{})
	}
	v.SetDefault("registry_mirrors", []Mirror{})
	v.SetDefault("network.dhcp", true)
	v.SetDefault("size", "auto")
	v.SetDefault("metrics.listen", MetricsListen)
	v.SetDefault("metrics.users", []MetricsUser{})
	v.SetDefault("data.disk", "auto")
	top := map[string]any{}
	for _, l := range layers {
		for key, value := range l.values {
			top[key] = value
		}
	}
	if err := v.MergeConfigMap(top); err != nil {
		return Config{}, fmt.Errorf("merge the configuration: %w", err)
	}
	var c Config
	if err := v.UnmarshalExact(&c); err != nil {
		return Config{}, fmt.Errorf("merge the configuration: %w", err)
	}
	if c.Size == "" {
		c.Size = "auto"
	}
	if c.Metrics.Listen == "" {
		c.Metrics.Listen = MetricsListen
	}
	if c.Data.Disk == "" {
		c.Data.Disk = "auto"
	}
	return c, nil
}

// origins gives the source of each top-level key.
func origins(layers []layer) map[string]Source {
	out := map[string]Source{}
	for _, key := range topKeys {
		out[key] = FromDefault
	}
	for _, l := range layers {
		for key := range l.values {
			out[key] = l.source
		}
	}
	return out
}
