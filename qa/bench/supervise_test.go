// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"
)

func TestFigures(t *testing.T) {
	good := &superviseResult{
		compose: []time.Duration{10 * time.Second}, ours: []time.Duration{9 * time.Second}, crashCPU: 0.01, crashCalls: 2.5,
		reactions: []time.Duration{4 * time.Millisecond, 90 * time.Millisecond, 5 * time.Millisecond}, steadyCPU: 0.004, rss: 30 << 20,
		scrapes: []time.Duration{time.Millisecond}, bytes: 20 << 20,
	}
	if good.missed() || strings.Contains(good.markdown(true), "missed") {
		t.Error(good.markdown(true))
	}
	for name, spoil := range map[string]func(*superviseResult){
		"nothing measured": func(r *superviseResult) { r.ours, r.compose = nil, nil },
		"slower":           func(r *superviseResult) { r.ours[0] = 11 * time.Second },
		"large":            func(r *superviseResult) { r.bytes = 26 << 20 },
		"busy":             func(r *superviseResult) { r.steadyCPU = 0.006 },
	} {
		bad := *good
		bad.ours = []time.Duration{9 * time.Second}
		spoil(&bad)
		if !bad.missed() || strings.Count(bad.markdown(true), "**missed**") != 1 {
			t.Errorf("%s: %s", name, bad.markdown(true))
		}
	}
}
