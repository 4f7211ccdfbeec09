// SPDX-License-Identifier: Apache-2.0

//go:build engine

package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast/holdfast/appliance/status"
)

// fourServices is the shape of the demo: a database with a health check, a
// one-shot that waits for it, a web service that waits for both, an edge.
const fourServices = `
services:
  db:
    image: holdfast.test/standin:1.0.0
    command: [serve, --healthy-after, 1s, --need, /run/secrets/db-password]
    healthcheck: {test: [CMD, /standin, check], interval: 1s, start_period: 10s, start_interval: 200ms}
    volumes: ["data:/data"]
    secrets: [db-password]
    restart: unless-stopped
  migrate:
    image: holdfast.test/standin:1.0.0
    command: [once, --file, /data/migrations, --need, /run/secrets/db-password]
    volumes: ["data:/data"]
    secrets: [db-password]
    depends_on: {db: {condition: service_healthy}}
    restart: "no"
  web:
    image: holdfast.test/standin:1.0.0
    command: [serve, --need, /etc/web.conf]
    healthcheck: {test: [CMD, /standin, check, --url, "http://db:8080/healthz"], interval: 1s, start_period: 10s, start_interval: 200ms}
    configs: [{source: web, target: /etc/web.conf}]
    depends_on:
      db: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
    restart: always
  edge:
    image: holdfast.test/standin:1.0.0
    command: [serve]
    ports: ["8081:8080"]
    read_only: true
    cap_drop: [ALL]
    tmpfs: [/tmp]
    healthcheck: {test: [CMD, /standin, check, --url, "http://front:8080/healthz"], interval: 1s, start_period: 10s, start_interval: 200ms}
    networks: {default: {aliases: [front]}}
    depends_on: {web: {condition: service_healthy}}
    deploy: {resources: {limits: {memory: 64M, cpus: "0.5", pids: 50}}}
    restart: always
volumes:
  data:
configs:
  web: {file: ./web.conf}
secrets:
  db-password:
    x-holdfast: {generate: password, length: 32}
`

func fourBox(t *testing.T) *box {
	b := newBox(t)
	b.write("web.conf", "greeting = hello\n")
	b.stack(fourServices)
	return b
}

