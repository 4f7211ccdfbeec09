// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestProfiles: COMPOSE_PROFILES of .env decides which services there are.
func TestProfiles(t *testing.T) {
	const text = "-- compose.yaml --\nname: demo\nservices:\n  web: {image: a, depends_on: {debug: {condition: service_started, required: false}}}\n" +
		"  debug: {image: b, profiles: [debug, more]}\n  other: {image: c, profiles: [other], build: .}\n"
	for _, c := range [][2]string{
		{"", "web"},
		{"COMPOSE_PROFILES=", "web"},
		{"COMPOSE_PROFILES=more", "debug web"},
		{"COMPOSE_PROFILES=debug, more", "debug web"},
	} {
		s, err := Load(context.Background(), folder(t, text+"-- .env --\n"+c[0]+"\n"), Options{})
		if err != nil {
			t.Errorf("%s: %v", c[0], err)
			continue
		}
		got := slices.Clone(s.Services)
		slices.Sort(got)
		if strings.Join(got, " ") != c[1] {
			t.Errorf("%q: services %v, want %s", c[0], got, c[1])
		}
		if len(s.Project.Services) != len(got) || len(s.Extensions) != len(got) {
			t.Errorf("%q: the project has %v, the extensions %v", c[0], s.Project.ServiceNames(), slices.Collect(maps.Keys(s.Extensions)))
		}
	}
	// The others are checked once they are enabled.
	_, err := Load(context.Background(), folder(t, text+"-- .env --\nCOMPOSE_PROFILES=*\n"), Options{})
	if err == nil || !strings.Contains(err.Error(), "compose.yaml:5: services.other.build: ") {
		t.Errorf("all profiles: %v", err)
	}
}

// TestInitContainers: an init container's image and files are the stack's.
func TestInitContainers(t *testing.T) {
	dir := folder(t, "-- compose.yaml --\nname: demo\nservices:\n  web:\n    image: a\n    environment: {A: b}\n"+
		"    pre_start: [{command: [x], environment: {C: d}, per_replica: true}, {image: b, volumes: [\"./f:/f:ro\"], env_file: [e.env]}]\n"+
		"-- f --\nf\n-- e.env --\nE=f\n")
	digests := map[string]string{"a": "sha256:" + strings.Repeat("a", 64), "b": "sha256:" + strings.Repeat("b", 64)}
	s, err := Load(context.Background(), dir, Options{Digests: digests})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(s.Images()); got != "[a b]" {
		t.Errorf("images %s", got)
	}
	web := s.Project.Services["web"]
	for i, want := range []string{"a", "b"} {
		p := web.PreStart[i]
		if p.Image != "docker.io/library/"+want+"@"+digests[want] || *p.Environment["A"] != "b" {
			t.Errorf("init container %d: image %s, environment %v", i, p.Image, p.Environment)
		}
	}
	if e := web.PreStart[1].Environment["E"]; e == nil || *e != "f" {
		t.Errorf("the env file of the init container is not read: %v", web.PreStart[1].Environment)
	}
	var names []string
	for _, f := range s.files {
		names = append(names, f.rel)
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "compose.yaml e.env f" {
		t.Errorf("files %s", got)
	}
	if _, err := Load(context.Background(), dir, Options{Digests: map[string]string{"a": digests["a"]}}); err == nil ||
		!strings.Contains(err.Error(), "services.web.pre_start.1.image: b is not among the release's images") {
		t.Errorf("an image that the release lacks: %v", err)
	}
}

// TestAllowed: what a reason opens, and nothing else.
func TestAllowed(t *testing.T) {
	const reason = "\"the tests look at it\""
	for key, body := range map[string]string{
		"privileged": "privileged: true", "pid": "pid: host", "ipc": "ipc: host", "uts": "uts: host", "cgroup": "cgroup: host",
		"userns_mode": "userns_mode: host", "network_mode": "network_mode: host", "devices": "devices: [/dev/fuse]",
		"device_cgroup_rules": "device_cgroup_rules: [\"c 1:3 r\"]", "security_opt": "security_opt: [\"systempaths=unconfined\"]",
		"blkio_config":             "blkio_config: {device_read_bps: [{path: /dev/vda, rate: 1mb}]}",
		"volumes./etc":             "volumes: [\"/etc:/host\"]",
		"volumes./run/docker.sock": "volumes: [\"/run/docker.sock:/run/docker.sock\"]",
	} {
		text := "-- compose.yaml --\nname: demo\nservices:\n  web:\n    image: a\n    " + body + "\n"
		_, err := Load(context.Background(), folder(t, text), Options{})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("`x-holdfast: {allow: {%q: \"why\"}}`", key)) {
			t.Errorf("%s without a reason: %v", key, err)
		}
		s, err := Load(context.Background(), folder(t, text+"    x-holdfast: {allow: {"+fmt.Sprintf("%q", key)+": "+reason+"}}\n"), Options{})
		if err != nil {
			t.Errorf("%s with a reason: %v", key, err)
		} else if s.Extensions["web"].Allow[key] == "" {
			t.Errorf("%s: the reason is lost", key)
		}
	}
	for _, key := range allowable {
		if !slices.ContainsFunc([]string{"privileged", "pid", "ipc", "uts", "cgroup", "userns_mode", "network_mode", "devices",
			"device_cgroup_rules", "security_opt", "blkio_config"}, func(k string) bool { return k == key }) {
			t.Errorf("no test opens %s", key)
		}
	}
}

// FuzzRawEnv feeds bytes as a raw env file: each variable has a name, and
// nothing of the file is lost or evaluated.
func FuzzRawEnv(f *testing.F) {
	for _, s := range []string{"A=b\n", "#x\nA\n", "\ufeffA=$B 'x'\n", " A = b", "=", "A=\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		vars := map[string]string{}
		err := rawEnv(strings.NewReader(text), "x.env", vars, func(string) (string, bool) { return "", false })
		for k, v := range vars {
			if k == "" || strings.ContainsAny(k, " \t=") || err == nil && !strings.Contains(text, k+"="+v) {
				t.Errorf("%q: %q = %q", text, k, v)
			}
		}
	})
}
