// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/compose/stack"
)

var update = flag.Bool("update", false, "write the golden files anew")

const zeros = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

// load writes files to a stack folder and translates it; the folder's own
// path is not part of the result.
func load(t *testing.T, files map[string]string) (*Desired, string, error) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	st, err := stack.Load(t.Context(), dir, stack.Options{Digests: map[string]string{"x.test/a:1": zeros, "x.test/b:1": zeros}})
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{}
	for _, s := range st.Secrets {
		secrets[s.Name] = "/data/secrets/" + s.Name
	}
	d, err := Translate(st.Project, st.Services, Options{Generation: 3, FilesDir: "/files", SecretFiles: secrets})
	return d, dir, err
}

const everything = `
name: demo
services:
  db:
    image: x.test/a:1
    command: [serve]
    healthcheck: {test: [CMD, ok], interval: 5s, timeout: 2s, retries: 4, start_period: 30s, start_interval: 1s}
    volumes: ["data:/data", "./conf.ini:/etc/conf.ini:ro", "/scratch", {type: tmpfs, target: /fast, tmpfs: {size: 8000000}}]
    secrets: [db-password]
    restart: unless-stopped
    stop_grace_period: 45s
    stop_signal: SIGINT
    shm_size: 64M
  web:
    image: x.test/b:1
    entrypoint: [/web]
    env_file: [web.env]
    environment: {MODE: fast, EMPTY: ""}
    user: "1000:1000"
    working_dir: /srv
    hostname: www
    ports: ["80:8080", "127.0.0.1:53:53/udp"]
    expose: ["9000"]
    tmpfs: ["/tmp:size=1m"]
    configs: [{source: site, target: /etc/site}, {source: inline, target: /etc/inline, mode: 0400, uid: "1000", gid: "1000"}]
    secrets: [{source: db-password, target: /run/pw, uid: "1000", gid: "1000", mode: 0400}]
    networks: {front: {aliases: [www], priority: 10}, back: {}}
    cap_add: [NET_BIND_SERVICE]
    cap_drop: [ALL]
    security_opt: [label=disable]
    read_only: true
    init: true
    ulimits: {nofile: 1024, nproc: {soft: 10, hard: 20}}
    sysctls: {net.core.somaxconn: "1024"}
    extra_hosts: ["up.test:10.0.0.1"]
    logging: {driver: json-file, options: {max-size: 1m}}
    labels: {team: blue}
    deploy:
      resources:
        limits: {cpus: "0.5", memory: 64M, pids: 30}
        reservations: {cpus: "0.25", memory: 32M}
    depends_on:
      db: {condition: service_healthy, restart: true}
    networks: {front: {aliases: [www], priority: 10}, back: {}}
networks: {front: {}, back: {internal: true}}
volumes: {data: {}}
configs:
  site: {file: ./conf.ini}
  inline: {content: "x = 1\n"}
secrets:
  db-password:
    x-holdfast: {generate: password, length: 32}
`

func TestTranslateGolden(t *testing.T) {
	text := strings.Replace(everything, "    networks: {front: {aliases: [www], priority: 10}, back: {}}\n    cap_add", "    cap_add", 1)
	d, dir, err := load(t, map[string]string{"compose.yaml": text, "conf.ini": "a = b\n", "web.env": "FROM_FILE=yes\n"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range d.Services { // it depends on the folder's path
		d.Services[i].Hash = "HASH"
		d.Services[i].Spec.Config.Labels[labelHash] = "HASH"
	}
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(string(b), dir, "STACK") + "\n"
	golden := filepath.Join("testdata", "everything.json")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the translation is not testdata/everything.json; look at the change and run with -update\n%s", got)
	}
}

func TestHashFollowsContent(t *testing.T) {
	small := "name: demo\nservices:\n  web:\n    image: x.test/a:1\n    volumes: [\"./conf.ini:/c:ro\"]\n"
	dir := t.TempDir()
	hash := func(compose, conf, digest string) string {
		t.Helper()
		for name, content := range map[string]string{"compose.yaml": compose, "conf.ini": conf} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		st, err := stack.Load(t.Context(), dir, stack.Options{Digests: map[string]string{"x.test/a:1": digest}})
		if err != nil {
			t.Fatal(err)
		}
		d, err := Translate(st.Project, st.Services, Options{Generation: 1, FilesDir: "/files"})
		if err != nil {
			t.Fatal(err)
		}
		return d.Services[0].Hash
	}
	first := hash(small, "a", zeros)
	if hash(small, "a", zeros) != first {
		t.Error("the same stack has two hashes")
	}
	for name, h := range map[string]string{
		"a bound file":   hash(small, "b", zeros),
		"an image":       hash(small, "a", strings.Replace(zeros, "0", "1", 1)[:len(zeros)]),
		"a variable":     hash(small+"    environment: {A: b}\n", "a", zeros),
		"a label":        hash(small+"    labels: {A: b}\n", "a", zeros),
		"a health check": hash(small+"    healthcheck: {test: [CMD, x]}\n", "a", zeros),
	} {
		if h == first {
			t.Errorf("%s changed and the hash did not", name)
		}
	}
}

func TestTranslateRefuses(t *testing.T) {
	d, _, err := load(t, map[string]string{"compose.yaml": "name: demo\nservices: {web: {image: x.test/a:1}}\n"})
	if err != nil || len(d.Services) != 1 {
		t.Fatal(d, err)
	}
	if p := d.Services[0].Restart.Mode; p != "always" {
		t.Errorf("a service that says nothing has policy %s", p)
	}
	st, err := stack.Load(t.Context(), writeStack(t, "name: demo\nservices: {web: {image: x.test/a:1}}\n"), stack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Translate(st.Project, st.Services, Options{}); err == nil || !strings.Contains(err.Error(), "not pinned") {
		t.Errorf("an image without digest: %v", err)
	}
}

func writeStack(t *testing.T, text string) string {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}
