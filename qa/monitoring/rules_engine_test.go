// SPDX-License-Identifier: Apache-2.0

//go:build engine

package monitoring

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/qa/monitoring/prom"
)

const pack = "../../monitoring/rules"

func tools(t *testing.T) prom.Tools {
	t.Helper()
	found, err := prom.Find()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func ruleFiles(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(pack, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %v", pattern, files, err)
	}
	return files
}

func TestPromtoolAcceptsTheRules(t *testing.T) {
	out, err := tools(t).Promtool(t.Context(), nil, append([]string{"check", "rules", "--lint=all", "--lint-fatal"}, ruleFiles(t, "*.yaml")...)...)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(out, "SUCCESS") != len(ruleFiles(t, "*.yaml")) {
		t.Error(out)
	}
}

// Each alert fires where it shall and keeps quiet where it must.
func TestPromtoolTestsOfTheRules(t *testing.T) {
	out, err := tools(t).Promtool(t.Context(), nil, append([]string{"test", "rules"}, ruleFiles(t, "tests/*.yaml")...)...)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out, "FAILED") {
		t.Error(out)
	}
}
