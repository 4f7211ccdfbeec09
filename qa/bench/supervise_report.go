// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"
)

// superviseResult is what was measured of the supervisor.
type superviseResult struct {
	compose, ours []time.Duration
	crashCPU      float64 // of one core
	crashCalls    float64 // to the engine, for each restart
	crashRestarts int
	reactions     []time.Duration
	steadyCPU     float64
	steadyFor     time.Duration
	rss           int64
	scrapes       []time.Duration
	scrapeBytes   int
	bytes         int64
}

// figure is a row: what was measured against what is wanted.
type figure struct {
	what      string
	got, want float64
	unit      string
	note      string
}

func (r *superviseResult) figures() []figure {
	const mib = 1 << 20
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	compose, ours := medianOf(r.compose), medianOf(r.ours)
	return []figure{
		{"stack of 26, from nothing to healthy, to `docker compose up --wait`", ours.Seconds() / compose.Seconds(), 1, "x",
			fmt.Sprintf("%.1f s to %.1f s, medians of %d in turns", ours.Seconds(), compose.Seconds(), len(r.ours))},
		{"crash loop of 50: the daemon's processor time", 100 * r.crashCPU, 2, "% of a core", fmt.Sprintf("%d restarts in %s", r.crashRestarts, crashWindow)},
		{"crash loop of 50: calls to the engine for each restart", r.crashCalls, 3, "", "counted at its socket"},
		{"container's death to restart asked for, median", ms(medianOf(r.reactions)), 50, "ms", fmt.Sprintf("%d ends, one after the other", len(r.reactions))},
		{"steady state, 50 containers: resident memory, most", float64(r.rss) / mib, 40, "MiB", "over " + r.steadyFor.Round(time.Second).String()},
		{"steady state: processor time", 100 * r.steadyCPU, 0.5, "% of a core", fmt.Sprintf("scraped every %s, half with probes every 15 s", scrapeEvery)},
		{"scrape, median", ms(medianOf(r.scrapes)), 50, "ms", fmt.Sprintf("%d scrapes of %d KiB", len(r.scrapes), r.scrapeBytes>>10)},
		{"holdfast, static and stripped", float64(r.bytes) / mib, 25, "MiB", ""},
	}
}

func (f figure) missed() bool { return !(f.got <= f.want) } // not a number is missed, too

func (r *superviseResult) missed() bool {
	for _, f := range r.figures() {
		if f.missed() {
			return true
		}
	}
	return false
}

// markdown is the table; all is false for the rows of one part only.
func (r *superviseResult) markdown(all bool) string {
	var b strings.Builder
	b.WriteString("| figure | measured | at most | |\n|---|---:|---:|---|\n")
	for _, f := range r.figures() {
		if !all && !(f.got > 0) {
			continue
		}
		verdict := f.note
		if f.missed() {
			verdict = strings.TrimPrefix(verdict+"; **missed**", "; ")
		}
		fmt.Fprintf(&b, "| %s | %.2f %s | %g %s | %s |\n", f.what, f.got, f.unit, f.want, f.unit, verdict)
	}
	b.WriteString("\nThe stack of 26 is the public deployment of Sourcegraph (qa/sourcegraph/testdata/public) with stand-ins, a sixteenth of its memory.\nNeither side probes what has no health check there.\n")
	return b.String()
}
