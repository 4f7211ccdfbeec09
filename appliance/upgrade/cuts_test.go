// SPDX-License-Identifier: Apache-2.0

package upgrade_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/holdfast/holdfast/appliance/upgrade"
	"github.com/holdfast/holdfast/appliance/upgrade/upgradetest"
)

type ask func(context.Context, *upgrade.Machine) error

func upgradeTo(version string) ask {
	return func(ctx context.Context, m *upgrade.Machine) error {
		_, err := m.Upgrade(ctx, upgrade.Ask{Version: version, Force: true})
		return err
	}
}

func rollback(keep bool) ask {
	return func(ctx context.Context, m *upgrade.Machine) error {
		_, err := m.Rollback(ctx, upgrade.Back{KeepData: keep})
		return err
	}
}

func drill(ctx context.Context, m *upgrade.Machine) error {
	_, err := m.Drill(ctx, "")
	return err
}

// way is one row of the table: how a box gets to where it starts, what it is
// asked for, and how that ends when nothing is cut.
type way struct {
	name   string
	before []ask
	act    ask
	// old and new are the releases of before and after; new is also the end
	// without a cut unless it fails.
	old, new string
	fails    bool
	// schema of the data by release; users' writes are kept on the way back
	// to the old one, and lost in a rollback without --keep-data.
	loses bool
}

func ways() []way {
	up := upgradeTo("1.1.0")
	return []way{
		{name: "upgrade of the system", act: up, old: "1.0.0", new: "1.1.0"},
		{name: "upgrade of the system, a kept one in the way", before: []ask{up}, act: upgradeTo("1.2.0"), old: "1.1.0", new: "1.2.0"},
		{name: "upgrade of the system, never healthy", act: upgradeTo("1.1.1"), old: "1.0.0", new: "1.1.1", fails: true},
		{name: "upgrade of the system, kernel panics", act: upgradeTo("1.1.2"), old: "1.0.0", new: "1.1.2", fails: true},
		{name: "upgrade of the system, hangs", act: upgradeTo("1.1.3"), old: "1.0.0", new: "1.1.3", fails: true},
		{name: "upgrade of the system, data do not mount", act: upgradeTo("1.1.4"), old: "1.0.0", new: "1.1.4", fails: true},
		{name: "upgrade of the stack", act: upgradeTo("1.0.1"), old: "1.0.0", new: "1.0.1"},
		{name: "upgrade of the stack, never healthy", act: upgradeTo("1.0.2"), old: "1.0.0", new: "1.0.2", fails: true},
		{name: "rollback by hand", before: []ask{up}, act: rollback(false), old: "1.1.0", new: "1.0.0", loses: true},
		{name: "rollback by hand, data kept", before: []ask{up}, act: rollback(true), old: "1.1.0", new: "1.0.0"},
		{name: "rollback by hand of the stack", before: []ask{upgradeTo("1.0.1")}, act: rollback(false), old: "1.0.1", new: "1.0.0", loses: true},
		{name: "drill", before: []ask{up}, act: drill, old: "1.1.0", new: "1.1.0"},
		{name: "drill of the stack", act: drill, old: "1.0.0", new: "1.0.0"},
	}
}

// world is a box with all the releases that rows name.
func world() *upgradetest.World {
	w := upgradetest.New()
	w.Add("1.0.1", "one", upgradetest.Good)
	w.Add("1.0.2", "one", upgradetest.Sick)
	w.Add("1.1.0", "two", upgradetest.Good)
	w.Add("1.1.1", "two b", upgradetest.Sick)
	w.Add("1.1.2", "two c", upgradetest.Panics)
	w.Add("1.1.3", "two d", upgradetest.Hangs)
	w.Add("1.1.4", "two e", upgradetest.NoData)
	w.Add("1.2.0", "three", upgradetest.Good)
	w.Add("1.9.0", "nine", upgradetest.Good)
	for _, v := range []string{"1.0.1", "1.1.0", "1.2.0"} {
		r := w.Source[v]
		r.Readable = "1.0.0"
		w.Source[v] = r
	}
	return w
}

// start is a world at the begin of a row.
func (r way) start(t *testing.T) *upgradetest.World {
	w := world()
	for _, b := range r.before {
		if err := w.Play(b); err != nil {
			t.Fatal(err)
		}
	}
	w.Places = nil
	if !strings.HasPrefix(r.name, "upgrade") {
		w.Back = 1
	}
	return w
}

