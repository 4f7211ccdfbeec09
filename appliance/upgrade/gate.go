// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

const (
	// defaultDeadline and defaultWindow are what a release gets that says
	// nothing.
	defaultDeadline = 900 * time.Second
	defaultWindow   = 10 * time.Second
	// heldFor is how long the whole stack must have been held for the gate to
	// fail before its deadline: what holds a stack (its release does not
	// verify, its data do not mount) does not heal by waiting, but a daemon
	// that starts says so for a moment.
	heldFor = time.Minute
	// slowFactor and slowLeast say when a probe is clearly slower: above both
	// the factor times what it took before, and the least.
	slowFactor = 3
	slowLeast  = time.Second
)

// Baseline is how the services were before a switch.
type Baseline struct {
	Services map[string]Before `json:"services,omitempty"`
}

// Before is one service before a switch.
type Before struct {
	// Healthy is true where it was.
	Healthy bool `json:"healthy"`
	// Restarts until then.
	Restarts int `json:"restarts,omitempty"`
	// Latency is the 95th percentile of its probes, 0 where unknown.
	Latency time.Duration `json:"latency,omitempty"`
}

// BaselineOf is the baseline that a report and latencies give.
func BaselineOf(r status.Report, latency map[string]time.Duration) Baseline {
	b := Baseline{Services: map[string]Before{}}
	for _, s := range r.Services {
		b.Services[s.Name] = Before{Healthy: well(s), Restarts: s.Restarts, Latency: latency[s.Name]}
	}
	return b
}

// well says whether a service is as it shall be.
func well(s status.Service) bool {
	switch s.State {
	case "completed":
		return true
	case "running":
	default:
		return false
	}
	if s.Health != "healthy" && s.Health != "none" {
		return false
	}
	return !slices.ContainsFunc(s.Probes, func(p status.Probe) bool { return p.Health != "healthy" })
}

// Reading is what the gate judges: a report and the latencies at one moment.
type Reading struct {
	// At is the uptime.
	At      time.Duration
	Report  status.Report
	Latency map[string]time.Duration
}

// Verdict of the gate.
type Verdict struct {
	// Passed or Failed, neither while it is open.
	Passed, Failed bool
	// Why is the failing condition as one sentence, "" for what has passed;
	// Service the one it names, "" for none.
	Why     string
	Service string
	// Healthy is true while the window of health is under way.
	Healthy bool
	// Late is true past the deadline of a gate that is patient.
	Late bool
	// Next is the uptime at which the verdict may change without another
	// report.
	Next time.Duration
}

// Gate judges a trial. It is pure: a value that is shown one reading after the
// other and asks for nothing.
type Gate struct {
	// Window of unbroken health that passes, Deadline (uptime) that fails.
	Window, Deadline time.Duration
	// Generation that is judged: reports of another are not about it.
	Generation int
	Baseline   Baseline
	// Patient is true for a rollback: it never fails, and passes late. Nobody
	// who asked for it is helped by what he wanted to get away from.
	Patient bool

	since    time.Duration // of unbroken health
	healthy  bool
	held     time.Duration // since when, with isHeld
	isHeld   bool
	restarts map[string]int           // when the window began
	fine     map[string]time.Duration // when a service was last not slow
}

// Look judges one reading. Readings come in the order of time.
func (g *Gate) Look(r Reading) Verdict {
	why, service := g.wrong(r)
	if why != "" {
		g.healthy = false
	} else if !g.healthy {
		g.healthy, g.since = true, r.At
		g.restarts = restartsOf(r.Report)
		g.fine = map[string]time.Duration{}
	}
	slow, slowest := g.slow(r)
	switch {
	case g.healthy && r.At-g.since >= g.Window && slow == "":
		return Verdict{Passed: true, Healthy: true}
	case g.healthy && slow != "":
		why, service = slow, slowest
	}
	if g.Patient {
		next := r.At + time.Minute
		if g.healthy && g.since+g.Window > r.At {
			next = min(next, g.since+g.Window)
		}
		return Verdict{Why: why, Service: service, Healthy: g.healthy, Late: r.At >= g.Deadline, Next: next}
	}
	if g.tooLongHeld(r) {
		return Verdict{Failed: true, Why: "nothing of the stack was started: " + heldWhy(r.Report), Service: service}
	}
	if r.At >= g.Deadline {
		if why == "" {
			why = fmt.Sprintf("all services were healthy, but not yet for %s", g.Window)
		}
		return Verdict{Failed: true, Why: fmt.Sprintf("%s, at the deadline", why), Service: service}
	}
	v := Verdict{Why: why, Service: service, Healthy: g.healthy, Next: g.Deadline}
	if g.healthy {
		next := g.since + g.Window
		for next <= r.At { // it is slow: asked again every second
			next = r.At + time.Second
		}
		v.Next = min(v.Next, next)
	}
	if g.isHeld {
		v.Next = min(v.Next, g.held+heldFor)
	}
	return v
}

