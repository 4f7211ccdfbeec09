// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"github.com/holdfast/holdfast/appliance/config"
	"github.com/holdfast/holdfast/appliance/fetch"
)

// fetchOptions say where a release without images gets them: from a folder
// "images" on the data volume, then one on state, then from the network as the
// box's configuration has it. root goes before the path of that; "" on a box.
func fetchOptions(root, state, data string) fetch.Options {
	return fetch.Options{
		Dir:     filepath.Join(state, "fetch"),
		Layouts: []string{filepath.Join(data, "images"), filepath.Join(state, "images")},
		Mirrors: func(registry string) []string {
			for _, m := range configured(root).RegistryMirrors {
				if m.Registry == registry {
					return m.Mirrors
				}
			}
			return nil
		},
		Proxy: func(q *http.Request) (*url.URL, error) {
			p := configured(root).Proxy
			c := httpproxy.Config{HTTPProxy: p.HTTP, HTTPSProxy: p.HTTPS, NoProxy: strings.Join(p.NoProxy, ",")}
			return c.ProxyFunc()(q.URL)
		},
	}
}

// configured is the configuration as it is now; where there is none yet, or
// none that can be read, registries are asked directly. The settings say why.
func configured(root string) config.Config {
	e, err := config.Load(root)
	if err != nil {
		return config.Config{}
	}
	return e.Config
}
