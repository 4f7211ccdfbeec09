// SPDX-License-Identifier: Apache-2.0

//go:build engine

package engine

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// crashing is how many services the crash loop has.
const crashing = 50

// TestCrashLoopOfMany: 50 services that end as soon as they are started cost
// at most three calls to the engine for each restart, and a service beside
// them notices nothing. The calls are counted at the engine's socket. For 2
// minutes with HOLDFAST_SOAK, else for as long as 50 more restarts take.
func TestCrashLoopOfMany(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	var y strings.Builder
	y.WriteString("services:\n  calm: {image: \"holdfast.test/standin:1.0.0\", command: [serve], restart: always}\n")
	many := crashing
	if running == nil {
		many = crashing / 10 // a machine that is emulated
	}
	for i := range many {
		fmt.Fprintf(&y, "  crash%02d: {image: \"holdfast.test/standin:1.0.0\", command: [once, --code, \"3\"], restart: always}\n", i)
	}
	b.stack(y.String())
	p := newProxy(t, b)
	b.engine = p.host
	b.start()
	b.await("every service restarted once", func(r status.Report) bool {
		for _, s := range r.Services {
			if s.Name != "calm" && s.Restarts < 1 || s.Name == "calm" && s.State != "running" {
				return false
			}
		}
		return len(r.Services) == many+1
	})
	before := b.containers()["calm"]
	g := b.visit("calm")
	from, base := p.count(), 0
	if os.Getenv("HOLDFAST_SOAK") != "" {
		end := time.After(2 * time.Minute)
		b.await("two minutes", func(status.Report) bool {
			select {
			case <-end:
				return true
			default:
				return false
			}
		})
	} else {
		b.await("as many restarts again", func(r status.Report) bool {
			n := 0
			for _, s := range r.Services {
				n += s.Restarts
			}
			if base == 0 {
				base = n
			}
			return n >= base+many
		})
	}
	restarts, kinds := 0, map[string]int{}
	calls := p.since(from)
	for _, c := range calls {
		if strings.HasSuffix(c.path, "/start") || strings.HasSuffix(c.path, "/restart") {
			restarts++
		}
		kinds[c.method+" "+shape(c.path)]++
	}
	t.Logf("%d calls for %d restarts: %v", len(calls), restarts, kinds)
	if restarts == 0 {
		t.Error("no restarts were seen at the socket")
	}
	if len(calls) > 3*restarts {
		t.Errorf("%d calls for %d restarts, more than three for each: %v", len(calls), restarts, kinds)
	}
	g.wellServed()
	if c := b.containers()["calm"]; !c.Started.Equal(before.Started) {
		t.Error("calm was started again")
	}
}

// shape is a path without ids.
func shape(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if len(p) >= 32 {
			parts[i] = "ID"
		}
	}
	return strings.Join(parts, "/")
}
