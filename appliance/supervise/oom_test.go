// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestLackOfMemoryIsToldApart: on control groups of version 2 the end of a
// container may say no more than SIGKILL.
func TestLackOfMemoryIsToldApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, stackOf(svc("web", "always", false)))
		b.start()
		pass(10 * time.Second)
		b.e.Starved("web")
		b.e.Kill("web", 137)
		pass(time.Minute)
		if w := b.state("web"); fmt.Sprint(w.RestartsBy) != "map[oom:1]" {
			t.Errorf("told before its end: %v", w.RestartsBy)
		}
		// A part that it could do without, and an end of its own later.
		b.e.Starved("web")
		b.e.Kill("web", 3)
		pass(time.Minute)
		b.e.Kill("web", 137)
		pass(3 * time.Second)
		b.e.Starved("web")
		pass(time.Minute)
		if w := b.state("web"); fmt.Sprint(w.RestartsBy) != "map[exit:2 oom:1]" {
			t.Errorf("told after its end: %v", w.RestartsBy)
		}
		if n := strings.Count(b.journal(), "its last end was for lack of memory"); n != 1 {
			t.Errorf("the journal names the late one %d times:\n%s", n, b.journal())
		}
		b.stop()
	})
}
