// SPDX-License-Identifier: Apache-2.0

package exporter

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/holdfast/holdfast/appliance/status"
)

//go:generate go test -run TestReference -update .

var update = flag.Bool("update", false, "write golden files and the reference anew")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s is not what the code gives; go test -update writes it\n%s", path, firstDifference(string(want), got))
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		var a, b string
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\nwant %s\ngot  %s", i+1, a, b)
		}
	}
	return ""
}

// scrape returns what one scrape of the box's own metrics gives.
func scrape(t testing.TB, c Config) string {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(c))
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestScrape(t *testing.T) {
	c := config(sample())
	golden(t, "testdata/scrape.txt", scrape(t, c))
	c.ContainerNames = true
	var names []string
	for line := range strings.Lines(scrape(t, c)) {
		if strings.HasPrefix(line, "container_") {
			names = append(names, line)
		}
	}
	golden(t, "testdata/container-names.txt", strings.Join(names, ""))
}

func TestReference(t *testing.T) {
	golden(t, "../../docs/partials/metrics.md", Reference())
}

// What promtool check metrics complains of.
func TestLint(t *testing.T) {
	c := config(sample())
	c.ContainerNames = true
	problems, err := testutil.GatherAndLint(registry(c))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// maxPerService is the contract: with all there is, container names and two
// volumes of its own, a service has at most so many series.
const maxPerService = 60

func TestCardinality(t *testing.T) {
	const n = 10
	c := config(many(n, 2))
	c.ContainerNames = true
	per := map[string]int{}
	all := 0
	for line := range strings.Lines(scrape(t, c)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		all++
		for i := range n {
			for _, label := range []string{`service="service-%d"`, `name="shop-service-%d-1"`, `volume="volume-%d-0"`, `volume="volume-%d-1"`} {
				if strings.Contains(line, fmt.Sprintf(label, i)) {
					per[fmt.Sprintf("service-%d", i)]++
				}
			}
		}
	}
	for name, count := range per {
		if count > maxPerService {
			t.Errorf("%s has %d series, more than %d", name, count, maxPerService)
		}
	}
	t.Logf("a service has %d series, the box %d besides", per["service-0"], all-n*per["service-0"])
}

// A report that nobody should make must not cost the others their metrics.
func TestOddReports(t *testing.T) {
	r, u := sample()
	r.Services = append(r.Services, r.Services[0], status.Service{Name: "\xff\"\n", State: "made up", Health: "made up", RestartsBy: map[string]int{"a": 1, "b": 2}},
		status.Service{Name: strings.Repeat("x", 300)}, status.Service{Name: strings.Repeat("x", 301), Container: "c1", ContainerName: "shop-db-1"})
	u.Services = append(u.Services, u.Services[0], status.ServiceUsage{Service: strings.Repeat("x", 301), Container: "c1", Volumes: u.Services[0].Volumes})
	u.Node.Disks = append(u.Node.Disks, u.Node.Disks...)
	for i := range 100 {
		r.Conditions = append(r.Conditions, status.Condition{Code: fmt.Sprint("code-", i), Severity: "info"})
	}
	c := config(r, u)
	c.ContainerNames = true
	got := scrape(t, c)
	for _, want := range []string{
		`holdfast_service_state{service="?\"\n",state="unknown"} 1`,
		`holdfast_service_restarts_total{reason="other",service="?\"\n"} 3`,
		`holdfast_conditions{code="other",severity="warning"} 42`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

func TestUsageThatCannotBeRead(t *testing.T) {
	c := config(sample())
	calls := 0
	c.Usage = func(ctx context.Context) (status.Usage, error) {
		calls++
		if _, ok := ctx.Deadline(); !ok {
			t.Error("no deadline")
		}
		return status.Usage{}, errors.New("no cgroup")
	}
	got := scrape(t, c)
	for _, want := range []string{"holdfast_scrape_usage_success 0\n", `holdfast_service_state{service="db",state="running"} 1`, `holdfast_service_memory_limit_bytes{service="db"} 4.294967296e+09`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, not := range []string{"holdfast_service_cpu_seconds_total", "holdfast_node_cpus"} {
		if strings.Contains(got, not) {
			t.Errorf("%s is there", not)
		}
	}
	if calls != 1 {
		t.Errorf("%d calls", calls)
	}
	// What could be read is shown.
	_, u := sample()
	var lines []string
	c.Log = func(l string) { lines = append(lines, l) }
	c.Usage = func(context.Context) (status.Usage, error) { return u, errors.New("one file") }
	got = scrape(t, c)
	for _, want := range []string{"holdfast_scrape_usage_success 0\n", "holdfast_service_cpu_seconds_total", "holdfast_node_cpus 4"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s", want)
		}
	}
	if len(lines) != 1 || !strings.Contains(lines[0], "one file") {
		t.Errorf("journal %q", lines)
	}
	c.Usage, c.Work = nil, nil
	if got := scrape(t, c); !strings.Contains(got, "holdfast_scrape_usage_success 0\n") {
		t.Error(got)
	}
}

// Off the box a budget is watched, and what a volume holds may be unknown.
func TestVolumesWithoutQuota(t *testing.T) {
	r, u := sample()
	r.Services[0].Budget.Volumes = []status.VolumeBudget{{Name: "pgdata", Bytes: 1 << 30}, {Name: "gone", Bytes: 1}}
	u.Services[0].Volumes = []status.DiskUsage{{Name: "pgdata", Used: 1 << 20}, {Name: "new", Unknown: true}}
	got := scrape(t, config(r, u))
	for _, want := range []string{`holdfast_volume_used_bytes{volume="pgdata"} 1.048576e+06`, `holdfast_volume_limit_bytes{enforced="false",volume="pgdata"} 1.073741824e+09`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, not := range []string{`volume="new"`, `volume="gone"`} {
		if strings.Contains(got, not) {
			t.Errorf("%s is there", not)
		}
	}
}

// Several scrapers at once cost one reading.
func TestReadingsAreShared(t *testing.T) {
	now, calls := noon, 0
	c := config(sample())
	c.Now = func() time.Time { return now }
	c.Usage = func(context.Context) (status.Usage, error) { calls++; return status.Usage{}, nil }
	k := newCollector(c)
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, 1}, {fresh / 2, 1}, {fresh, 2}, {-time.Hour, 3}} { // a clock set back asks anew
		now = now.Add(step.after)
		k.read(now)
		if calls != step.want {
			t.Errorf("after %v: %d readings, want %d", step.after, calls, step.want)
		}
	}
}

func TestEngineFromConditions(t *testing.T) {
	r, u := sample()
	r.Engine = nil
	if got := scrape(t, config(r, u)); !strings.Contains(got, "holdfast_engine_up 1\n") {
		t.Error("up is not said")
	}
	r.Conditions = []status.Condition{{Code: "engine-unreachable", Severity: "critical"}}
	if got := scrape(t, config(r, u)); !strings.Contains(got, "holdfast_engine_up 0\n") {
		t.Error("down is not said")
	}
}

func FuzzScrape(f *testing.F) {
	f.Add("db", "running", "unhealthy", "exit", "shop-db-1", "code")
	f.Add("\xff", "", "", "\x00", "{}\"", "a\nb")
	f.Fuzz(func(t *testing.T, name, state, health, reason, container, code string) {
		r, u := sample()
		r.Services[0].Name, r.Services[1].Name = name, name+"x"
		r.Services[1].State, r.Services[1].Health, r.Services[1].RestartsBy = state, health, map[string]int{reason: 1}
		r.Services[0].ContainerName, r.Services[1].ContainerName = container, container
		r.Services[1].Container = container
		r.Conditions = append(r.Conditions, status.Condition{Code: code, Severity: state})
		u.Services[0].Service = name
		u.Services = append(u.Services, status.ServiceUsage{Service: name + "x", Container: container, Volumes: []status.DiskUsage{{Name: code}, {Name: code}}})
		c := config(r, u)
		c.ContainerNames = true
		scrape(t, c)
	})
}

func BenchmarkScrape50(b *testing.B) {
	c := config(many(50, 1))
	c.ContainerNames = true
	h := New(c)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		if w.Code != 200 {
			b.Fatal(w.Body.String())
		}
	}
}
