// SPDX-License-Identifier: Apache-2.0

package status

import "time"

// LogLine is one line that a service wrote.
type LogLine struct {
	Time      time.Time `json:"time"`
	Service   string    `json:"service"`
	Container string    `json:"container"`
	// Stream is "stdout" or "stderr".
	Stream string `json:"stream"`
	// Text without its line end, as the service wrote it: a terminal must be
	// kept from its control characters.
	Text string `json:"text"`
}
