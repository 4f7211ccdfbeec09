// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/appliance/api"
)

// shownNames bounds the names that an error lists.
const shownNames = 40

// checkServices says which of the named services the stack does not have, and
// which one may be meant.
func checkServices(known, named []string) error {
	for _, n := range named {
		if slices.Contains(known, n) {
			continue
		}
		p := &api.Problem{Status: http.StatusNotFound, Text: fmt.Sprintf("the stack has no service %.60q", n)}
		shown := known[:min(len(known), shownNames)]
		switch {
		case nearest(known, n) != "":
			p.Remedy = fmt.Sprintf("did you mean %s?", nearest(known, n))
		case len(shown) == len(known) && len(known) > 0:
			p.Remedy = "it has " + strings.Join(shown, ", ")
		default:
			p.Remedy = "holdfast status lists them"
		}
		return p
	}
	return nil
}

// nearest is the name that is most like n, "" where none is much like it.
func nearest(names []string, n string) string {
	best, at := "", len(n)/3+1
	for _, name := range names {
		if d := distance(strings.ToLower(n), strings.ToLower(name), at+1); d <= at {
			if d < at || best == "" {
				best, at = name, d
			}
		}
	}
	if best == "" && len(n) >= 3 {
		// The start or a part of one name alone.
		for _, name := range names {
			if strings.Contains(name, n) {
				if best != "" {
					return ""
				}
				best = name
			}
		}
	}
	return best
}

// distance counts the letters to insert, remove, replace or swap with the next
// one to turn a into b (optimal string alignment); limit or more is limit.
func distance(a, b string, limit int) int {
	if max(len(a)-len(b), len(b)-len(a)) >= limit {
		return limit
	}
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return min(row[len(b)], limit)
}