func TestOrder(t *testing.T) {
	b := fourBox(t)
	b.start()
	r := b.healthy()
	c := b.containers()
	if len(c) != 4 {
		t.Fatalf("%d containers, want 4", len(c))
	}
	for _, p := range [][2]string{{"db", "migrate"}, {"db", "web"}, {"web", "edge"}} {
		if !c[p[0]].Started.Before(c[p[1]].Started) {
			t.Errorf("%s started %s, after %s at %s", p[0], c[p[0]].Started, p[1], c[p[1]].Started)
		}
	}
	if !c["migrate"].Finished.Before(c["web"].Started) {
		t.Errorf("web started %s, before migrate had ended at %s", c["web"].Started, c["migrate"].Finished)
	}
	if s := service(r, "migrate"); s.State != "completed" {
		t.Errorf("migrate is %+v", s)
	}
	if n := c["web"].Name; n != "order-web-1" {
		t.Errorf("web's container is called %s", n)
	}
	if want := "holdfast.test/standin@" + digest; c["web"].Image != want {
		t.Errorf("web runs %s, want %s", c["web"].Image, want)
	}
	for key, want := range map[string]string{
		"com.docker.compose.project": "order", "com.docker.compose.container-number": "1", "com.docker.compose.oneoff": "False",
		"com.docker.compose.depends_on":           "db:service_healthy:false,migrate:service_completed_successfully:false",
		"com.docker.compose.project.working_dir":  filepath.Join(b.dir, "stack"),
		"com.docker.compose.project.config_files": filepath.Join(b.dir, "stack", "compose.yaml"),
	} {
		if got := c["web"].Labels[key]; got != want {
			t.Errorf("label %s is %q, want %q", key, got, want)
		}
	}
	// The engine is asked for what the Compose file says.
	format := "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.LogConfig.Config}}"
	want := "67108864 500000000 50 true [ALL] [no-new-privileges:true] no map[max-file:3 max-size:10m]"
	if got := b.docker("inspect", "--format", format, c["edge"].ID); got != want {
		t.Errorf("edge is\n %s, want\n %s", got, want)
	}
	if got := b.docker("volume", "inspect", "--format", `{{index .Labels "com.docker.compose.volume"}}`, "order_data"); got != "data" {
		t.Errorf("the volume's label is %q", got)
	}
	if got := b.docker("network", "inspect", "--format", `{{index .Labels "com.docker.compose.network"}}`, "order_default"); got != "default" {
		t.Errorf("the network's label is %q", got)
	}
	st, err := os.Stat(filepath.Join(b.dir, "state/data/secrets/db-password"))
	if err != nil || st.Size() != 32 || st.Mode().Perm() != 0o444 {
		t.Errorf("the secret: %v %v", st, err)
	}
	if strings.Contains(b.out.String(), readFile(t, filepath.Join(b.dir, "state/data/secrets/db-password"))) {
		t.Error("the daemon printed the secret")
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestKilledDaemonAdopts(t *testing.T) {
	b := fourBox(t)
	b.start()
	b.healthy()
	before := b.containers()
	b.signal(syscall.SIGKILL)
	b.start()
	b.healthy()
	after := b.containers()
	for name, c := range before {
		if a := after[name]; a.ID != c.ID || !a.Started.Equal(c.Started) {
			t.Errorf("%s: container %s started %s became %s started %s", name, c.ID[:12], c.Started, a.ID[:12], a.Started)
		}
	}
	b.said("healthy", 1)
}

func TestOneShotOnceOverDaemonAndChange(t *testing.T) {
	b := fourBox(t)
	b.start()
	b.healthy()
	before := b.containers()
	b.signal(syscall.SIGTERM)
	for name, c := range b.containers() {
		if c.Up() != before[name].Up() {
			t.Errorf("%s did not run on when the daemon ended", name)
		}
	}
	// Only web changes: its config file has another content.
	b.write("web.conf", "greeting = servus\n")
	b.start()
	b.await("a new web", func(r status.Report) bool {
		s := service(r, "web")
		return r.Stack == "healthy" && s.Container != before["web"].ID
	})
	after := b.containers()
	for _, name := range []string{"db", "edge", "migrate"} {
		if after[name].ID != before[name].ID || !after[name].Started.Equal(before[name].Started) {
			t.Errorf("%s was touched though only web changed", name)
		}
	}
}

func TestCrashIsRestarted(t *testing.T) {
	b := fourBox(t)
	b.start()
	b.healthy()
	before := b.containers()
	b.docker("kill", before["web"].ID)
	r := b.await("web restarted", func(r status.Report) bool { return r.Stack == "healthy" && service(r, "web").Restarts == 1 })
	after := b.containers()
	if after["web"].ID != before["web"].ID {
		t.Error("web was made anew, want the same container started again")
	}
	if after["db"].Started != before["db"].Started {
		t.Error("db was restarted too")
	}
	if s := service(r, "edge"); s.Restarts != 0 {
		t.Errorf("edge has %d restarts", s.Restarts)
	}
	journal := readFile(t, filepath.Join(b.dir, "state/supervise/journal.jsonl"))
	if !strings.Contains(journal, `"act":"start","container":"`+before["web"].ID[:12]+`","because":"ended with exit code 137"`) {
		t.Errorf("the journal does not say why web was started:\n%s", journal)
	}
}

func TestCrashLoop(t *testing.T) {
	b := newBox(t)
	b.stack(`
services:
  web:
    image: holdfast.test/standin:1.0.0
    command: [once, --code, "3"]
    restart: always
`)
	b.start()
	r := b.await("a crash loop", func(r status.Report) bool { return service(r, "web").State == "crash-loop" })
	if c := notable(r); r.Stack != "degraded" || len(c) != 1 || c[0].Code != "service-crash-loop" {
		t.Errorf("%+v", r)
	}
	if s := service(r, "web"); s.Restarts != 4 || !strings.Contains(s.Reason, "exit code 3") {
		t.Errorf("%+v", s)
	}
}

func TestUnhealthyIsRestarted(t *testing.T) {
	b := newBox(t)
	b.stack(`
services:
  web:
    image: holdfast.test/standin:1.0.0
    command: [serve, --healthy-after, 1h]
    healthcheck: {test: [CMD, /standin, check], interval: 200ms, retries: 2}
    stop_grace_period: 2s
    restart: always
`)
	b.start()
	b.await("a restart of the unhealthy", func(r status.Report) bool { return service(r, "web").Restarts >= 2 })
}

func TestStopStackInReverse(t *testing.T) {
	b := fourBox(t)
	b.start()
	b.healthy()
	if _, err := b.client.StopStack(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.await("a stopped stack", func(r status.Report) bool { return r.Stack == "stopped" })
	c := b.containers()
	for name, x := range c {
		if x.Up() {
			t.Errorf("%s still runs", name)
		}
		if x.ExitCode != 0 {
			t.Errorf("%s ended with %d, want a clean end", name, x.ExitCode)
		}
	}
	if !c["edge"].Finished.Before(c["web"].Finished) || !c["web"].Finished.Before(c["db"].Finished) {
		t.Errorf("ended edge %s, web %s, db %s", c["edge"].Finished, c["web"].Finished, c["db"].Finished)
	}
	// The next daemon runs it again, in the same containers, migrate not at all.
	b.signal(syscall.SIGTERM)
	b.start()
	b.healthy()
	after := b.containers()
	for name := range c {
		if after[name].ID != c[name].ID {
			t.Errorf("%s has a new container", name)
		}
	}
	if !after["migrate"].Started.Equal(c["migrate"].Started) {
		t.Error("migrate ran again")
	}
}

// TestEngineKilled kills the engine and every container at once; the daemon
// lives on and brings everything back in order.
func TestEngineKilled(t *testing.T) {
	b := fourBox(t)
	b.start()
	b.healthy()
	before := b.containers()
	if err := restartEngine(); err != nil {
		t.Fatal(err)
	}
	r := b.await("a stack healthy again", func(r status.Report) bool {
		return r.Stack == "healthy" && len(notable(r)) == 0 && !service(r, "edge").Since.Before(before["edge"].Started.Add(1))
	})
	after := b.containers()
	for name, c := range before {
		if after[name].ID != c.ID {
			t.Errorf("%s has a new container", name)
		}
		if n := service(r, name).Restarts; n != 0 {
			t.Errorf("%s counts %d restarts for what the engine did", name, n)
		}
	}
	if !after["migrate"].Started.Equal(before["migrate"].Started) {
		t.Error("migrate ran again")
	}
	if !after["db"].Started.Before(after["web"].Started) || !after["web"].Started.Before(after["edge"].Started) || !after["db"].Started.After(before["db"].Started) {
		t.Errorf("started again: db %s, web %s, edge %s", after["db"].Started, after["web"].Started, after["edge"].Started)
	}
}

func TestMissingImageHolds(t *testing.T) {
	b := newBox(t)
	b.stack("\nservices: {web: {image: holdfast.test/standin:1.0.0}}\n")
	other := "sha256:" + strings.Repeat("0", 64)
	b.args[len(b.args)-1] = fmt.Sprintf("%s=%s", ref, other)
	b.start()
	r := b.await("a held stack", func(r status.Report) bool { return r.Stack == "held" })
	if len(r.Conditions) != 1 || !strings.Contains(r.Conditions[0].Text, ref[:len(ref)-6]) || r.Conditions[0].Remedy == "" {
		t.Errorf("%+v", r.Conditions)
	}
	if c := b.containers(); len(c) != 0 {
		t.Errorf("%d containers were made", len(c))
	}
}
