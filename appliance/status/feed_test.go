// SPDX-License-Identifier: Apache-2.0

package status

import "testing"

func TestFeedTellsOfEachChange(t *testing.T) {
	f := NewFeed(Report{Stack: "starting"})
	r, changed := f.Get()
	if r.Stack != "starting" {
		t.Errorf("stack %q", r.Stack)
	}
	select {
	case <-changed:
		t.Error("changed before there was a change")
	default:
	}
	f.Update(func(r *Report) { r.Stack = "healthy" })
	<-changed
	r, changed = f.Get()
	if r.Stack != "healthy" {
		t.Errorf("stack %q", r.Stack)
	}
	f.Update(func(*Report) {})
	<-changed
}

func TestSortConditions(t *testing.T) {
	in := []Condition{{Code: "b", Severity: "warning"}, {Code: "z", Severity: "critical"}, {Code: "a", Severity: "warning"}, {Code: "i", Severity: "info"}}
	got := SortConditions(in)
	for i, want := range []string{"z", "a", "b", "i"} {
		if got[i].Code != want {
			t.Errorf("%d: %s, want %s", i, got[i].Code, want)
		}
	}
	if in[0].Code != "b" {
		t.Error("the caller's slice was sorted")
	}
}
