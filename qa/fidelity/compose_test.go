// SPDX-License-Identifier: Apache-2.0

//go:build engine

package fidelity

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/compose/stack"
)

// TestDockerComposeSeesOurs runs docker compose's own commands on containers
// that it did not make.
func TestDockerComposeSeesOurs(t *testing.T) {
	text := "name: fid-sees\nservices:\n  db: {image: " + ref + ", command: [serve]}\n" +
		"  web: {image: " + ref + ", command: [serve], depends_on: [db], ports: [\"18090:8080\"]}\n" +
		"  job: {image: " + ref + ", command: [once], restart: \"no\"}\n"
	c := newCase(t, text, os.DirFS(t.TempDir()))
	c.ours(true)
	ps := c.compose("ps", "--all", "--format", "{{.Name}} {{.Service}} {{.Image}} {{.Ports}}")
	for _, want := range []string{"fid-sees-db-1 db ", "fid-sees-web-1 web ", "0.0.0.0:18090->8080/tcp", "fid-sees-job-1 job "} {
		if !strings.Contains(ps, want) {
			t.Errorf("docker compose ps lacks %q:\n%s", want, ps)
		}
	}
	// It follows until the line is there: the process writes it when it runs.
	if !c.logged("web-1", "serving") {
		t.Error("docker compose logs does not show the service's first line")
	}
	if out := c.compose("ls", "--all"); !strings.Contains(out, "fid-sees") || !strings.Contains(out, filepath.Join(c.dir, "compose.yaml")) {
		t.Errorf("docker compose ls:\n%s", out)
	}
	if out := c.compose("port", "web", "8080"); strings.TrimSpace(out) != "0.0.0.0:18090" {
		t.Errorf("docker compose port: %s", out)
	}
	c.compose("exec", "-T", "web", "/standin", "check")
	c.compose("stop", "db")
	if ps := c.compose("ps", "--all", "--format", "{{.Service}} {{.State}}"); !strings.Contains(ps, "db exited") {
		t.Errorf("docker compose stop did not stop db:\n%s", ps)
	}
}

// logged follows docker compose logs until a line has both texts.
func (c *case_) logged(texts ...string) bool {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, plugin, "logs", "--follow", "--no-color")
	cmd.Dir, cmd.Env = c.dir, []string{"DOCKER_HOST=" + host, "HOME=" + base}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	found := false
	lines := bufio.NewScanner(out)
	for !found && lines.Scan() {
		found = !slices.ContainsFunc(texts, func(s string) bool { return !strings.Contains(lines.Text(), s) })
	}
	cancel()
	cmd.Wait() // its end is ours
	return found
}

// TestNewer holds the list of keys that this docker compose does not know: it
// refuses each, and we decide each by the specification.
func TestNewer(t *testing.T) {
	shown := map[string]string{
		"jobs":                             "jobs: {a: {image: x}}",
		"services.*.build.no_cache_filter": "services: {a: {build: {context: ., no_cache_filter: [x]}}}",
		"services.*.networks.*.use_service_name_alias": "services: {a: {image: x, networks: {n: {use_service_name_alias: true}}}}\nnetworks: {n: {}}",
		"services.*.pre_start":                         "services: {a: {image: x, pre_start: [{command: [y]}]}}",
		"services.*.umask":                             "services: {a: {image: x, umask: \"0022\"}}",
	}
	for _, key := range stack.Newer {
		text, ok := shown[key]
		if !ok {
			t.Errorf("%s has no example", key)
			continue
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte("name: newer\n"+text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(plugin, "config")
		cmd.Dir, cmd.Env = dir, []string{"HOME=" + base}
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "not allowed") {
			t.Errorf("docker compose knows %s: %v\n%s", key, err, out)
		}
	}
}
