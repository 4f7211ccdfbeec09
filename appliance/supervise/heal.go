// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// The throttle. A service's first restart after it was well is never held
// back; those that follow share one bucket for the whole stack. A start costs
// the engine about 0.3 s of a processor, so one a second leaves most of the
// smallest machine (2 processors) to what still runs.
const (
	healBurst = 10
	healEvery = time.Second
	// holdAfter is how long a service may fail in a row before it is called
	// held: the waits have reached 5 min after 9 min, and what an hour of
	// tries did not mend, such as a peer that was away, needs a person.
	holdAfter = time.Hour
)

// bucket is a token bucket as of a moment.
type bucket struct {
	used float64
	at   time.Time
}

// at returns what is used up at now. A clock that was set back refills nothing
// and takes nothing away.
func (b bucket) level(now time.Time) float64 {
	if past := now.Sub(b.at); past > 0 {
		return max(0, b.used-float64(past)/float64(healEvery))
	}
	return b.used
}

// allow reports whether a service that failed before may be restarted now,
// and takes one token if so.
func (x *decision) allow(s *Service, p Past) bool {
	if p.Failures < 2 {
		return true
	}
	used := x.heal.level(x.now)
	if used > healBurst-1 {
		x.throttled = append(x.throttled, s.Name)
		x.plan.wake(x.now.Add(time.Duration((used-(healBurst-1))*float64(healEvery)) + time.Millisecond))
		return false
	}
	x.heal = bucket{used: used + 1, at: x.now}
	return true
}

// held reports whether a service has failed for so long that a person is
// needed. It is still tried, every 5 min.
func (p Past) held(now time.Time) bool {
	return p.Failures >= crashLoopAt && !p.FailingSince.IsZero() && now.Sub(p.FailingSince) >= holdAfter
}

func (x *decision) throttleCondition() {
	if len(x.throttled) == 0 {
		return
	}
	x.plan.Conditions = append(x.plan.Conditions, status.Condition{Code: "heal-throttled", Severity: "warning",
		Text: fmt.Sprintf("%d failing services wait for their restart, so that what runs is left room: at most %d at once, then one a second",
			len(x.throttled), healBurst),
		Remedy: "look for what they have in common: holdfast events; journalctl -k"})
}
