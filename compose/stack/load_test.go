// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write the expected errors of testdata/refused")

// folder writes a txtar archive as a stack folder.
func folder(t *testing.T, archive string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range txtar.Parse([]byte(archive)).Files {
		p := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const good = `
-- compose.yaml --
name: demo
version: "3.8"
x-logging: &logging
  logging: {driver: json-file, options: {max-size: 10m}}
include:
  - cache/compose.yaml
services:
  web:
    <<: *logging
    image: example.test/web:${VERSION}
    command: ["serve", "--dir", "/srv"]
    depends_on:
      migrate: {condition: service_completed_successfully}
      db: {condition: service_healthy}
      cache: {condition: service_started}
    environment:
      DB_PASSWORD_FILE: /run/secrets/db-password
      MODE: ${MODE:-plain}
    env_file: [web.env]
    ports: ["80:8080", "127.0.0.1:9000:9000/tcp"]
    secrets: [db-password]
    configs:
      - source: site
        target: /etc/site.conf
        mode: 0440
    volumes:
      - uploads:/srv/uploads
      - ./static:/srv/static:ro
    tmpfs: [/tmp]
    healthcheck: {test: ["CMD", "true"], interval: 5s, start_period: 10s}
    restart: unless-stopped
    mem_limit: 256m
    cpus: 0.5
    pids_limit: 100
    stop_grace_period: 20s
    stop_signal: SIGINT
    user: "1000:1000"
    read_only: true
    cap_drop: [ALL]
    cap_add: [NET_BIND_SERVICE]
    security_opt: ["no-new-privileges:true"]
    ulimits: {nofile: {soft: 1024, hard: 2048}}
    shm_size: 64m
    sysctls: {net.core.somaxconn: 1024}
    labels: {a: b}
    init: true
    working_dir: /srv
    hostname: web
    extra_hosts: ["far:192.0.2.1"]
    networks: {front: {aliases: [www]}, back: }
  migrate:
    image: example.test/web:${VERSION}
    command: migrate
    restart: "no"
    depends_on: {db: {condition: service_healthy}}
    networks: [back]
  db:
    image: example.test/db:1@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    secrets: [db-password]
    volumes: ["data:/var/lib/db"]
    networks: [back]
    deploy:
      mode: replicated
      replicas: 1
      restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 60s}
      resources:
        limits: {cpus: "1", memory: 512m, pids: 200}
        reservations: {cpus: "0.25", memory: 128m}
networks:
  front:
  back: {internal: true}
volumes:
  uploads:
  data: {labels: {keep: "yes"}}
secrets:
  db-password:
    x-holdfast: {generate: password, length: 24}
configs:
  site: {file: ./conf/site.conf}
-- cache/compose.yaml --
services:
  cache:
    extends: {file: base.yaml, service: base}
    volumes: ["./cache.conf:/etc/cache.conf:ro"]
-- cache/base.yaml --
services:
  base:
    image: example.test/cache:2
    environment: ["SIZE=${SIZE}"]
-- cache/cache.conf --
size 1
-- cache/.env --
SIZE=12
-- .env --
VERSION=1.0.0
-- web.env --
COLOUR=blue
-- conf/site.conf --
hello
-- static/index.html --
<p>
-- static/deep/a.css --
p {}
-- unused.txt --
not part of the stack
`

func TestLoad(t *testing.T) {
	t.Setenv("VERSION", "from-the-host")
	t.Setenv("MODE", "from-the-host")
	dir := folder(t, good)
	s, err := Load(context.Background(), filepath.Join(dir, "compose.yaml"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Services, []string{"cache", "db", "migrate", "web"}; !slices.Equal(got, want) {
		t.Errorf("start order %v, want %v", got, want)
	}
	if got, want := s.Images(), []string{"example.test/cache:2",
		"example.test/db:1@sha256:" + strings.Repeat("a", 64), "example.test/web:1.0.0"}; !slices.Equal(got, want) {
		t.Errorf("images %q, want %q", got, want)
	}
	if got, want := s.Secrets, []GeneratedSecret{{"db-password", "password", 24}}; !slices.Equal(got, want) {
		t.Errorf("secrets %v, want %v", got, want)
	}
	web := s.Project.Services["web"]
	if *web.Environment["MODE"] != "plain" || *web.Environment["COLOUR"] != "blue" {
		t.Errorf("environment %v", web.Environment)
	}
	if cache := s.Project.Services["cache"]; *cache.Environment["SIZE"] != "12" ||
		cache.Volumes[0].Source != filepath.Join(dir, "cache/cache.conf") {
		t.Errorf("the included service: %v %v", cache.Environment, cache.Volumes)
	}
	if s.Project.Configs["site"].File != filepath.Join(dir, "conf/site.conf") || s.Project.Secrets["db-password"].File != "" {
		t.Errorf("config %+v secret %+v", s.Project.Configs["site"], s.Project.Secrets["db-password"])
	}
	if s.Project.Volumes["data"].Name != "demo_data" {
		t.Errorf("volume name %q", s.Project.Volumes["data"].Name)
	}
	if f, line := s.Line("services", "web", "image"); f != "compose.yaml" || line != 10 {
		t.Errorf("services.web.image is at %s:%d", f, line)
	}
}

func TestReadableFrom(t *testing.T) {
	const archive = "-- compose.yaml --\nname: demo\nx-holdfast:\n  data: {readable-from: \"1.2.0\"}\nservices: {web: {image: a}}\n"
	s, err := Load(context.Background(), folder(t, archive), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s.ReadableFrom != "1.2.0" {
		t.Errorf("readable from %q", s.ReadableFrom)
	}
	for _, release := range []string{"1.2.0", "1.2.1", "2.0.0-rc.1"} {
		if err := s.CheckVersion(release); err != nil {
			t.Errorf("released as %s: %v", release, err)
		}
	}
	want := `compose.yaml:3: x-holdfast.data.readable-from: 1.2.0 is newer than 1.2.0-rc.1, the version of the release, which reads its own data; write 1.2.0-rc.1 or an older version, or remove it`
	if err := s.CheckVersion("1.2.0-rc.1"); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if s, err = Load(context.Background(), folder(t, good), Options{}); err != nil || s.ReadableFrom != "" || s.CheckVersion("0.0.1") != nil {
		t.Errorf("a stack that says nothing: %v", err)
	}
}

func TestTarRoundTrip(t *testing.T) {
	dir := folder(t, good)
	if err := os.Chmod(filepath.Join(dir, "static/deep/a.css"), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := Load(context.Background(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var tar bytes.Buffer
	if err := s.Tar(&tar); err != nil {
		t.Fatal(err)
	}
	want, err := s.Digest()
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "unpacked")
	defer syscall.Umask(syscall.Umask(0o077))
	if err := Unpack(bytes.NewReader(tar.Bytes()), to); err != nil {
		t.Fatal(err)
	}
	digests := map[string]string{}
	for _, im := range s.ServiceImages() {
		digests[im.Ref] = "sha256:" + strings.Repeat("b", 64)
	}
	again, err := Load(context.Background(), to, Options{Digests: digests})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Digest(); got != want || err != nil {
		t.Errorf("digest %s %v in another folder, want %s", got, err, want)
	}
	if again.Name != s.Name {
		t.Errorf("name %q", again.Name)
	}
	if got, want := again.Project.Services["web"].Image, "example.test/web@sha256:"+strings.Repeat("b", 64); got != want {
		t.Errorf("pinned image %s, want %s", got, want)
	}
	if _, err := os.Stat(filepath.Join(to, "unused.txt")); !os.IsNotExist(err) {
		t.Errorf("a file that the stack does not name is in the tar: %v", err)
	}
	if st, err := os.Stat(filepath.Join(to, "static/deep/a.css")); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("mode %v %v", st.Mode(), err)
	}
	if st, err := os.Stat(filepath.Join(to, "static/deep")); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("mode of a folder %v %v", st.Mode(), err)
	}
	if err := Unpack(bytes.NewReader(tar.Bytes()), to); err == nil {
		t.Error("unpacking over a full folder must fail")
	}
	if _, err := Load(context.Background(), to, Options{Digests: map[string]string{}}); err == nil ||
		!strings.Contains(err.Error(), "compose.yaml:10: services.web.image: example.test/web:1.0.0 is not among the release's images") {
		t.Errorf("missing digest: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "web.env"), []byte("longer than it was before"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Tar(&tar); err == nil || !strings.Contains(err.Error(), "changed") {
		t.Errorf("changed file: %v", err)
	}
}

// TestRefused holds one bad stack per file of testdata/refused: a txtar whose
// comment is the whole expected error.
func TestRefused(t *testing.T) {
	files, err := filepath.Glob("testdata/refused/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			dir := folder(t, string(data))
			_, err = Load(context.Background(), dir, Options{})
			var ps *Problems
			if !errors.As(err, &ps) {
				t.Fatalf("error is %T %v, want *Problems", err, err)
			}
			got := strings.ReplaceAll(err.Error(), dir, "DIR") + "\n"
			a := txtar.Parse(data)
			if *update {
				a.Comment = []byte(got)
				if err := os.WriteFile(f, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := string(a.Comment); got != want {
				t.Errorf("error:\n%swant:\n%s", got, want)
			}
		})
	}
}
