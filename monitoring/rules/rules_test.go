// SPDX-License-Identifier: Apache-2.0

// Package rules holds Prometheus' rules for boxes as YAML files, and tests
// them where no promtool is at hand.
package rules

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Record, Expr string
			For                 string
			Labels, Annotations map[string]string
		}
	}
}

type testFile struct {
	RuleFiles []string `yaml:"rule_files"`
	Tests     []struct {
		Name          string
		AlertRuleTest []struct {
			Alertname string
			ExpAlerts []struct {
				ExpAnnotations map[string]string `yaml:"exp_annotations"`
			} `yaml:"exp_alerts"`
		} `yaml:"alert_rule_test"`
	}
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func files(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %v, %v", pattern, found, err)
	}
	return found
}

const runbook = "https://github.com/holdfast/holdfast/blob/main/docs/alerts.md#"

func TestEveryAlertHasARunbook(t *testing.T) {
	b, err := os.ReadFile("../../docs/alerts.md")
	if err != nil {
		t.Fatal(err)
	}
	docs := string(b)
	sections := regexp.MustCompile(`(?m)^## (\w+)\n\n\*\*(\w+)\.\*\* .+\n\n1\. `).FindAllStringSubmatch(docs, -1)
	severity := map[string]string{}
	for _, s := range sections {
		severity[s[1]] = s[2]
	}
	for _, name := range files(t, "*.yaml") {
		var f ruleFile
		read(t, name, &f)
		for _, r := range f.Groups[0].Rules {
			if r.Alert == "" {
				continue
			}
			if !strings.HasPrefix(r.Alert, "Holdfast") || !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) || len(r.Labels) != 1 {
				t.Errorf("%s: labels %v", r.Alert, r.Labels)
			}
			for _, key := range []string{"summary", "description"} {
				if len(r.Annotations[key]) < 15 {
					t.Errorf("%s has no %s", r.Alert, key)
				}
			}
			if r.Annotations["runbook_url"] != runbook+strings.ToLower(r.Alert) {
				t.Errorf("%s: runbook_url %s", r.Alert, r.Annotations["runbook_url"])
			}
			if severity[r.Alert] != r.Labels["severity"] {
				t.Errorf("%s is %s, and %q in docs/alerts.md, which must have a section with at least one thing to do", r.Alert, r.Labels["severity"], severity[r.Alert])
			}
			if !strings.Contains(docs, "| ["+r.Alert+"](#"+strings.ToLower(r.Alert)+") | "+r.Labels["severity"]+" |") {
				t.Errorf("%s is not in the table of docs/alerts.md", r.Alert)
			}
			delete(severity, r.Alert)
		}
	}
	for left := range severity {
		t.Errorf("docs/alerts.md has %s, and no rule has", left)
	}
}

// Each alert has a test in which it fires and one in which it does not;
// promtool runs them.
func TestEveryAlertHasItsTests(t *testing.T) {
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, name := range files(t, "tests/*.yaml") {
		var f testFile
		read(t, name, &f)
		for _, x := range f.Tests {
			for _, a := range x.AlertRuleTest {
				if len(a.ExpAlerts) == 0 {
					quiet[a.Alertname] = true
				} else if len(a.ExpAlerts[0].ExpAnnotations) == 3 {
					fires[a.Alertname] = true
				}
			}
		}
	}
	for _, name := range files(t, "*.yaml") {
		var f ruleFile
		read(t, name, &f)
		for _, r := range f.Groups[0].Rules {
			if r.Alert != "" && (!fires[r.Alert] || !quiet[r.Alert]) {
				t.Errorf("%s: a test that fires %v, one that does not %v", r.Alert, fires[r.Alert], quiet[r.Alert])
			}
		}
	}
}

var (
	names  = regexp.MustCompile(`\b(?:instance[a-z_]*:)?(?:holdfast|process|scrape)_[a-z_]+(?::[a-z0-9]+)?`)
	braces = regexp.MustCompile(`\{[^}]*\}`)
)

// An alert on a metric that nobody exports never fires.
func TestEveryMetricIsExported(t *testing.T) {
	b, err := os.ReadFile("../../docs/partials/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"process_start_time_seconds": true, "scrape_duration_seconds": true, "holdfast_reconcile_duration_seconds_bucket": true}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)`").FindAllStringSubmatch(string(b), -1) {
		known[m[1]] = true
	}
	all := files(t, "*.yaml")
	for pass := range 2 {
		for _, name := range all {
			var f ruleFile
			read(t, name, &f)
			for _, r := range f.Groups[0].Rules {
				if pass == 0 {
					known[r.Record] = true
					continue
				}
				for _, m := range names.FindAllString(braces.ReplaceAllString(r.Expr, ""), -1) {
					if !known[m] {
						t.Errorf("%s: %s%s asks for %s, which nothing exports", name, r.Alert, r.Record, m)
					}
				}
			}
		}
	}
}
