// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
)

// TestSupportTable keeps the page's table true.
func TestSupportTable(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "partials", "compose-keys.md")
	got := Markdown(SupportTable())
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what the tables say: run go generate ./compose/stack", file)
	}
}

// TestSupportTableIsWhole finds each key of the schema in exactly one row.
func TestSupportTableIsWhole(t *testing.T) {
	rows := map[string]int{}
	for _, s := range SupportTable() {
		rows[s.Key] = s.Below
		if s.State == "no" && (s.Why == "" || s.Instead == "") {
			t.Errorf("%s is refused without a reason or a way out", s.Key)
		}
	}
	covered := 0
	for key, below := range rows {
		n := 0
		for _, p := range schema.AttributePaths() {
			if strings.HasPrefix(string(p), key+".") {
				n++
			}
		}
		if below > 0 && n != below {
			t.Errorf("%s covers %d keys and says %d", key, n, below)
		}
		covered += 1 + below
	}
	steps := 0
	for _, p := range schema.AttributePaths() {
		key := string(p)
		if _, ok := rows[key]; ok {
			continue
		}
		if slices.ContainsFunc(slices.Collect(func(yield func(string) bool) {
			for k, below := range rows {
				if below > 0 && !yield(k) {
					return
				}
			}
		}), func(k string) bool { return strings.HasPrefix(key, k+".") }) {
			continue
		}
		if _, ok := support(key); ok && !strings.HasSuffix(key, ".*") {
			t.Errorf("%s is in no row", key)
		}
		steps++
	}
	if covered+steps != len(schema.AttributePaths()) {
		t.Errorf("%d rows and %d steps for %d keys", covered, steps, len(schema.AttributePaths()))
	}
	for k := range differently {
		if _, ok := rows[k]; !ok {
			t.Errorf("%s is said to be honoured differently and has no row", k)
		}
		if _, ok := rules[k]; ok && k != "include" {
			t.Errorf("%s has a rule and a difference: the table shows only one", k)
		}
	}
}