// wrong is what is not well now, as one sentence, and the service it is about.
func (g *Gate) wrong(r Reading) (why, service string) {
	rep := r.Report
	switch {
	case rep.Stack == "held":
		return "the stack is held: " + heldWhy(rep), ""
	case g.Generation != 0 && rep.Generation != g.Generation:
		return fmt.Sprintf("generation %d is not running yet", g.Generation), ""
	case len(rep.Services) == 0 && rep.Stack != "healthy":
		return fmt.Sprintf("the stack is %s", orWord(rep.Stack, "not started")), ""
	}
	for _, s := range rep.Services {
		if !well(s) {
			return sentence(s), s.Name
		}
		if g.healthy && s.Restarts > g.restarts[s.Name] {
			// Healthy again already, but it was not all along.
			return fmt.Sprintf("service %s has restarted while it was watched", s.Name), s.Name
		}
	}
	if rep.Stack != "healthy" {
		return fmt.Sprintf("the stack is %s", orWord(rep.Stack, "not started")), ""
	}
	return "", ""
}

// sentence says what is the matter with a service.
func sentence(s status.Service) string {
	out := fmt.Sprintf("service %s is %s", s.Name, s.State)
	if s.State == "running" {
		out = fmt.Sprintf("service %s is running and %s", s.Name, s.Health)
		for _, p := range s.Probes {
			if p.Health != "healthy" {
				out = fmt.Sprintf("service %s is running and its %s probe is %s", s.Name, p.Kind, p.Health)
				if p.Output != "" {
					out += " (" + cut(p.Output, 200) + ")"
				}
				break
			}
		}
	}
	if s.Restarts > 0 {
		out += fmt.Sprintf(", restarted %d times", s.Restarts)
	}
	if s.Reason != "" {
		out += ": " + cut(s.Reason, 300)
	}
	return out
}

// slow is the first service that has answered clearly slower than before all
// through the window; "" for none. What was not measured is not worse.
func (g *Gate) slow(r Reading) (why, service string) {
	if !g.healthy {
		return "", ""
	}
	for _, name := range slices.Sorted(maps.Keys(g.Baseline.Services)) {
		b := g.Baseline.Services[name]
		now, measured := r.Latency[name]
		limit := max(slowFactor*b.Latency, slowLeast)
		if !b.Healthy || b.Latency == 0 || !measured || now <= limit {
			g.fine[name] = r.At
			continue
		}
		last, ok := g.fine[name]
		if ok && r.At-last < g.Window || r.At-g.since < g.Window {
			continue
		}
		if why == "" {
			why = fmt.Sprintf("service %s answers its probes in %s where it took %s before", name, now.Round(time.Millisecond), b.Latency.Round(time.Millisecond))
			service = name
		}
	}
	return why, service
}

func (g *Gate) tooLongHeld(r Reading) bool {
	if r.Report.Stack != "held" {
		g.isHeld = false
		return false
	}
	if !g.isHeld {
		g.isHeld, g.held = true, r.At
	}
	return r.At-g.held >= heldFor
}

// heldWhy is the reason that the report gives for holding the stack.
func heldWhy(r status.Report) string {
	for _, c := range r.Conditions {
		if c.Severity == "critical" {
			return cut(c.Text, 300)
		}
	}
	return "the report does not say why"
}

func restartsOf(r status.Report) map[string]int {
	out := map[string]int{}
	for _, s := range r.Services {
		out[s.Name] = s.Restarts
	}
	return out
}

func orWord(s, or string) string {
	if s == "" {
		return or
	}
	return s
}

// cut bounds a text in bytes, and keeps it one line.
func cut(s string, most int) string {
	b := []rune(s)
	for i, r := range b {
		if r < ' ' || r == 0x7f {
			b[i] = ' '
		}
	}
	if len(b) > most {
		return string(b[:most]) + "…"
	}
	return string(b)
}
