// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// The throttle. A service's first restart after it was well is never held
// back; those that follow share one bucket for the whole stack. A start costs
// the engine about 0.3 s of a processor, so one a second for each processor
// leaves two thirds of the machine to what still runs.
const (
	healBurst = 10
	// holdAfter is how long a service may fail in a row before it is called
	// held: the waits have reached 5 min after 9 min, and what an hour of
	// tries did not mend, such as a peer that was away, needs a person.
	holdAfter = time.Hour
)

// healEvery is the time in which the throttle gets one more restart.
func (o Observed) healEvery() time.Duration { return time.Second / time.Duration(max(1, o.Processors)) }

// bucket is a token bucket as of a moment.
type bucket struct {
	used float64
	at   time.Time
}

// level returns what is used up at now. A clock that was set back refills
// nothing and takes nothing away.
func (b bucket) level(now time.Time, every time.Duration) float64 {
	if past := now.Sub(b.at); past > 0 {
		return max(0, b.used-float64(past)/float64(every))
	}
	return b.used
}

// healing is a restart that the throttle may hold back.
type healing struct {
	op   Op
	past Past
}

// restart adds the restart of a service that failed, if not now then later.
func (x *decision) restart(op Op, p Past) {
	if p.Failures < 2 {
		x.add(op)
		return
	}
	x.healing = append(x.healing, healing{op, p})
}

// heal spends the throttle on those that have failed the fewest times: they
// are the likeliest to stay up.
func (x *decision) heal() {
	slices.SortStableFunc(x.healing, func(a, b healing) int {
		return cmp.Or(cmp.Compare(a.past.Failures, b.past.Failures), a.past.NotBefore.Compare(b.past.NotBefore))
	})
	every := x.o.healEvery()
	for i, w := range x.healing {
		used := x.plan.heal.level(x.now, every)
		if used > healBurst-1 {
			x.throttled = len(x.healing) - i
			x.plan.wake(x.now.Add(time.Duration((used-(healBurst-1))*float64(every)) + time.Millisecond))
			return
		}
		x.plan.heal = bucket{used: used + 1, at: x.now}
		x.add(w.op)
	}
}

// held reports whether a service has failed for so long that a person is
// needed. It is still tried, every 5 min.
func (p Past) held(now time.Time) bool {
	return p.Failures >= crashLoopAt && !p.FailingSince.IsZero() && now.Sub(p.FailingSince) >= holdAfter
}

func (x *decision) throttleCondition() {
	if x.throttled == 0 {
		return
	}
	x.plan.Conditions = append(x.plan.Conditions, status.Condition{Code: "heal-throttled", Severity: "warning",
		Text: fmt.Sprintf("%d failing services wait for their restart, so that what runs is left room: at most %d at once, then %d a second",
			x.throttled, healBurst, time.Second/x.o.healEvery()),
		Remedy: "look for what they have in common: holdfast events; journalctl -k"})
}
