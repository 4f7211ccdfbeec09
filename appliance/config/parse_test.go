// SPDX-License-Identifier: Apache-2.0

package config

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"go.yaml.in/yaml/v4"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sshLine is a key made for these tests; nobody has its other half.
const sshLine = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAID2SfxuZsg4VauYiC0SLG/bVCY7xhWbM+jT6VgzlfXKl you@example.com"

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what was got (-update writes it anew):\n%s", name, got)
	}
}

func TestRefused(t *testing.T) {
	ar, err := txtar.ParseFile("testdata/refused.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range ar.Files {
		c, problems := Parse("config.yaml", f.Data)
		if len(problems) == 0 || !reflect.DeepEqual(c, Default()) {
			t.Errorf("%s: %d problems, configuration %v", f.Name, len(problems), c)
		}
		fmt.Fprintf(&b, "-- %s --\n", f.Name)
		for _, p := range problems {
			fmt.Fprintln(&b, p)
			if p.Line < 1 || p.Line > strings.Count(string(f.Data), "\n") || p.Mend == "" {
				t.Errorf("%s: line %d, mend %q", f.Name, p.Line, p.Mend)
			}
		}
	}
	golden(t, "testdata/refused.golden", b.String())
}

func TestRefusedBytes(t *testing.T) {
	for _, c := range []struct{ name, data, want string }{
		{"gzip", "\x1f\x8b\x08\x00", "config.yaml:1: this is compressed with gzip"},
		{"UTF-16", "\xff\xfeh\x00o\x00", "config.yaml:1: this is UTF-16"},
		{"Latin-1", "hostname: box1\nntp: [m\xfcnchen.example]\n", "config.yaml:2: this is no UTF-8"},
		{"large", "hostname: box1\n" + strings.Repeat("# filler\n", 8000), "larger than 64 KiB"},
		{"many entries", "ntp: [" + strings.Repeat("a.example, ", 1001) + "]\n", "the list has 1001 entries"},
		{"many problems", strings.Repeat("x: 1\n", 200), "and 150 problems more"},
		{"deep", strings.Repeat("[", 30000), "not YAML"},
		{"long value", "hostname: " + strings.Repeat("x", 60000), `x"... is longer than 64 characters`},
	} {
		cfg, problems := Parse("config.yaml", []byte(c.data))
		var lines []string
		for _, p := range problems {
			lines = append(lines, p.String())
		}
		text := strings.Join(lines, "\n")
		if !strings.Contains(text, c.want) || len(text) > 20000 || !reflect.DeepEqual(cfg, Default()) {
			t.Errorf("%s: %.300s, want %q", c.name, text, c.want)
		}
	}
}

// hash has the form of a bcrypt hash; nobody knows a password for it.
const hash = "$2y$12$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyzABCDE"

