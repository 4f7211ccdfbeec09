// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// order is the start order: a service comes after all it depends on, and of
// those that could come next the first by name does. A cycle is a problem
// that names it.
func (l *loading) order(p *types.Project) []string {
	waits := map[string][]string{} // service -> what it still waits for
	for name, s := range p.Services {
		waits[name] = nil
		for dep := range s.DependsOn {
			if _, ok := p.Services[dep]; ok {
				waits[name] = append(waits[name], dep)
			}
		}
		slices.Sort(waits[name])
	}
	var out []string
	for len(waits) > 0 {
		next := ""
		for _, name := range slices.Sorted(maps.Keys(waits)) {
			if !slices.ContainsFunc(waits[name], func(dep string) bool { return !slices.Contains(out, dep) }) {
				next = name
				break
			}
		}
		if next == "" {
			l.cycle(waits, out)
			return nil
		}
		out = append(out, next)
		delete(waits, next)
	}
	return out
}

// cycle reports one cycle among the services that are left: each of them
// waits for another one, so following the first open wait ends in a loop.
func (l *loading) cycle(waits map[string][]string, started []string) {
	at := slices.Min(slices.Collect(maps.Keys(waits)))
	var walk []string
	for !slices.Contains(walk, at) {
		walk = append(walk, at)
		for _, dep := range waits[at] {
			if !slices.Contains(started, dep) {
				at = dep
				break
			}
		}
	}
	loop := walk[slices.Index(walk, at):]
	// The same cycle reads the same wherever the walk entered it.
	first := slices.Index(loop, slices.Min(loop))
	loop = slices.Concat(loop[first:], loop[:first], loop[first:first+1])
	key := []string{"services", loop[0], "depends_on", loop[1]}
	if !l.src.has(key...) { // network_mode: service:NAME and links depend too
		key = key[:2]
	}
	l.report(key, fmt.Sprintf("dependency cycle: %s", strings.Join(loop, " -> ")), "remove one of these dependencies")
}
