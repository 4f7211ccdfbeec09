// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Percent is where a box stands in the rollout of a release, 0 to 99: it takes
// the release by itself once the release's rollout is above it. Each release
// has another order of boxes, so that not always the same ones go first, and a
// box stands still while a rollout is widened.
func Percent(machineID, digest string) int {
	return int(seed(machineID, digest) % 100)
}

func seed(machineID, what string) uint64 {
	sum := sha256.Sum256([]byte(machineID + "\n" + what))
	return binary.BigEndian.Uint64(sum[:8])
}

// spread is a part of d that is the same for a box each time: boxes that were
// started together do not ask together.
func spread(machineID, what string, d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(seed(machineID, what) % uint64(d))
}
