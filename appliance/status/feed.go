// SPDX-License-Identifier: Apache-2.0

package status

import (
	"cmp"
	"slices"
	"sync"
)

// Feed holds the newest Report and tells readers when it changes.
type Feed struct {
	mu      sync.Mutex
	report  Report
	changed chan struct{}
}

// NewFeed starts a feed with a first report.
func NewFeed(r Report) *Feed { return &Feed{report: r, changed: make(chan struct{})} }

// Get returns the newest report and a channel that is closed once there is a
// newer one. The report's slices must not be changed.
func (f *Feed) Get() (Report, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.report, f.changed
}

// Update changes the report under the feed's lock. edit must replace slices,
// not change them: readers hold the old ones.
func (f *Feed) Update(edit func(*Report)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	edit(&f.report)
	close(f.changed)
	f.changed = make(chan struct{})
}

// UpdateIf is Update for an edit that may find nothing to change: it then
// returns false and nobody is woken.
func (f *Feed) UpdateIf(edit func(*Report) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !edit(&f.report) {
		return
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// Refresh is Update for an edit that as a rule changes nothing: watchers are
// woken only when it changed whether the root is verified.
func (f *Feed) Refresh(edit func(*Report)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.report.Root
	edit(&f.report)
	if f.report.Root != before {
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// Severities, most severe first.
var severities = []string{"critical", "warning", "info"}

// SortConditions orders conditions as a Report shows them: the most severe
// first, then by code and text.
func SortConditions(c []Condition) []Condition {
	out := slices.Clone(c)
	slices.SortFunc(out, func(a, b Condition) int {
		return cmp.Or(
			cmp.Compare(slices.Index(severities, a.Severity), slices.Index(severities, b.Severity)),
			cmp.Compare(a.Code, b.Code), cmp.Compare(a.Text, b.Text))
	})
	return out
}
