// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net/http"
	"slices"
	"testing"

	"github.com/holdfast/holdfast/appliance/config"
)

// Mirrors and proxy are those of the configuration at the time of a request.
func TestFetchFollowsTheConfiguration(t *testing.T) {
	root := t.TempDir()
	o := fetchOptions(root, "/state", "/data")
	proxy := func(url string) string {
		t.Helper()
		q, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		u, err := o.Proxy(q)
		if err != nil {
			t.Fatal(err)
		}
		if u == nil {
			return ""
		}
		return u.String()
	}
	if o.Mirrors("docker.io") != nil || proxy("https://docker.io/v2/") != "" {
		t.Error("mirrors or a proxy without a configuration")
	}
	c := config.Default()
	c.RegistryMirrors = []config.Mirror{{Registry: "docker.io", Mirrors: []string{"https://a.example", "https://b.example"}}}
	c.Proxy = config.Proxy{HTTP: "http://web.example:3128", HTTPS: "http://u:p@proxy.example:3128", NoProxy: []string{".inside.example", "10.0.0.0/8"}}
	if err := (config.Effective{Config: c}).Save(root); err != nil {
		t.Fatal(err)
	}
	if got := o.Mirrors("docker.io"); !slices.Equal(got, []string{"https://a.example", "https://b.example"}) || o.Mirrors("quay.io") != nil {
		t.Errorf("mirrors %q", got)
	}
	for url, want := range map[string]string{"https://docker.io/v2/": "http://u:p@proxy.example:3128", "http://registry.example/v2/": "http://web.example:3128",
		"https://hub.inside.example/v2/": "", "https://10.1.2.3:5000/v2/": ""} {
		if got := proxy(url); got != want {
			t.Errorf("%s by %q, want %q", url, got, want)
		}
	}
	if o.Dir != "/state/fetch" || !slices.Equal(o.Layouts, []string{"/data/images", "/state/images"}) {
		t.Errorf("%+v", o)
	}
}