func TestWhole(t *testing.T) {
	certificate, key := pair(t, day(0), day(365))
	doc := `
hostname: Box1.Example.com
network:
  interface: "52:54:00:AB:CD:EF"
  addresses: [10.0.0.5/24, "2001:DB8::5/64"]
  gateways: [10.0.0.1, "fe80::1"]
dns: {servers: [10.0.0.2, "2001:db8::53"], search: [example.com]}
ntp: [time.example.com, 10.0.0.3]
proxy:
  http: http://user:pa%20ss@proxy.example.com:3128/
  https: https://proxy.example.com
  no_proxy: [localhost, .example.com, "*.corp", 10.1.2.3/8, "10.0.0.1", "internal:8443", "*"]
admin:
  ssh_keys: ["` + sshLine + `"]
tls:
  certificate: |
` + indent(certificate) + `
  key: |
` + indent(key) + `
size: M
registry_mirrors:
  - {registry: index.docker.io, mirrors: ["https://mirror.example.com/", "http://10.0.0.9:5000/v2/docker-hub/"]}
metrics:
  listen: ":04653"
  users: [{name: prometheus, password_hash: "` + hash + `"}]
data: {disk: /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123, adopt: true}
`
	got, problems := Parse("config.yaml", []byte(doc))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := Config{
		Hostname: "box1.example.com",
		Network:  Network{Interface: "52:54:00:ab:cd:ef", Addresses: []string{"10.0.0.5/24", "2001:db8::5/64"}, Gateways: []string{"10.0.0.1", "fe80::1"}},
		DNS:      DNS{Servers: []string{"10.0.0.2", "2001:db8::53"}, Search: []string{"example.com"}},
		NTP:      []string{"time.example.com", "10.0.0.3"},
		Proxy: Proxy{HTTP: "http://user:pa%20ss@proxy.example.com:3128", HTTPS: "https://proxy.example.com",
			NoProxy: []string{"localhost", ".example.com", "*.corp", "10.0.0.0/8", "10.0.0.1", "internal:8443", "*"}},
		Admin: Admin{SSHKeys: []string{sshLine}}, TLS: TLS{Certificate: certificate, Key: Secret(key)}, Size: "M",
		RegistryMirrors: []Mirror{{Registry: "docker.io", Mirrors: []string{"https://mirror.example.com", "http://10.0.0.9:5000/v2/docker-hub"}}},
		Metrics:         Metrics{Listen: ":4653", Users: []MetricsUser{{Name: "prometheus", PasswordHash: hash}}},
		Data:            Data{Disk: "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123", Adopt: true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %#v\nwant %#v", got, want)
	}
	for _, shown := range []string{got.String(), fmt.Sprintf("%v %+v %s", got, got, got), fmt.Sprintf("%#v %v", got.TLS.Key, got.TLS), fmt.Sprint(got.Redacted())} {
		if strings.Contains(shown, key[60:100]) || strings.Contains(shown, hash[10:]) || strings.Contains(shown, "pa%20ss") && !strings.Contains(shown, "%!") {
			t.Errorf("a secret is shown: %s", shown)
		}
	}
}

func TestDefaults(t *testing.T) {
	d := Default()
	if !d.Network.DHCP || d.Size != "auto" || d.Data.Disk != "auto" || d.NTP == nil || d.RegistryMirrors == nil || len(d.Admin.SSHKeys) > 0 {
		t.Errorf("%#v", d)
	}
	for _, doc := range []string{"", "\n\n", "# nothing yet\n", "---\n", "{}\n", "hostname: \"\"\nsize: \"\"\ndata: {disk: \"\"}\n", "~", "\ufeff# made by Notepad\r\n"} {
		if c, problems := Parse("f", []byte(doc)); len(problems) > 0 || !reflect.DeepEqual(c, d) {
			t.Errorf("%q: %v %v", doc, problems, c)
		}
	}
	for _, c := range []struct {
		doc  string
		dhcp bool
	}{
		{"network: {interface: ens192}", true},
		{"network: {addresses: [10.0.0.5/24]}", false},
		{"network: {addresses: [10.0.0.5/24], dhcp: true}", true},
		{"network: {addresses: []}", true},
		{"network: {interface: 52:54:00:12:34:56}", true},
		{"network: {addresses: [10.0.0.4/31], gateways: [10.0.0.5]}", false},
	} {
		if got, problems := Parse("f", []byte(c.doc)); len(problems) > 0 || got.Network.DHCP != c.dhcp {
			t.Errorf("%s: %v, DHCP %v", c.doc, problems, got.Network.DHCP)
		}
	}
}

// What the manual shows must be what a box takes.
func TestManual(t *testing.T) {
	text, err := os.ReadFile("../../docs/configure.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 3 {
		t.Errorf("docs/configure.md has %d examples", len(blocks))
	}
	for _, b := range blocks {
		if _, problems := Parse("docs/configure.md", []byte(b[1])); len(problems) > 0 {
			t.Errorf("%v\n%s", problems, b[1])
		}
	}
	for _, key := range Keys() {
		if !strings.Contains(string(text), "`"+key) {
			t.Errorf("docs/configure.md does not speak of %s", key)
		}
	}
}

// A document that is taken is taken again when it is written down anew, and
// means the same.
func FuzzParse(f *testing.F) {
	ar, err := txtar.ParseFile("testdata/refused.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range ar.Files {
		f.Add(file.Data)
	}
	f.Add([]byte("hostname: box1\nnetwork: {addresses: [10.0.0.5/24], gateways: [10.0.0.1]}\nntp: [a.example]\nproxy: {http: 'http://u:p@h:1', no_proxy: ['*.a']}\n"))
	f.Add([]byte("admin: {ssh_keys: ['" + sshLine + "']}\nsize: M\nregistry_mirrors: [{registry: docker.io, mirrors: [https://a.example]}]\ndata: {disk: none}\n"))
	f.Add([]byte("metrics: {listen: ':1', users: [{name: a, password_hash: '" + hash + "'}], insecure: true}\n"))
	f.Add([]byte("\r00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, problems := Parse("f", data)
		// All that YAML takes for the end of a line.
		lines := 1 + len(regexp.MustCompile("[\n\r\u0085\u2028\u2029]").FindAllIndex(data, -1))
		for _, p := range problems {
			if p.Text == "" || p.Mend == "" || p.Line < 0 || p.Line > lines || strings.Contains(p.String(), "\n") {
				t.Fatalf("problem %#v", p)
			}
		}
		if len(problems) > 0 {
			return
		}
		again, err := yaml.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		d, problems := Parse("f", again)
		if len(problems) > 0 || !reflect.DeepEqual(c, d) {
			t.Fatalf("%v\n%#v\n%#v\n%s", problems, c, d, again)
		}
	})
}
