// SPDX-License-Identifier: Apache-2.0

package fidelity

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated page anew")

func document(t *testing.T, s string) map[string]any {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal([]byte(s), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestNormalise shows all that is dropped.
func TestNormalise(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	got := text(Normalise(document(t, `{
		"Id": "`+id+`", "Created": "2026-01-01T00:00:00Z", "LogPath": "/x/`+id+`/`+id+`-json.log",
		"Config": {"Hostname": "`+id[:12]+`", "Env": ["B=2", "A=1"], "Cmd": ["b", "a"],
			"Labels": {"com.docker.compose.depends_on": "b:service_started:false,a:service_healthy:true"}},
		"NetworkSettings": {"SandboxID": "f", "Networks": {"n": {"NetworkID": "`+id+`", "EndpointID": "e", "IPAddress": "172.18.0.2",
			"IPAMConfig": {"IPv4Address": "172.31.5.7"}, "Aliases": ["web", "a"]}}},
		"IPAM": {"Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}, {"Subnet": "172.31.5.0/24", "Gateway": "172.31.5.1"}]},
		"State": {"Pid": 7, "StartedAt": "2026-01-01T00:00:00Z", "Status": "running", "Since": "2026-01-01T00:00:00Z"}}`), map[string]string{id: "<web>"}))
	want := text(document(t, `{
		"Id": "<web>", "LogPath": "/x/<web>/<web>-json.log",
		"Config": {"Hostname": "<web>", "Env": ["A=1", "B=2"], "Cmd": ["b", "a"],
			"Labels": {"com.docker.compose.depends_on": "a:service_healthy:true,b:service_started:false"}},
		"NetworkSettings": {"Networks": {"n": {"NetworkID": "<web>", "IPAMConfig": {"IPv4Address": "172.31.5.7"}, "Aliases": ["web", "a"]}}},
		"IPAM": {"Config": [{"Subnet": "ADDRESS"}, {"Subnet": "172.31.5.0/24", "Gateway": "172.31.5.1"}]},
		"State": {"Status": "running", "Since": "TIME"}}`))
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestCompare(t *testing.T) {
	ours := Things{"container web": document(t, `{"A": 1, "Mounts": [{"Target": "/b", "RO": true}, {"Target": "/a"}], "L": ["x"]}`), "volume x": {}}
	theirs := Things{"container web": document(t, `{"A": 1, "Mounts": [{"Target": "/a"}, {"Target": "/b", "RO": false}], "L": ["x", "y"]}`), "volume y": {}}
	var got []string
	for _, d := range Compare(ours, theirs) {
		got = append(got, d.String())
	}
	want := []string{
		`container web: L: ours ["x"], docker compose's ["x","y"]`,
		`container web: Mounts./b.RO: ours true, docker compose's false`,
		`volume x: : ours "exists", docker compose's null`,
		`volume y: : ours null, docker compose's "exists"`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestIntendedIsNarrow holds each entry to the values it is about.
func TestIntendedIsNarrow(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	for _, c := range []struct {
		path         string
		ours, theirs any
		want         string
	}{
		{"HostConfig.RestartPolicy.Name", "no", "always", "restart policy"},
		{"HostConfig.RestartPolicy.Name", "always", "no", ""},
		{"HostConfig.SecurityOpt", []any{"a", "no-new-privileges:true"}, []any{"a"}, "no-new-privileges"},
		{"HostConfig.SecurityOpt", []any{"no-new-privileges:true"}, []any{"a"}, ""},
		{"HostConfig.SecurityOpt", nil, []any{"no-new-privileges:false"}, ""},
		{"HostConfig.LogConfig.Config.max-size", "10m", nil, "log caps"},
		{"HostConfig.LogConfig.Config.max-size", "10m", "1m", ""},
		{"HostConfig.LogConfig.Type", "local", "json-file", ""},
		{"Labels.com.docker.compose.version", "holdfast", "2.40.3", "version label"},
		{"Config.Labels.com.docker.compose.version", "holdfast", nil, ""},
		{"Config.Labels.com.docker.compose.config-hash", hash, strings.Repeat("cd", 32), "configuration hash"},
		{"Labels.com.docker.compose.config-hash", nil, hash, ""},
		{"Config.Labels.io.holdfast.generation", "1", nil, "generation label"},
		{"Config.Image", "x@sha256:" + hash, "x:1", "pinned image"},
		{"Config.Image", "x:1", "x@sha256:" + hash, ""},
		{"HostConfig.Mounts./etc/x", map[string]any{"Source": "/s/files/config.x.0.0.444.ab"}, nil, "files with an owner, a mode or content"},
		{"HostConfig.Mounts./etc/x", map[string]any{"Source": "/etc/x"}, nil, ""},
		{"HostConfig.CpuShares", 256, 0, "what docker compose drops"},
		{"HostConfig.CpuShares", 256, 512, "budget"},
		{"HostConfig.VolumesFrom", []any{"x:ro"}, []any{"x"}, "what docker compose drops"},
		{"HostConfig.VolumesFrom", []any{"x"}, []any{"x:ro"}, ""},
		{"IPAM.Options", map[string]any{"a": "b"}, nil, "what docker compose drops"},
		{"Config.ExposedPorts.9000/tcp", map[string]any{}, nil, "protocol of an exposed port"},
		{"Config.ExposedPorts.9000/udp", map[string]any{}, nil, ""},
		{"HostConfig.Memory", 1, 0, "budget"},
		{"HostConfig.Privileged", true, false, ""},
	} {
		got := ""
		for _, i := range Intended {
			if i.Is(Difference{Path: c.path, Ours: c.ours, Theirs: c.theirs}) {
				got = i.Name
				break
			}
		}
		if got != c.want {
			t.Errorf("%s: ours %v, theirs %v is %q, want %q", c.path, c.ours, c.theirs, got, c.want)
		}
	}
}

// TestPage keeps the documentation's list true.
func TestPage(t *testing.T) {
	var b strings.Builder
	b.WriteString("<!-- Made by go test ./qa/fidelity -run TestPage -update; do not edit. -->\n\n| difference | why |\n|---|---|\n")
	for _, i := range Intended {
		fmt.Fprintf(&b, "| %s | %s |\n", i.Name, i.Reason)
	}
	file := filepath.Join("..", "..", "docs", "partials", "compose-differences.md")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Errorf("%s is not what Intended says: run go test ./qa/fidelity -run TestPage -update", file)
	}
}
