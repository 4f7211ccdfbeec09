// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot"
)

var (
	hashA = strings.Repeat("a", 64)
	hashB = strings.Repeat("b", 64)
	hashC = strings.Repeat("c", 64)
)

func recordOf(trial *slot.Trial) slot.Record {
	return slot.Record{Format: 1, Committed: slot.Generation{Number: 2, Slot: "A", RootHash: hashA, Data: "data-2"}, Trial: trial}
}

func trialOf(edit func(*slot.Trial)) *slot.Trial {
	t := slot.Trial{Generation: slot.Generation{Number: 3, Slot: "B", RootHash: hashB, Data: "data-3"}, Kind: slot.Upgrade, Origin: "data-2", Reboot: true, ArmedBoot: "before"}
	if edit != nil {
		edit(&t)
	}
	return &t
}

func stackTrial(edit func(*slot.Trial)) *slot.Trial {
	return trialOf(func(t *slot.Trial) {
		t.Slot, t.RootHash, t.UKI, t.Reboot = "A", hashA, 2, false
		if edit != nil {
			edit(t)
		}
	})
}

var (
	rootA   = slot.Root{Letter: "A", Hash: hashA}
	rootB   = slot.Root{Letter: "B", Hash: hashB}
	ours    = Entry{Number: 2, Left: -1, Done: -1, RootHash: hashA}
	armed   = Entry{Number: 3, Left: 1, RootHash: hashB}
	spent   = Entry{Number: 3, Left: 0, Done: 1, RootHash: hashB}
	blessed = Entry{Number: 3, Left: -1, Done: -1, RootHash: hashB}
)

