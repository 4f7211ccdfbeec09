// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/engine/fake"
)

// volume is how an engine names a volume that nobody named.
func volume(digit string) string { return strings.Repeat(digit, 64) }

// made puts a container of a generation into an engine, with an anonymous
// volume, and lets it run.
func made(t *testing.T, e *fake.Engine, project, service, generation, volume string) string {
	t.Helper()
	s := engine.Spec{Name: project + "-" + service + "-" + generation, Config: container.Config{Image: "x", Labels: map[string]string{
		engine.ProjectLabel: project, engine.ServiceLabel: service, labelHash: "hash-" + service, labelGeneration: generation}}}
	s = withVolumes(s, map[string]string{"/data": volume})
	id, err := e.Create(t.Context(), s)
	if err == nil {
		err = e.Start(t.Context(), id)
	}
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func journal(t *testing.T) *Journal {
	t.Helper()
	j, err := OpenJournal(t.TempDir(), "boot")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func past(t *testing.T, j *Journal) map[string]Past {
	t.Helper()
	h, err := j.History()
	if err != nil {
		t.Fatal(err)
	}
	return h.Past
}

// nth is an engine whose n-th removal does not happen: power is lost.
type nth struct {
	*fake.Engine
	left int
}

func (e *nth) Remove(ctx context.Context, id string) error {
	if e.left--; e.left < 0 {
		return context.Canceled
	}
	return e.Engine.Remove(ctx, id)
}

// TestClear: whatever cut it off before, in the end no container of another
// generation is there, also of a stack that had another name, and each
// anonymous volume is handed on.
func TestClear(t *testing.T) {
	for cut := range 4 {
		e, j := fake.New(), journal(t)
		d := demo()
		d.Generation = 2
		made(t, e, "demo", "db", "1", volume("a"))
		made(t, e, "demo", "web", "1", volume("b"))
		made(t, e, "older", "db", "1", volume("c"))
		e.AddForeign(engine.Holder{ID: "f", Name: "somebody", Project: "elsewhere"})
		e.AddForeign(engine.Holder{ID: "g", Name: "older-db", Project: "older"})
		if err := Clear(t.Context(), &nth{e, cut}, d, j, nil, false); (err != nil) != (cut < 3) {
			t.Fatalf("cut %d: %v", cut, err)
		}
		if got := past(t, j)["db"].Inherit["/data"]; got != volume("a") {
			t.Errorf("cut %d: before the first goes, db inherits %q", cut, got)
		}
		if err := Clear(t.Context(), e, d, j, nil, false); err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{"db", "web"} {
			if left := e.All(s); len(left) > 0 {
				t.Errorf("cut %d: left of %s: %+v", cut, s, left)
			}
		}
		p := past(t, j)
		if p["db"].Inherit["/data"] != volume("a") || p["web"].Inherit["/data"] != volume("b") {
			t.Errorf("cut %d: %+v", cut, p)
		}
	}
}

// TestClearKeepsItsOwn: containers of this generation stay, but where a trial
// is started over.
func TestClearKeepsItsOwn(t *testing.T) {
	e, j := fake.New(), journal(t)
	d := demo()
	made(t, e, "demo", "db", "1", volume("a"))
	if err := Clear(t.Context(), e, d, j, nil, false); err != nil || len(e.All("db")) != 1 {
		t.Fatalf("%v %+v", err, e.All("db"))
	}
	if err := Clear(t.Context(), e, d, j, nil, true); err != nil || len(e.All("db")) != 0 {
		t.Fatalf("anew: %v %+v", err, e.All("db"))
	}
}

// TestClearGoesByTheData: what lies beside the data says which one-shots have
// run on it, and which volumes an engine that knows no container shall use.
func TestClearGoesByTheData(t *testing.T) {
	e, j := fake.New(), journal(t)
	d := demo()
	h := NewHistory()
	h.Past["migrate"] = Past{Completed: &Completion{Generation: 2, Hash: "hash-migrate"}, Ended: endDone}
	if err := j.Save(h); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "carried.json")
	was := Carried{Volumes: map[string]map[string]string{"db": {"/data": volume("a")}}, Completed: map[string]Completion{"migrate": {Generation: 1, Hash: "hash-migrate"}}}
	if err := was.Save(path); err != nil {
		t.Fatal(err)
	}
	data, err := LoadCarried(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Clear(t.Context(), e, d, j, data, false); err != nil {
		t.Fatal(err)
	}
	p := past(t, j)
	if c := p["migrate"].Completed; c == nil || c.Generation != 1 || p["db"].Inherit["/data"] != volume("a") {
		t.Errorf("%+v", p)
	}
	// Older data, on which it has not run.
	if err := Clear(t.Context(), e, d, j, &Carried{Format: 1}, false); err != nil {
		t.Fatal(err)
	}
	d.Generation = 3
	if err := Clear(t.Context(), e, d, j, &Carried{Format: 1}, false); err != nil {
		t.Fatal(err)
	}
	if c := past(t, j)["migrate"].Completed; c != nil {
		t.Errorf("it has run: %+v", c)
	}
}

// TestClearAll: nothing of ours is left, something of others is, and only
// volumes without a name are handed on.
func TestClearAll(t *testing.T) {
	e, j := fake.New(), journal(t)
	made(t, e, "demo", "db", "1", volume("a"))
	made(t, e, "demo", "web", "1", "demo_named")
	if err := ClearAll(t.Context(), e, j); err != nil {
		t.Fatal(err)
	}
	if slices.Concat(e.All("db"), e.All("web")) != nil {
		t.Errorf("left: %+v %+v", e.All("db"), e.All("web"))
	}
	p := past(t, j)
	if p["db"].Inherit["/data"] != volume("a") || len(p["web"].Inherit) != 0 {
		t.Errorf("%+v", p)
	}
}

// TestCarriedIsWritten: the supervisor keeps beside the data what belongs to
// them.
func TestCarriedIsWritten(t *testing.T) {
	var kept []Carried
	s := &Supervisor{c: Config{Desired: demo(), Carry: func(c Carried) error { kept = append(kept, c); return nil }}, h: NewHistory()}
	o := Observed{Services: map[string][]engine.Container{"db": {{ID: "1", Labels: map[string]string{labelHash: "hash-db"}, Volumes: map[string]string{"/data": volume("a"), "/n": "demo_data"}}}}}
	s.h.Past["migrate"] = Past{Completed: &Completion{Generation: 1, Hash: "h"}}
	s.carry(o)
	s.carry(o)
	if len(kept) != 1 || len(kept[0].Volumes["db"]) != 1 || kept[0].Volumes["db"]["/data"] != volume("a") || kept[0].Completed["migrate"].Generation != 1 {
		t.Fatalf("%+v", kept)
	}
	// A container that is being replaced does not lose its volumes.
	s.carry(Observed{})
	if len(kept) != 1 {
		t.Errorf("%+v", kept[1:])
	}
}

func FuzzLoadCarried(f *testing.F) {
	f.Add([]byte(`{"format":1,"volumes":{"db":{"/data":"x"}},"completed":{"m":{"generation":1}}}`))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte("[]"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, "c")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := LoadCarried(path)
		if (c == nil) == (err == nil) || c != nil && c.Format != 1 {
			t.Errorf("%+v, %v", c, err)
		}
	})
}