// end judges a world that rests: old or new, in all its parts.
func (r way) end(w *upgradetest.World) (outcome string, wrong []string) {
	wrong = w.Check()
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	committed := strings.TrimPrefix(w.Committed(), "demo ")
	outcome = committed
	if committed != r.old && (committed != r.new || r.fails) {
		bad("%s is committed, neither old nor new", committed)
	}
	data := w.Data()
	wantSchema := committed
	if strings.Contains(r.name, "data kept") {
		wantSchema = r.old
	}
	if data.Schema != wantSchema {
		bad("the data are of %s, and %s is committed", data.Schema, committed)
	}
	if !r.loses || committed == r.old {
		if !slices.Equal(data.Writes, w.Acked()) {
			bad("users were told of %d writes, and the data have %d", len(w.Acked()), len(data.Writes))
		}
	}
	return outcome, wrong
}

// Every row ends as it says when nothing is cut.
func TestWays(t *testing.T) {
	for _, r := range ways() {
		t.Run(r.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := r.start(t)
				if err := w.Play(r.act); err != nil {
					t.Fatal(err)
				}
				outcome, wrong := r.end(w)
				want := r.new
				if r.fails {
					want = r.old
				}
				if outcome != want || len(wrong) > 0 {
					t.Errorf("ends with %s, want %s; wrong: %s", outcome, want, strings.Join(wrong, "; "))
				}
				row := w.Last()
				if result := map[bool]string{true: upgrade.RolledBack, false: upgrade.Committed}[r.fails]; !strings.HasPrefix(r.name, "drill") && row.Result != result ||
					strings.HasPrefix(r.name, "drill") && row.Result != upgrade.Passed {
					t.Errorf("the history says %+v", row)
				}
				if q := w.Record().Quarantined; r.fails != (len(q) == 1) {
					t.Errorf("quarantined are %v", q)
				}
			})
		})
	}
}

// The daemon is killed at every place of every row and started again in the
// same boot: it ends the same way.
func TestKills(t *testing.T) {
	for _, r := range ways() {
		t.Run(r.name, func(t *testing.T) {
			places, histogram := 0, map[string]int{}
			for cut := 0; cut <= places; cut++ {
				synctest.Test(t, func(t *testing.T) {
					if cut == 0 {
						places = r.places(t)
						return
					}
					w := r.start(t)
					w.Kill = true
					r.cut(t, w, cut, false, histogram)
				})
			}
			t.Logf("%d places; %s", places, told(histogram))
		})
	}
}

// places is how many a row has.
func (r way) places(t *testing.T) int {
	w := r.start(t)
	if err := w.Play(r.act); err != nil {
		t.Fatal(err)
	}
	return len(w.Places)
}

func told(histogram map[string]int) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(histogram)) {
		out = append(out, fmt.Sprintf("%s: %d", k, histogram[k]))
	}
	return strings.Join(out, ", ")
}

// The power is cut at every place of every row, and for every other one once
// more at some place after that: the box ends with the old generation or the new one, for system, stack
// and data together, and the next upgrade works.
func TestPowerCuts(t *testing.T) {
	for _, r := range ways() {
		t.Run(r.name, func(t *testing.T) {
			places, histogram := 0, map[string]int{}
			synctest.Test(t, func(t *testing.T) { places = r.places(t) })
			cuts := 0
			for cut := 1; cut <= places; cut++ {
				for _, second := range []bool{false, true}[:1+(cut+1)%2] {
					synctest.Test(t, func(t *testing.T) { r.cut(t, r.start(t), cut, second, histogram) })
					cuts++
				}
			}
			t.Logf("%d places, %d runs; %s", places, cuts, told(histogram))
		})
	}
}

func (r way) cut(t *testing.T, w *upgradetest.World, cut int, second bool, histogram map[string]int) {
	w.CutAt = cut
	again, err := w.PlayBoot(r.act)
	for n := 0; again && err == nil; n++ {
		if n > 12 {
			t.Fatalf("cut %d: no rest", cut)
		}
		if second && len(w.Places) >= cut && w.CutAt == cut {
			w.CutAt = len(w.Places) + 1 + rand.New(rand.NewPCG(uint64(cut), 7)).IntN(40)
		}
		again, err = w.PlayBoot(nil)
	}
	where := w.Places[cut-1]
	if err != nil {
		t.Fatalf("cut %d, %s (again: %v): %v", cut, where, second, err)
	}
	w.CutAt = 0
	outcome, wrong := r.end(w)
	if len(wrong) > 0 {
		t.Errorf("cut %d, %s (again: %v): ends with %s; wrong: %s", cut, where, second, outcome, strings.Join(wrong, "; "))
		return
	}
	switch outcome {
	case r.old:
		histogram["old "+r.old]++
	default:
		histogram["new "+r.new]++
	}
	w.Back = 0
	if err := w.Play(upgradeTo("1.9.0")); err != nil {
		t.Fatalf("cut %d, %s: the next upgrade: %v", cut, where, err)
	}
	if wrong := w.Check(); w.Committed() != "demo 1.9.0" || len(wrong) > 0 {
		t.Errorf("cut %d, %s: after the next upgrade %s: %s", cut, where, w.Committed(), strings.Join(wrong, "; "))
	}
}
