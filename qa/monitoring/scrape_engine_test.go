// SPDX-License-Identifier: Apache-2.0

//go:build engine

package monitoring

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/exporter"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/monitoring/dashboards"
	"github.com/holdfast/holdfast/qa/monitoring/prom"
	"github.com/holdfast/holdfast/qa/monitoring/sim"
)

// serve runs an exporter until the test ends and returns its address.
func serve(t *testing.T, c exporter.Config) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	address, done := make(chan string, 1), make(chan struct{})
	c.Listen = "127.0.0.1:0"
	c.Listening = func(a net.Addr) { address <- a.String() }
	go func() {
		defer close(done)
		exporter.Run(ctx, c, func(bad *status.Condition) {
			if bad != nil {
				t.Errorf("%s", bad.Text)
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	select {
	case a := <-address:
		return a
	case <-time.After(time.Minute):
		t.Fatal("waited a minute for the exporter to listen")
		return ""
	}
}

// scraping starts a Prometheus that has all rules and scrapes the address
// every second, and waits until it has two scrapes, which a rate needs.
func scraping(t *testing.T, address string) *prom.Server {
	t.Helper()
	rules, err := filepath.Abs(pack)
	if err != nil {
		t.Fatal(err)
	}
	s, err := tools(t).Start(t.Context(), t.TempDir(), fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: holdfast
    static_configs: [{targets: [%q]}]
`, filepath.Join(rules, "*.yaml"), address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	err = s.Until(t.Context(), "three scrapes", func() error {
		found, err := s.Query(t.Context(), `count_over_time(up{job="holdfast"}[1m]) >= 3 and up == 1`, time.Now())
		if err == nil && len(found) == 0 {
			var targets any
			s.API(t.Context(), "targets", url.Values{}, &targets)
			err = fmt.Errorf("targets %v", targets)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type ruleGroups struct {
	Groups []struct {
		Name  string
		Rules []struct{ Name, Query, Health, LastError, Type string }
	}
}

// rules returns the loaded rules once each was evaluated.
func rules(t *testing.T, s *prom.Server) ruleGroups {
	t.Helper()
	var g ruleGroups
	err := s.Until(t.Context(), "all rules to be evaluated", func() error {
		g = ruleGroups{}
		if err := s.API(t.Context(), "rules", url.Values{}, &g); err != nil {
			return err
		}
		for _, group := range g.Groups {
			for _, r := range group.Rules {
				if r.Health != "ok" {
					return fmt.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func check(t *testing.T, s *prom.Server, address string) {
	t.Helper()
	alerts, records := 0, 0
	for _, g := range rules(t, s).Groups {
		for _, r := range g.Rules {
			if r.Type == "alerting" {
				alerts++
				continue
			}
			records++
			found, err := s.Query(t.Context(), r.Query, time.Now())
			if err != nil || len(found) == 0 {
				t.Errorf("%s = %s gives %d series, %v", r.Name, r.Query, len(found), err)
			}
		}
	}
	if alerts < 35 || records < 8 {
		t.Errorf("%d alerts and %d recording rules are loaded", alerts, records)
	}
	clean(t, address)
}

// clean runs `promtool check metrics` on a scrape.
func clean(t *testing.T, address string) {
	t.Helper()
	res, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	out, err := tools(t).Promtool(t.Context(), strings.NewReader(string(text)), "check", "metrics")
	if err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// panels asks every query of every dashboard; without data is one only where
// that means that all is well, or where it asks for metrics whose names begin
// with one of lacks: what runs there has none of them.
func panels(t *testing.T, s *prom.Server, instance string, lacks ...string) {
	t.Helper()
	lacking := func(expr string) bool {
		return slices.ContainsFunc(lacks, func(l string) bool { return strings.Contains(expr, l) })
	}
	now := time.Now()
	asked := 0
	for _, d := range dashboards.All() {
		for _, r := range d.Rows {
			for _, p := range r.Panels {
				for _, q := range p.Queries {
					expr := strings.NewReplacer("$instance", instance, "$service", ".*").Replace(q.Expr)
					found, err := s.Query(t.Context(), expr, now)
					if err != nil {
						t.Errorf("%s: %s: %v", d.UID, p.Title, err)
					} else if len(found) == 0 && !q.Faults && !lacking(expr) {
						t.Errorf("%s: %s: no data for %s", d.UID, p.Title, expr)
					}
					asked++
				}
			}
		}
	}
	t.Logf("%d queries of dashboards asked", asked)
}

// A box in trouble: every query gives data, and what is wrong is what fires.
func TestPrometheusScrapesABoxInTrouble(t *testing.T) {
	// Ten minutes of trouble are told in seconds: the box's own clock starts
	// in the middle of a crash loop.
	box := sim.Box{Start: time.Now().Add(-7 * time.Hour), Hours: 20}
	address := serve(t, box.Config(time.Now))
	s := scraping(t, address)
	check(t, s, address)
	panels(t, s, address)

	// What Sourcegraph's rules and dashboards ask of cAdvisor.
	for _, expr := range []string{
		`avg by (name) (rate(container_cpu_usage_seconds_total[1m])) / (avg by (name) (container_spec_cpu_quota) / avg by (name) (container_spec_cpu_period))`,
		`max by (name) (container_memory_working_set_bytes / container_spec_memory_limit_bytes)`,
		`max by (name) (container_oom_events_total)`,
		`count by (name) (container_last_seen{name=~"shop-searcher.*"})`,
		`sum by (name) (rate(container_fs_reads_total[1h]) + rate(container_fs_writes_total[1h]))`,
		`sum by (name) (container_memory_usage_bytes)`,
	} {
		if found, err := s.Query(t.Context(), expr, time.Now()); err != nil || len(found) == 0 {
			t.Errorf("%s gives %d series, %v", expr, len(found), err)
		}
	}

	found, err := s.Query(t.Context(), `max by (n) (label_replace(count by (service) ({service!=""}), "n", "all", "", ""))`, time.Now())
	if err != nil || len(found) != 1 || found[0].Values[0] > 60 {
		t.Errorf("series of the widest service: %v, %v", found, err)
	}
	err = s.Until(t.Context(), "HoldfastServiceCrashLoop to be pending or firing", func() error {
		found, err := s.Query(t.Context(), `ALERTS{alertname="HoldfastServiceCrashLoop", service="mailer"}`, time.Now())
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("no such alert")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for _, quiet := range []string{"HoldfastStackHeld", "HoldfastDown", "HoldfastEngineDown", "HoldfastRootUnverified", "HoldfastClockOff", "HoldfastBudgetRefused"} {
		if found, err := s.Query(t.Context(), `ALERTS{alertname="`+quiet+`"}`, time.Now()); err != nil || len(found) > 0 {
			t.Errorf("%s: %v, %v", quiet, found, err)
		}
	}
}

// Six hours with faults of every kind: queries that give data only while
// something is wrong give it then.
func TestFaultsShowOnTheDashboards(t *testing.T) {
	dir := t.TempDir()
	to := time.Now().Truncate(time.Minute)
	from := to.Add(-6 * time.Hour)
	history, err := os.Create(filepath.Join(dir, "history.om"))
	if err != nil {
		t.Fatal(err)
	}
	defer history.Close()
	if err := (sim.Box{Start: from, Hours: 6}).History(history, from, to, time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := tools(t).Promtool(t.Context(), nil, "tsdb", "create-blocks-from", "openmetrics", history.Name(), filepath.Join(dir, "data")); err != nil {
		t.Fatal(err)
	}
	s, err := tools(t).Start(t.Context(), dir, "scrape_configs: []\n")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	for _, d := range dashboards.All() {
		for _, r := range d.Rows {
			for _, p := range r.Panels {
				for _, q := range p.Queries {
					expr := strings.NewReplacer("$instance", sim.Instance, "$service", ".*").Replace(q.Expr)
					found, err := s.Range(t.Context(), expr, from, to, 5*time.Minute)
					if err != nil || len(found) == 0 {
						t.Errorf("%s: %s: %d series, %v: %s", d.UID, p.Title, len(found), err, expr)
					}
				}
			}
		}
	}
	// What went wrong in the story is what the queries say of it.
	for expr, want := range map[string]float64{
		`sum(increase(holdfast_service_restarts_total{reason="oom"}[6h]))`: 1,
		`max(max_over_time(holdfast_pressure_level[6h]))`:                  2,
		`min(min_over_time(holdfast_engine_up[6h]))`:                       0,
		`max(max_over_time(holdfast_service_failures[6h]))`:                9,
	} {
		found, err := s.Query(t.Context(), expr, to)
		if err != nil || len(found) != 1 || math.Round(found[0].Values[0]) != want {
			t.Errorf("%s = %v, %v, want %v", expr, found, err, want)
		}
	}
}
