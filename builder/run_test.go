// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// heard collects what a bake says.
type heard struct {
	mu   sync.Mutex
	done []string
}

func (h *heard) Say(string, ...any)  {}
func (h *heard) Warn(string, ...any) {}
func (h *heard) Done(s StepTime) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = append(h.done, s.Name)
}

func TestPlanPrints(t *testing.T) {
	const want = `packages
tools <- packages
images
rootfs <- tools
initrd <- tools
seal <- rootfs
uki <- seal, initrd
factory <- seal, images
sbom <- images
disk <- uki, factory
release <- uki, images, sbom
`
	if got := printPlan(plan()); got != want {
		t.Errorf("plan:\n%s", got)
	}
	// Each step waits for steps that are in the plan, and before it.
	seen := map[string]bool{}
	for _, s := range plan() {
		for _, n := range s.needs {
			if !seen[n] {
				t.Errorf("%s waits for %s, which is not before it", s.name, n)
			}
		}
		seen[s.name] = true
	}
}

func TestRunStepsOrder(t *testing.T) {
	var mu sync.Mutex
	var order []string
	mk := func(name string, needs ...string) step {
		return step{name, needs, func(context.Context, *work) (made, error) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
			return made{bytes: 7}, nil
		}}
	}
	h := &heard{}
	times, err := runSteps(context.Background(), []step{mk("a"), mk("b", "a"), mk("c", "b")}, &work{}, h)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order, ""); got != "abc" || len(h.done) != 3 {
		t.Errorf("ran %s, told %v", got, h.done)
	}
	if times[2].Name != "c" || times[2].Bytes != 7 {
		t.Errorf("times are not in plan order: %v", times)
	}
}

func TestRunStepsFirstErrorStopsTheRest(t *testing.T) {
	boom := errors.New("boom")
	ran := false
	started, stopped := make(chan struct{}), make(chan struct{})
	_, err := runSteps(context.Background(), []step{
		{"bad", nil, func(context.Context, *work) (made, error) {
			<-started
			return made{}, boom
		}},
		{"beside", nil, func(ctx context.Context, _ *work) (made, error) {
			close(started)
			<-ctx.Done()
			close(stopped)
			return made{}, ctx.Err()
		}},
		{"after", []string{"bad"}, func(context.Context, *work) (made, error) { ran = true; return made{}, nil }},
	}, &work{}, &heard{})
	<-stopped
	if !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), "bad: ") || ran {
		t.Errorf("err %v, ran %v", err, ran)
	}
}

func TestProductIsWholeOrNotThere(t *testing.T) {
	cache := t.TempDir()
	ctx := context.Background()
	boom := errors.New("boom")
	if _, _, err := product(ctx, cache, "k", "1", func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "half"), nil, 0o644); err != nil {
			return err
		}
		return boom
	}); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	// What a killed bake left does not stand in the way.
	if err := os.MkdirAll(filepath.Join(cache, "k", ".making-other"), 0o755); err != nil {
		t.Fatal(err)
	}
	dir, cached, err := product(ctx, cache, "k", "1", func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "whole"), []byte("x"), 0o644)
	})
	if err != nil || cached {
		t.Fatal(cached, err)
	}
	if _, cached, err = product(ctx, cache, "k", "1", func(string) error { return boom }); err != nil || !cached {
		t.Fatal(cached, err)
	}
	names, err := filepath.Glob(filepath.Join(cache, "k", ".*"))
	if err != nil || len(names) != 1 || filepath.Base(names[0]) != ".lock" {
		t.Errorf("left behind: %v %v", names, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "whole")); err != nil {
		t.Error(err)
	}
}

func TestSwap(t *testing.T) {
	top := t.TempDir()
	final := filepath.Join(top, "demo-1.0.0")
	for _, content := range []string{"old", "new"} {
		tmp := filepath.Join(top, ".baking")
		if err := os.Mkdir(tmp, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tmp, "f"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := swap(tmp, final); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(final, "f")); err != nil || string(b) != content {
			t.Errorf("%s: %q %v", content, b, err)
		}
		if _, err := os.Stat(tmp); !os.IsNotExist(err) {
			t.Errorf("%s: the temporary folder is still there", content)
		}
	}
}

func TestDifference(t *testing.T) {
	if d := difference([]string{"a", "b"}, []string{"b", "c"}); d != "lacks a, has c too many" {
		t.Error(d)
	}
	if d := difference(wanted([]string{"b", "a"}, []string{"a"}), []string{"a", "b"}); d != "" {
		t.Error(d)
	}
}
