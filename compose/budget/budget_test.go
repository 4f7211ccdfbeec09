// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/compose/stack"
)

var update = flag.Bool("update", false, "write the expected tables of testdata")

func load(t *testing.T, path string) *stack.Stack {
	t.Helper()
	st, err := stack.Load(context.Background(), path, stack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// written loads a Compose file from its text.
func written(t *testing.T, text string) *stack.Stack {
	t.Helper()
	path := filepath.Join(t.TempDir(), "compose.yaml")
	if err := os.WriteFile(path, []byte("name: demo\n"+text), 0o644); err != nil {
		t.Fatal(err)
	}
	return load(t, path)
}

// golden compares a text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
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
	if got != string(want) {
		t.Errorf("got:\n%s\nwant (%s, -update writes it):\n%s", got, path, want)
	}
}

// TestDemoFitsXS on the machine that XS is, and on the least one a box needs.
func TestDemoFitsXS(t *testing.T) {
	st := load(t, "../stacks/demo/1.0.0/compose.yaml")
	b, err := For(st, "XS", Sizes()[0].Node())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "demo-xs.txt", b.Table())
	if b, err = For(st, "", Node{CPUs: 2, Memory: seen(2 * gib), Data: 4 * gib}); err != nil || b.Size != "XS" {
		t.Errorf("on 2 GiB: %v %v", b, err)
	}
	if sizes, err := Prove(st); err != nil || len(sizes) != len(Sizes()) {
		t.Errorf("made for %v, %v", sizes, err)
	}
}

// TestSourcegraphFitsItsSizes: all that the stack names are proven, XS on a
// machine of 32 GiB among them.
func TestSourcegraphFitsItsSizes(t *testing.T) {
	stacks, err := filepath.Glob("../stacks/sourcegraph/*/compose.yaml")
	if err != nil || len(stacks) == 0 {
		t.Fatal("no stack", err)
	}
	for _, path := range stacks {
		st := load(t, path)
		sizes, err := Prove(st)
		if err != nil || len(sizes) != len(stack.ProfileNames) {
			t.Errorf("%s: made for %+v, %v", path, sizes, err)
		}
		if b, err := For(st, "", Node{CPUs: 8, Memory: 32 * gib}); err != nil || b.Size != "XS" {
			t.Errorf("%s: on 8 cpus and 32 GiB: %v", path, err)
		}
	}
}

// TestPublicFileIsRefused: 151.6 GiB of limits and no reservation do not fit
// 32 GiB, and the table shows whose they are.
func TestPublicFileIsRefused(t *testing.T) {
	st := load(t, "testdata/public/compose.yaml")
	if len(st.Services) != 26 {
		t.Fatalf("%d services, want 26", len(st.Services))
	}
	_, err := For(st, "XS", Node{CPUs: 8, Memory: 32 * gib, Data: 500 * gib})
	var no *Refused
	if !errors.As(err, &no) {
		t.Fatalf("error %v, want *Refused", err)
	}
	if limits := no.Budget.limits(); limits.CPU != 69.3 || SizeText(limits.Memory) != "151.6 GiB" {
		t.Errorf("limits %v cpus, %s", limits.CPU, SizeText(limits.Memory))
	}
	golden(t, "public-xs.txt", err.Error())
	// What the remedy says is true.
	cpus, memory := no.least()
	if _, err := For(st, "XS", Node{CPUs: float64(cpus), Memory: memory}); err != nil {
		t.Errorf("on the machine it asks for: %v", err)
	}
	if _, err := For(st, "XS", Node{CPUs: float64(cpus), Memory: memory - gib}); err == nil {
		t.Error("it fits a smaller machine than it asks for")
	}
}

// TestReserveInDocs holds the table of docs/budgets.md to the code.
func TestReserveInDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/budgets.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []struct {
		cpus   float64
		memory int64
	}{{2, 2}, {2, 4}, {4, 16}, {8, 32}, {32, 128}, {96, 384}} {
		r := Reserve(Node{CPUs: m.cpus, Memory: m.memory * gib}, 4)
		want := fmt.Sprintf("| %v cpus, %d GiB | %s | %s |\n", m.cpus, m.memory, SizeText(r.Memory), cpuText(r.CPU))
		if !strings.Contains(string(doc), want) {
			t.Errorf("docs/budgets.md has no line %q", want)
		}
	}
	table, err := os.ReadFile("testdata/demo-xs.txt")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), string(table)) {
		t.Error("docs/budgets.md does not have the table of testdata/demo-xs.txt")
	}
}
