// SPDX-License-Identifier: Apache-2.0

//go:build engine

package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// compose is docker compose itself: the judge of our labels and names.
func (b *box) compose(args ...string) string {
	b.t.Helper()
	plugin := filepath.Join(os.Getenv("HOLDFAST_TOOLS"), "usr/libexec/docker/cli-plugins/docker-compose")
	if _, err := os.Stat(plugin); err != nil {
		if plugin, err = exec.LookPath("docker-compose"); err != nil {
			b.t.Fatal("docker compose is missing: add Debian 13's docker-compose to the tree HOLDFAST_TOOLS names, or put docker-compose 2 on the PATH")
		}
	}
	c := exec.Command(plugin, args...)
	c.Env = append(os.Environ(), "DOCKER_HOST="+b.dock.host)
	out, err := c.CombinedOutput()
	if err != nil {
		b.t.Fatalf("docker compose %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestDockerComposeSeesTheStack(t *testing.T) {
	b := fourBox(t)
	b.start()
	b.healthy()
	ps := b.compose("-p", b.project, "ps", "--all", "--format", "{{.Name}} {{.Service}} {{.State}} {{.Health}}")
	for _, want := range []string{" db running healthy", " web running healthy", " edge running healthy", " migrate exited"} {
		name := b.project + "-" + strings.Fields(want)[0] + "-1"
		if !strings.Contains(ps, name+want) {
			t.Errorf("docker compose ps lacks %q:\n%s", name+want, ps)
		}
	}
	if ls := b.compose("ls", "--all", "--filter", "name="+b.project); !strings.Contains(ls, filepath.Join(b.dir, "stack", "compose.yaml")) {
		t.Errorf("docker compose ls:\n%s", ls)
	}
	if out := b.compose("-p", b.project, "logs", "web"); !strings.Contains(out, "web-1") {
		t.Errorf("docker compose logs:\n%s", out)
	}
	if top := b.compose("-p", b.project, "top", "db"); !strings.Contains(top, "/standin serve") {
		t.Errorf("docker compose top:\n%s", top)
	}
}
