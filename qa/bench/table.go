// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// sample is one measured run.
type sample struct {
	wall time.Duration
	// cpu is user and system time of the run and all it started; it says how
	// much of the wall time other work on the host may have cost.
	cpu time.Duration
}

// row is one line of the result: a kind of run, measured several times.
type row struct {
	name    string
	samples []sample
	// limit, when not 0, is the most this row may take as a share of the
	// baseline's wall time.
	limit float64
}

func (r row) median(of func(sample) time.Duration) time.Duration {
	if len(r.samples) == 0 {
		return 0
	}
	all := make([]time.Duration, len(r.samples))
	for i, s := range r.samples {
		all[i] = of(s)
	}
	slices.Sort(all)
	mid := len(all) / 2
	if len(all)%2 == 1 {
		return all[mid]
	}
	return (all[mid-1] + all[mid]) / 2
}

func (r row) wall() time.Duration { return r.median(func(s sample) time.Duration { return s.wall }) }
func (r row) cpu() time.Duration  { return r.median(func(s sample) time.Duration { return s.cpu }) }

// ratio to the baseline's median wall time.
func (r row) ratio(base row) float64 {
	if base.wall() == 0 {
		return 0
	}
	return float64(r.wall()) / float64(base.wall())
}

// missed is true when the row has a limit and is over it.
func (r row) missed(base row) bool { return r.limit > 0 && r.ratio(base) > r.limit }

// compare prints rows beside the baseline, which is the first of them.
func compare(rows []row) string {
	base := rows[0]
	var b strings.Builder
	b.WriteString("| run | wall, median | all runs | processor time | of mkosi | at most |\n|---|---:|---|---:|---:|---:|\n")
	for i, r := range rows {
		share, limit := "", ""
		if i > 0 {
			share = fmt.Sprintf("%.3f", r.ratio(base))
		}
		if r.limit > 0 {
			limit = fmt.Sprintf("%.2f", r.limit)
			if r.missed(base) {
				limit += " **missed**"
			}
		}
		var all []string
		for _, s := range r.samples {
			all = append(all, secs(s.wall))
		}
		fmt.Fprintf(&b, "| %s | %s s | %s | %s s | %s | %s |\n", r.name, secs(r.wall()), strings.Join(all, ", "), secs(r.cpu()), share, limit)
	}
	return b.String()
}

func secs(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.2f", d.Seconds())
	}
	return fmt.Sprintf("%.1f", d.Seconds())
}