func TestDecide(t *testing.T) {
	committedB := slot.Record{Format: 1, Committed: slot.Generation{Number: 3, Slot: "B", RootHash: hashB, Data: "data-3"},
		Kept: &slot.Generation{Number: 2, Slot: "A", RootHash: hashA, Data: "data-2"}}
	for name, c := range map[string]struct {
		v    View
		want string
	}{
		"nothing armed":               {View{Record: recordOf(nil), Root: rootA}, "run"},
		"trial runs":                  {View{Record: recordOf(trialOf(nil)), Root: rootB, Entries: []Entry{ours, spent}}, "gate"},
		"armed in this boot":          {View{Record: recordOf(trialOf(func(t *slot.Trial) { t.ArmedBoot = "now" })), Root: rootA, Entries: []Entry{ours}}, "reboot"},
		"never placed":                {View{Record: recordOf(trialOf(nil)), Root: rootA, Entries: []Entry{ours}}, "over cancelled retry"},
		"not chosen":                  {View{Record: recordOf(trialOf(nil)), Root: rootA, Entries: []Entry{ours, armed}}, "over cancelled"},
		"spent, without a word":       {View{Record: recordOf(trialOf(nil)), Root: rootA, Entries: []Entry{ours, spent}}, "over rolled-back blame"},
		"spent, was started":          {View{Record: recordOf(trialOf(func(t *slot.Trial) { t.Starts = 1 })), Root: rootA, Entries: []Entry{ours, spent}}, "over rolled-back blame"},
		"gone, was started":           {View{Record: recordOf(trialOf(func(t *slot.Trial) { t.Starts = 1 })), Root: rootA, Entries: []Entry{ours}}, "over rolled-back blame"},
		"failed":                      {View{Record: recordOf(trialOf(func(t *slot.Trial) { t.Failed = "sick" })), Root: rootA, Entries: []Entry{ours, spent}}, "over rolled-back blame"},
		"taken back":                  {View{Record: recordOf(trialOf(func(t *slot.Trial) { t.Failed = cancelled + "no room" })), Root: rootA, Entries: []Entry{ours, armed}}, "over cancelled"},
		"failed and runs":             {View{Record: recordOf(trialOf(func(t *slot.Trial) { t.Failed, t.Boot = "sick", "now" })), Root: rootB, Entries: []Entry{ours, spent}}, "back"},
		"failed and booted again":     {View{Record: recordOf(trialOf(func(t *slot.Trial) { t.Failed, t.Boot = "sick", "before" })), Root: rootB, Entries: []Entry{ours, armed}}, "back"},
		"failed, booted from nowhere": {View{Record: recordOf(trialOf(func(t *slot.Trial) { t.Failed, t.Boot = "sick", "before" })), Root: rootB, Entries: []Entry{ours}}, "hold"},
		"failed, no way back":         {View{Record: recordOf(trialOf(func(t *slot.Trial) { t.Failed, t.Boot = "sick", "now" })), Root: rootB, Entries: []Entry{spent}}, "hold"},
		"drill has passed":            {View{Record: recordOf(trialOf(func(t *slot.Trial) { t.Kind, t.Failed = slot.Drill, drillPassed })), Root: rootA, Entries: []Entry{ours, spent}}, "over passed"},
		"drill has hung":              {View{Record: recordOf(trialOf(func(t *slot.Trial) { t.Kind = slot.Drill })), Root: rootA, Entries: []Entry{ours, spent}}, "over rolled-back"},
		"rollback that never booted":  {View{Record: recordOf(trialOf(func(t *slot.Trial) { t.Kind = slot.Rollback })), Root: rootA, Entries: []Entry{ours, spent}}, "over rolled-back"},
		"rollback that was cut off":   {View{Record: recordOf(trialOf(func(t *slot.Trial) { t.Kind, t.Starts = slot.Rollback, 1 })), Root: rootA, Entries: []Entry{ours, spent}}, "again"},
		"rollback cut off too often":  {View{Record: recordOf(trialOf(func(t *slot.Trial) { t.Kind, t.Starts = slot.Rollback, 3 })), Root: rootA, Entries: []Entry{ours, spent}}, "over rolled-back"},

		"stack, not begun":             {View{Record: recordOf(stackTrial(func(t *slot.Trial) { t.ArmedBoot = "now" })), Root: rootA, Mounted: "data-2"}, "switch"},
		"stack, half switched":         {View{Record: recordOf(stackTrial(func(t *slot.Trial) { t.Boot, t.Starts = "now", 1 })), Root: rootA}, "switch"},
		"stack, runs":                  {View{Record: recordOf(stackTrial(func(t *slot.Trial) { t.Boot, t.Starts = "now", 1 })), Root: rootA, Mounted: "data-3"}, "gate"},
		"stack, cut before":            {View{Record: recordOf(stackTrial(nil)), Root: rootA, Mounted: "data-2"}, "over cancelled retry"},
		"stack, cut in it":             {View{Record: recordOf(stackTrial(func(t *slot.Trial) { t.Boot, t.Starts = "before", 1 })), Root: rootA, Mounted: "data-2"}, "over rolled-back blame"},
		"stack, starts over":           {View{Record: recordOf(stackTrial(func(t *slot.Trial) { t.Boot, t.Starts, t.Again = "before", 1, true })), Root: rootA, Mounted: "data-2"}, "switch"},
		"stack, failed and runs":       {View{Record: recordOf(stackTrial(func(t *slot.Trial) { t.Boot, t.Failed = "now", "sick" })), Root: rootA, Mounted: "data-3"}, "back"},
		"stack, failed, half way back": {View{Record: recordOf(stackTrial(func(t *slot.Trial) { t.Boot, t.Failed = "now", "sick" })), Root: rootA}, "back"},
		"stack, failed and left":       {View{Record: recordOf(stackTrial(func(t *slot.Trial) { t.Boot, t.Failed = "now", "sick" })), Root: rootA, Mounted: "data-2"}, "over rolled-back blame"},
		"stack, rollback cut off":      {View{Record: recordOf(stackTrial(func(t *slot.Trial) { t.Kind, t.Boot, t.Starts = slot.Rollback, "before", 1 })), Root: rootA, Mounted: "data-2"}, "switch"},

		"committed, not blessed":  {View{Record: committedB, Root: rootA, Entries: []Entry{ours, spent}}, "bless"},
		"committed, both names":   {View{Record: committedB, Root: rootA, Entries: []Entry{ours, spent, blessed}}, "hold"},
		"committed, no image":     {View{Record: committedB, Root: rootA, Entries: []Entry{ours}}, "hold"},
		"another root altogether": {View{Record: recordOf(nil), Root: slot.Root{Letter: "B", Hash: hashC}, Entries: []Entry{ours}}, "hold"},
	} {
		t.Run(name, func(t *testing.T) {
			c.v.BootID = "now"
			d := Decide(c.v)
			got := string(d.Act)
			for _, w := range []struct {
				on   bool
				word string
			}{{d.Result != "", " " + d.Result}, {d.Retry, " retry"}, {d.Blame, " blame"}} {
				if w.on {
					got += w.word
				}
			}
			if got != c.want {
				t.Errorf("%s, want %s (%s)", got, c.want, d.Why)
			}
		})
	}
}

