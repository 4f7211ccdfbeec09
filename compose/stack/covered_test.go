// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// shortForms are keys that the cases write in their short form, and keys that
// say nothing to an engine.
var shortForms = map[string]string{
	"include.[].path":       "include: [FILE]",
	"services.*.pre_start":  "docker compose does not know it: qa/fidelity TestInitContainers",
	"version":               "says nothing",
	"configs.*.environment": "docker compose copies it as it does content",
	"services.*.networks.*.use_service_name_alias": "docker compose does not know it",
}

// TestEveryHonouredKeyIsHeldAgainstCompose finds each key that is honoured in
// a case that qa/fidelity holds against docker compose.
func TestEveryHonouredKeyIsHeldAgainstCompose(t *testing.T) {
	files, err := filepath.Glob("../../qa/fidelity/testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	seen := map[string]bool{}
	var walk func(v any, path []string)
	walk = func(v any, path []string) {
		seen[pattern(path)] = true
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				walk(e, append(slices.Clone(path), k))
			}
		case []any:
			for _, e := range v {
				walk(e, append(slices.Clone(path), "0"))
			}
		}
	}
	files = append(files, "../../qa/fidelity/testdata/files/base.yaml", "../../qa/fidelity/testdata/files/part/part.yaml")
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := yaml.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		walk(v, nil)
	}
	for _, s := range SupportTable() {
		if _, ok := shortForms[s.Key]; ok || s.State == "no" || seen[s.Key] {
			continue
		}
		if slices.ContainsFunc(rules[s.Key].ok, func(v string) bool { return v == "false" }) && !strings.Contains(s.State, "reason") {
			continue // nothing but not having it
		}
		t.Errorf("%s (%s) is in no case", s.Key, s.State)
	}
}
