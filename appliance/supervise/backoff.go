// SPDX-License-Identifier: Apache-2.0

package supervise

import "time"

const (
	// backoffFirst is the wait before the second restart; the first comes at
	// once, because most failures are single.
	backoffFirst = time.Second
	// backoffMax bounds the doubling.
	backoffMax = 5 * time.Minute
	// ResetAfter is how long a container must be well for its failures to be
	// forgotten.
	ResetAfter = 10 * time.Minute
	// crashLoopAt failures in a row, about 7 s of waiting, make a crash loop:
	// a state with a condition; restarts go on at the same pace.
	crashLoopAt = 5
	// settle is how long a container without a health check that has failed
	// before must run to count as well: else each round of a crash loop
	// would look healthy for a moment.
	settle = 10 * time.Second
)

// Delay is the wait before the restart that follows the n-th failure in a row
// (n from 1). jitter in [0,1) spreads it by a tenth either way, so that boxes
// and services that failed together do not come back together; the result
// never exceeds 5 min.
func Delay(n int, jitter float64) time.Duration {
	if n <= 1 {
		return 0
	}
	d := backoffMax
	if n-2 < 9 { // 1 s << 9 is already more than 5 min
		d = min(backoffFirst<<(n-2), backoffMax)
	}
	return min(time.Duration(float64(d)*(0.9+0.2*jitter)), backoffMax)
}
