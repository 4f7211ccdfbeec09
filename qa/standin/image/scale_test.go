// SPDX-License-Identifier: Apache-2.0

package image

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/compose/stack"
)

// TestScale: the scaled copy is the same stack, a sixteenth of it, and fits a
// sixteenth of the machine.
func TestScale(t *testing.T) {
	const of = "../../../compose/stacks/sourcegraph/6.1.2889"
	dir := filepath.Join(t.TempDir(), "stack")
	if err := os.CopyFS(dir, os.DirFS(of)); err != nil {
		t.Fatal(err)
	}
	s := Scale{Memory: 16, CPU: 4, Disk: 1024, Size: "XS", Environment: map[string]map[string]string{"worker": {"STANDIN_DO": "oom"}}}
	if err := s.Apply(filepath.Join(dir, "compose.yaml")); err != nil {
		t.Fatal(err)
	}
	was, err := stack.Load(t.Context(), of, stack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := stack.Load(t.Context(), dir, stack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Services, was.Services) {
		t.Errorf("services are %v, want %v", got.Services, was.Services)
	}
	a, b := got.Project.Services["gitserver-0"], was.Project.Services["gitserver-0"]
	if x, y := a.Deploy.Resources, b.Deploy.Resources; x.Limits.MemoryBytes != y.Limits.MemoryBytes/16 ||
		x.Reservations.MemoryBytes != y.Reservations.MemoryBytes/16 || x.Limits.NanoCPUs != y.Limits.NanoCPUs/4 {
		t.Errorf("gitserver has %+v %+v, was %+v %+v", x.Limits, x.Reservations, y.Limits, y.Reservations)
	}
	if n := got.Project.Services["pgsql-exporter"].Deploy.Resources.Limits.MemoryBytes; n != leastLimit {
		t.Errorf("an exporter has %d bytes, want the least, %d", n, leastLimit)
	}
	if got, want := got.Project.Services["caddy"].Ports, was.Project.Services["caddy"].Ports; len(got) != len(want) || got[0].Published != want[0].Published {
		t.Errorf("ports are %+v, want %+v", got, want)
	}
	env := got.Project.Services["worker"].Environment
	if v := env["STANDIN_DO"]; v == nil || *v != "oom" || len(env) != len(was.Project.Services["worker"].Environment)+1 {
		t.Errorf("worker's environment is %v", env)
	}
	if n, want := got.VolumeBudgets["gitserver-0"], was.VolumeBudgets["gitserver-0"]/1024; n != want {
		t.Errorf("gitserver's volume has %d bytes, want %d", n, want)
	}
	if p := got.Profiles; len(p) != 1 || p[0].CPUs != 2 || p[0].Memory != 2<<30 {
		t.Errorf("sizes are %+v", p)
	}
	if _, err := budget.For(got, "", budget.Node{CPUs: 2, Memory: 24 << 30}); err != nil {
		t.Error(err)
	}
	// A size that is not there is none.
	if err := (Scale{Size: "S"}).Apply(filepath.Join(dir, "compose.yaml")); err != nil {
		t.Fatal(err)
	}
	if got, err = stack.Load(t.Context(), dir, stack.Options{}); err != nil || len(got.Profiles) != 0 {
		t.Errorf("without a size: %v", err)
	}
}
