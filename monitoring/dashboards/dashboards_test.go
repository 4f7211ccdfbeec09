// SPDX-License-Identifier: Apache-2.0

package dashboards

import (
	"encoding/json"
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the JSON files anew")

func TestFiles(t *testing.T) {
	for _, d := range All() {
		path := d.UID + ".json"
		if *update {
			if err := os.WriteFile(path, d.JSON(), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(b) != string(d.JSON()) {
			t.Errorf("%s is not what the code gives: run go generate ./monitoring/dashboards", path)
		}
	}
}

// grafana is what Grafana's dashboard schema asks of the fields in use.
type grafana struct {
	UID           string
	Title         string
	SchemaVersion int
	Templating    struct {
		List []struct{ Name, Type string }
	}
	Panels []struct {
		ID          int
		Type, Title string
		Repeat      string
		GridPos     struct{ X, Y, W, H int }
		Datasource  struct{ Type, UID string }
		Targets     []struct{ RefID, Expr, LegendFormat string }
		FieldConfig struct {
			Defaults struct {
				Unit       string
				Thresholds struct {
					Mode  string
					Steps []struct {
						Color string
						Value *float64
					}
				}
			}
		}
	}
}

var units = []string{"", "short", "percentunit", "bytes", "Bps", "s"}

func TestShape(t *testing.T) {
	for _, d := range All() {
		var g grafana
		if err := json.Unmarshal(d.JSON(), &g); err != nil {
			t.Fatal(err)
		}
		if g.UID != d.UID || len(g.UID) > 40 || g.Title == "" || g.SchemaVersion < 36 || g.Templating.List[0].Type != "datasource" {
			t.Errorf("%s: head %+v", d.UID, g)
		}
		ids := map[int]bool{}
		taken := map[[2]int]string{}
		for _, p := range g.Panels {
			if p.ID == 0 || ids[p.ID] {
				t.Errorf("%s: panel %q has id %d again", d.UID, p.Title, p.ID)
			}
			ids[p.ID] = true
			pos := p.GridPos
			if pos.X < 0 || pos.W < 1 || pos.X+pos.W > 24 || pos.H < 1 {
				t.Errorf("%s: panel %q lies at %+v", d.UID, p.Title, pos)
			}
			for x := range pos.W {
				for y := range pos.H {
					at := [2]int{pos.X + x, pos.Y + y}
					if taken[at] != "" {
						t.Fatalf("%s: %q lies on %q", d.UID, p.Title, taken[at])
					}
					taken[at] = p.Title
				}
			}
			if p.Type == "row" {
				continue
			}
			if p.Datasource.UID != "${ds}" || len(p.Targets) == 0 || !slices.Contains(units, p.FieldConfig.Defaults.Unit) {
				t.Errorf("%s: panel %q: %+v", d.UID, p.Title, p)
			}
			if s := p.FieldConfig.Defaults.Thresholds.Steps; s[0].Value != nil || !slices.IsSortedFunc(s[1:], func(a, b struct {
				Color string
				Value *float64
			}) int {
				return int(100 * (*a.Value - *b.Value))
			}) {
				t.Errorf("%s: panel %q: thresholds %+v", d.UID, p.Title, s)
			}
			for i, q := range p.Targets {
				if q.RefID != ref(i) || strings.Count(q.Expr, "(") != strings.Count(q.Expr, ")") {
					t.Errorf("%s: panel %q: query %+v", d.UID, p.Title, q)
				}
			}
		}
	}
}

// known maps each metric of the exporter to its labels, as its reference says.
func known(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("../../docs/partials/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{"process_cpu_seconds_total": nil}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z]+) \\| ([a-z_, ]*) \\|").FindAllStringSubmatch(string(b), -1) {
		labels := strings.FieldsFunc(m[3], func(r rune) bool { return r == ',' || r == ' ' })
		name := m[1]
		if m[2] == "histogram" {
			name += "_bucket"
		}
		all[name] = labels
	}
	if len(all) < 40 {
		t.Fatalf("the reference has %d metrics", len(all))
	}
	return all
}

var (
	metric = regexp.MustCompile(`\b((?:holdfast|process|container)_[a-z_]+)\b`)
	inCurl = regexp.MustCompile(`\{\{ *([a-z_]+) *\}\}`)
	braces = regexp.MustCompile(`\{[^}]*\}`)
)

func TestEveryMetricIsExported(t *testing.T) {
	metrics := known(t)
	for _, d := range All() {
		for _, r := range d.Rows {
			for _, p := range r.Panels {
				if p.Description == "" || !strings.HasSuffix(p.Description, ".") && !strings.HasSuffix(p.Description, ")") {
					t.Errorf("%s: %q: description %q", d.UID, p.Title, p.Description)
				}
				for _, q := range p.Queries {
					labels := []string{"instance", "job"}
					for _, m := range metric.FindAllStringSubmatch(braces.ReplaceAllString(q.Expr, ""), -1) {
						l, ok := metrics[m[1]]
						if !ok {
							t.Errorf("%s: %q asks for %s, which nothing exports", d.UID, p.Title, m[1])
						}
						labels = append(labels, l...)
					}
					for _, m := range inCurl.FindAllStringSubmatch(q.Legend, -1) {
						if !slices.Contains(labels, m[1]) {
							t.Errorf("%s: %q shows the label %s, which its metrics lack", d.UID, p.Title, m[1])
						}
					}
				}
			}
		}
	}
}
