// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// look is one line of a gate's script: what is seen at a second.
type look struct {
	at      int
	health  string // of web
	stack   string // "" for what follows from health
	restart int
	slow    time.Duration
	want    string // "open", "passed", or the failing condition
}

func (l look) reading() Reading {
	svc := status.Service{Name: "web", State: "running", Health: l.health, Restarts: l.restart}
	r := status.Report{Generation: 2, Stack: l.stack, Services: []status.Service{svc, {Name: "migrate", State: "completed", OneShot: true}}}
	if r.Stack == "" {
		if r.Stack = "starting"; l.health == "healthy" {
			r.Stack = "healthy"
		}
	}
	out := Reading{At: time.Duration(l.at) * time.Second, Report: r}
	if l.slow > 0 {
		out.Latency = map[string]time.Duration{"web": l.slow}
	}
	return out
}

func TestGate(t *testing.T) {
	for name, c := range map[string]struct {
		patient bool
		before  time.Duration
		looks   []look
	}{
		"passes after the window": {looks: []look{
			{at: 20, health: "starting", want: "open"}, {at: 30, health: "healthy", want: "open"},
			{at: 39, health: "healthy", want: "open"}, {at: 40, health: "healthy", want: "passed"}}},
		"a break begins the window anew": {looks: []look{
			{at: 30, health: "healthy", want: "open"}, {at: 35, health: "unhealthy", want: "open"}, {at: 36, health: "healthy", want: "open"},
			{at: 44, health: "healthy", want: "open"}, {at: 46, health: "healthy", want: "passed"}}},
		"so does a restart that nobody saw": {looks: []look{
			{at: 30, health: "healthy", restart: 1, want: "open"}, {at: 39, health: "healthy", restart: 2, want: "open"},
			{at: 41, health: "healthy", restart: 2, want: "open"}, {at: 49, health: "healthy", restart: 2, want: "open"}, {at: 51, health: "healthy", restart: 2, want: "passed"}}},
		"fails at the deadline": {looks: []look{
			{at: 99, health: "unhealthy", want: "open"}, {at: 100, health: "unhealthy", restart: 3, want: "service web is running and unhealthy, restarted 3 times, at the deadline"}}},
		"healthy for too short at the deadline": {looks: []look{
			{at: 95, health: "healthy", want: "open"}, {at: 100, health: "healthy", want: "all services were healthy, but not yet for 10s, at the deadline"}}},
		"the window may end at the deadline": {looks: []look{
			{at: 90, health: "healthy", want: "open"}, {at: 100, health: "healthy", want: "passed"}}},
		"held fails after a minute": {looks: []look{
			{at: 5, stack: "held", want: "open"}, {at: 60, stack: "held", want: "open"}, {at: 65, stack: "held", want: "nothing of the stack was started"}}},
		"held for a moment does not": {looks: []look{
			{at: 5, stack: "held", want: "open"}, {at: 20, health: "starting", want: "open"}, {at: 66, stack: "held", want: "open"}}},
		"slower than before": {before: 400 * time.Millisecond, looks: []look{
			{at: 10, health: "healthy", slow: 2 * time.Second, want: "open"}, {at: 20, health: "healthy", slow: 2 * time.Second, want: "open"},
			{at: 100, health: "healthy", slow: 2 * time.Second, want: "service web answers its probes in 2s where it took 400ms before, at the deadline"}}},
		"slow at first": {before: 400 * time.Millisecond, looks: []look{
			{at: 10, health: "healthy", slow: 2 * time.Second, want: "open"}, {at: 25, health: "healthy", slow: 2 * time.Second, want: "open"},
			{at: 26, health: "healthy", slow: time.Second, want: "passed"}}},
		"once within the window is enough": {before: 400 * time.Millisecond, looks: []look{
			{at: 10, health: "healthy", slow: time.Second, want: "open"}, {at: 19, health: "healthy", slow: 9 * time.Second, want: "open"}, {at: 20, health: "healthy", slow: time.Second, want: "passed"}}},
		"three times as slow is fine below a second": {before: 10 * time.Millisecond, looks: []look{
			{at: 10, health: "healthy", slow: 900 * time.Millisecond, want: "open"}, {at: 20, health: "healthy", slow: 900 * time.Millisecond, want: "passed"}}},
		"what was not measured is not slower": {before: 10 * time.Millisecond, looks: []look{
			{at: 10, health: "healthy", want: "open"}, {at: 20, health: "healthy", want: "passed"}}},
		"a rollback never fails": {patient: true, looks: []look{
			{at: 100, health: "unhealthy", want: "open"}, {at: 5000, health: "unhealthy", want: "open"}, {at: 5001, health: "healthy", want: "open"}, {at: 5011, health: "healthy", want: "passed"}}},
	} {
		t.Run(name, func(t *testing.T) {
			g := Gate{Window: 10 * time.Second, Deadline: 100 * time.Second, Generation: 2, Patient: c.patient}
			if c.before > 0 {
				g.Baseline.Services = map[string]Before{"web": {Healthy: true, Latency: c.before}}
			}
			for _, l := range c.looks {
				r := l.reading()
				v := g.Look(r)
				got := "open"
				switch {
				case v.Passed && v.Failed:
					t.Fatalf("at %d both: %+v", l.at, v)
				case v.Passed:
					got = "passed"
				case v.Failed:
					got = v.Why
				case v.Next <= r.At:
					t.Errorf("at %d the next look is at %s", l.at, v.Next)
				}
				if got != l.want && (!v.Failed || !strings.HasPrefix(got, l.want)) {
					t.Fatalf("at %d: %q, want %q", l.at, got, l.want)
				}
				if c.patient && v.Late != (l.at >= 100 && !v.Passed) {
					t.Errorf("at %d late is %v", l.at, v.Late)
				}
			}
		})
	}
}

// Another generation's report, or one with services left out, passes nothing.
func TestGateLooksAtTheRightThing(t *testing.T) {
	for name, edit := range map[string]func(*status.Report){
		"generation": func(r *status.Report) { r.Generation = 1 },
		"none":       func(r *status.Report) { r.Services, r.Stack = nil, "starting" },
		"probe": func(r *status.Report) {
			r.Services[0].Probes = []status.Probe{{Kind: "http", Health: "unhealthy", Output: "502"}}
		},
		"waiting": func(r *status.Report) { r.Services[1].State = "waiting" },
		"stack":   func(r *status.Report) { r.Stack = "degraded" },
	} {
		g := Gate{Window: time.Second, Deadline: 100 * time.Second, Generation: 2}
		for at := 10; at < 90; at += 10 {
			r := look{at: at, health: "healthy"}.reading()
			edit(&r.Report)
			if v := g.Look(r); v.Passed || v.Why == "" {
				t.Errorf("%s: %+v", name, v)
			}
		}
	}
}

func TestBaseline(t *testing.T) {
	r := look{health: "healthy", restart: 2}.reading().Report
	b := BaselineOf(r, map[string]time.Duration{"web": time.Second})
	if w := b.Services["web"]; w != (Before{true, 2, time.Second}) {
		t.Errorf("web was %+v", w)
	}
	if !b.Services["migrate"].Healthy {
		t.Error("what is completed is well")
	}
}
