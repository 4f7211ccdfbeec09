// SPDX-License-Identifier: Apache-2.0

package sourcegraph

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/holdfast/holdfast/compose/stack"
)

const (
	ourDir    = "../../compose/stacks/sourcegraph/6.1.2889"
	publicDir = "testdata/public"
)

func load(t *testing.T, dir string) *stack.Stack {
	t.Helper()
	st, err := stack.Load(t.Context(), dir, stack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// replaced are the services of the public deployment that the box itself
// stands in for.
var replaced = []string{"cadvisor", "node-exporter"}

// TestFollowsThePublicDeployment: every service but the replaced ones is
// there with the same image, name, order, data and health check.
func TestFollowsThePublicDeployment(t *testing.T) {
	ours, public := load(t, ourDir), load(t, publicDir)
	if n := len(public.Services); n != 26 {
		t.Errorf("the public deployment has %d services, want 26", n)
	}
	want := slices.DeleteFunc(slices.Sorted(slices.Values(public.Services)), func(s string) bool { return slices.Contains(replaced, s) })
	if got := slices.Sorted(slices.Values(ours.Services)); !slices.Equal(got, want) {
		t.Fatalf("services are\n %v, want\n %v", got, want)
	}
	for _, name := range want {
		a, b := ours.Project.Services[name], public.Project.Services[name]
		if a.Image != b.Image {
			t.Errorf("%s: image %s, want %s", name, a.Image, b.Image)
		}
		if !strings.Contains(a.Image, "@sha256:") {
			t.Errorf("%s: image %s is not pinned", name, a.Image)
		}
		if a.ContainerName != name || a.Restart != b.Restart || !slices.Equal(a.Command, b.Command) && name != "otel-collector" {
			t.Errorf("%s: name %q, restart %q, command %q", name, a.ContainerName, a.Restart, a.Command)
		}
		if len(a.Networks) != 1 || a.ShmSize != b.ShmSize {
			t.Errorf("%s: networks %v, shm_size %d, want %d", name, a.Networks, a.ShmSize, b.ShmSize)
		}
		if got, want := conditions(a), conditions(b); !maps.Equal(got, want) {
			t.Errorf("%s: depends on %v, want %v", name, got, want)
		}
		if got, want := data(a), data(b); !slices.Equal(got, want) {
			t.Errorf("%s: volumes %q, want %q", name, got, want)
		}
		health(t, name, a.HealthCheck, b.HealthCheck)
	}
}

func conditions(s types.ServiceConfig) map[string]string {
	out := map[string]string{}
	for name, d := range s.DependsOn {
		out[name] = d.Condition
	}
	return out
}

func data(s types.ServiceConfig) (out []string) {
	for _, v := range s.Volumes {
		if v.Type == types.VolumeTypeVolume {
			out = append(out, v.Source+":"+v.Target)
		}
	}
	return out
}

// health holds a check to the public one: it asks the same at the same pace.
// Only start_interval may be added.
func health(t *testing.T, name string, a, b *types.HealthCheckConfig) {
	t.Helper()
	if (a == nil) != (b == nil) {
		t.Errorf("%s: health check %v, the public one is %v", name, a, b)
	}
	if a == nil || b == nil {
		return
	}
	asked := func(h *types.HealthCheckConfig) string {
		for _, w := range strings.Fields(strings.Join(h.Test, " ")) {
			if strings.HasPrefix(w, "http") || strings.HasPrefix(w, "/liveness") {
				return w
			}
		}
		return strings.Join(h.Test, " ")
	}
	if asked(a) != asked(b) {
		t.Errorf("%s: asks for %s, want %s", name, asked(a), asked(b))
	}
	dur := func(d *types.Duration) types.Duration {
		if d == nil {
			return 0
		}
		return *d
	}
	if dur(a.Interval) != dur(b.Interval) || dur(a.Timeout) != dur(b.Timeout) || dur(a.StartPeriod) != dur(b.StartPeriod) || *a.Retries != *b.Retries {
		t.Errorf("%s: health check %v, want the pace of %v", name, a, b)
	}
}

// TestEveryServiceIsWatched: a service has a health check or a probe of ours,
// but for the one-shot, whose exit code is all there is to know.
func TestEveryServiceIsWatched(t *testing.T) {
	st := load(t, ourDir)
	checks, probes := 0, 0
	for _, name := range st.Services {
		own, check := len(st.Extensions[name].Probes) > 0, st.Project.Services[name].HealthCheck != nil
		switch {
		case own && check:
			t.Errorf("%s has a health check and a probe: one is enough", name)
		case own:
			probes++
		case check:
			checks++
		case name != "migrator":
			t.Errorf("%s has neither a health check nor a probe", name)
		}
	}
	if checks != 11 || probes != 12 {
		t.Errorf("%d health checks and %d probes, want 11 and 12", checks, probes)
	}
}

// TestClasses: what holds data or answers users is critical, what only
// watches is the first to go.
func TestClasses(t *testing.T) {
	st := load(t, ourDir)
	for class, names := range map[stack.Class][]string{
		stack.Critical: {"caddy", "codeinsights-db", "codeintel-db", "gitserver-0", "migrator", "pgsql", "redis-store",
			"sourcegraph-frontend-0", "sourcegraph-frontend-internal"},
		stack.BestEffort: {"codeinsights-db-exporter", "codeintel-db-exporter", "grafana", "otel-collector", "pgsql-exporter",
			"syntactic-code-intel-worker"},
	} {
		var got []string
		for name, e := range st.Extensions {
			if e.Class == class {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, names) {
			t.Errorf("%s are %v, want %v", class, got, names)
		}
	}
}

// TestVolumesHaveBudgets: one service that fills its disk takes nobody's.
func TestVolumesHaveBudgets(t *testing.T) {
	st := load(t, ourDir)
	var sum int64
	for name := range st.Project.Volumes {
		if st.VolumeBudgets[name] == 0 {
			t.Errorf("the volume %s has no disk budget", name)
		}
		sum += st.VolumeBudgets[name]
	}
	if want := int64(355 << 30); sum != want {
		t.Errorf("disk budgets are %d bytes, want %d", sum, want)
	}
}

// TestNothingReachesTheBox: what the public deployment gives cadvisor and
// node-exporter, no service of ours has.
func TestNothingReachesTheBox(t *testing.T) {
	st := load(t, ourDir)
	for name, s := range st.Project.Services {
		if s.Privileged || s.Pid != "" || len(s.Devices) > 0 || len(st.Extensions[name].Allow) > 0 {
			t.Errorf("%s reaches the box", name)
		}
		for _, v := range s.Volumes {
			if rel, err := filepath.Rel(st.Dir, v.Source); v.Type == types.VolumeTypeBind && (!v.ReadOnly || err != nil || !filepath.IsLocal(rel)) {
				t.Errorf("%s mounts %s", name, v.Source)
			}
		}
	}
	if s := st.Project.Services["caddy"].Environment["SRC_SITE_ADDRESS"]; s == nil || *s != ":80" {
		t.Errorf("caddy's address is %v, want :80", s)
	}
}
