// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/compose/stack"
)

// FuzzTranslate feeds bytes as a Compose file. What the stack's check lets
// through is translated, or the error names the service; each container is
// labelled as the project's, is restarted by nobody but us, and has a log cap.
func FuzzTranslate(f *testing.F) {
	f.Add(everything)
	files, _ := filepath.Glob("../../qa/fidelity/testdata/*.yaml")
	for _, name := range files {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(strings.ReplaceAll(string(b), "holdfast.test/standin:1.0.0", "x.test/a:1"))
		}
	}
	dir := f.TempDir()
	for _, name := range []string{"conf.ini", "web.env"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("A=b\n"), 0o644); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		st, err := stack.Load(t.Context(), dir, stack.Options{Digests: map[string]string{"x.test/a:1": zeros, "x.test/b:1": zeros}})
		if err != nil {
			return
		}
		secrets := map[string]string{}
		for _, s := range st.Secrets {
			secrets[s.Name] = "/data/secrets/" + s.Name
		}
		b := &budget.Budget{}
		for _, name := range st.Services {
			b.Services = append(b.Services, budget.Service{Name: name, Limit: budget.Amount{CPU: 1, Memory: 8 << 20, Pids: 10}, CPUWeight: 100})
		}
		d, err := Translate(st.Project, st.Services, Options{FilesDir: "/files", SecretFiles: secrets, Budget: b, Extensions: st.Extensions})
		if err != nil {
			if !strings.Contains(err.Error(), "service ") && !strings.Contains(err.Error(), "network ") {
				t.Errorf("the error names nothing: %v", err)
			}
			return
		}
		if len(d.Services) != len(st.Services) {
			t.Errorf("%d of %d services", len(d.Services), len(st.Services))
		}
		for _, s := range d.Services {
			for _, c := range append([]engine.Spec{s.Spec}, s.Hooks.PreStart...) {
				l := c.Host.LogConfig
				switch {
				case c.Config.Labels[engine.ProjectLabel] != st.Name || c.Config.Labels[engine.ServiceLabel] != s.Name:
					t.Errorf("%s: labels %v", c.Name, c.Config.Labels)
				case c.Host.RestartPolicy.Name != "no":
					t.Errorf("%s: restart policy %s", c.Name, c.Host.RestartPolicy.Name)
				case (l.Type == "json-file" || l.Type == "local") && (l.Config["max-size"] == "" || l.Config["max-file"] == ""):
					t.Errorf("%s: no log cap", c.Name)
				case !strings.Contains(c.Config.Image, "@sha256:"):
					t.Errorf("%s: image %s", c.Name, c.Config.Image)
				case c.Host.Memory != 8<<20:
					t.Errorf("%s: memory %d is not its budget", c.Name, c.Host.Memory)
				}
			}
		}
	})
}