// Every view has an answer, and none gives a foreign root anything to run.
func TestDecideIsTotal(t *testing.T) {
	n := 0
	for _, kind := range []string{slot.Upgrade, slot.Rollback, slot.Drill} {
		for bits := range 1 << 8 {
			on := func(i int) bool { return bits>>i&1 == 1 }
			tr := trialOf(func(t *slot.Trial) {
				t.Kind = kind
				if on(0) {
					t.Failed = "sick"
				}
				if on(1) {
					t.Boot = "now"
				}
				if on(2) {
					t.ArmedBoot = "now"
				}
				if on(3) {
					t.Starts = 1
				}
				t.Again = on(4)
				if on(5) {
					t.Slot, t.RootHash, t.Reboot = "A", hashA, false
				}
			})
			for _, root := range []slot.Root{rootA, rootB, {Letter: "B", Hash: hashC}} {
				for _, e := range [][]Entry{{ours}, {ours, armed}, {ours, spent}, {spent}, nil} {
					for _, mounted := range []string{"", "data-2", "data-3"} {
						n++
						v := View{Record: recordOf(tr), Root: root, BootID: "now", Entries: e, Mounted: mounted}
						d := Decide(v)
						_, _, err := slot.Choose(v.Record, root)
						runs := []Act{ActRun, ActGate, ActSwitch, ActOver}
						if d.Act == "" || err != nil && slices.Contains(runs, d.Act) || d.Act == ActHold && d.Why == "" || d.Act == ActOver && d.Result == "" {
							t.Fatalf("%+v: %+v", v, d)
						}
					}
				}
			}
		}
	}
	t.Logf("%d views", n)
}

func TestPlanESP(t *testing.T) {
	kept := slot.Generation{Number: 1, Slot: "B", RootHash: hashB, Data: "data-1"}
	rec := recordOf(nil)
	withKept := rec
	withKept.Kept = &kept
	one := Entry{Number: 1, Left: -1, Done: -1}
	two := Entry{Number: 2, Left: 0, Done: 1}
	for name, c := range map[string]struct {
		rec  slot.Record
		in   []Entry
		want string
	}{
		"settled":              {withKept, []Entry{ours, {Number: 1, Kept: true, Left: -1}}, "[]"},
		"after a commit":       {withKept, []Entry{one, two}, "[bless 2 keep 1]"},
		"blessed, not moved":   {withKept, []Entry{one, ours}, "[keep 1]"},
		"nothing kept":         {rec, []Entry{ours, {Number: 1, Kept: true, Left: -1}, one}, "[remove 1 remove 1]"},
		"a trial's rest":       {rec, []Entry{ours, spent}, "[remove 3]"},
		"a trial is armed":     {recordOf(trialOf(nil)), []Entry{ours, armed}, "[]"},
		"both names":           {rec, []Entry{two, ours}, "[remove 2]"},
		"only the stack's new": {slot.Record{Committed: slot.Generation{Number: 5, UKI: 2}, Kept: &slot.Generation{Number: 2}}, []Entry{ours}, "[]"},
	} {
		steps, err := PlanESP(c.rec, c.in)
		if got := fmt.Sprint(steps); err != nil || got != c.want {
			t.Errorf("%s: %s, %v, want %s", name, got, err, c.want)
		}
	}
	if steps, err := PlanESP(rec, []Entry{one, spent}); err == nil || len(steps) > 0 {
		t.Errorf("without the committed image: %v, %v", steps, err)
	}
}
