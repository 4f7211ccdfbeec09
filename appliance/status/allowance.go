// SPDX-License-Identifier: Apache-2.0

package status

// Allowance is a key that no service of a box may have, and one has all the
// same, for a reason that the stack gives in writing (x-holdfast.allow).
type Allowance struct {
	Service string `json:"service"`
	// Key as the stack writes it, e.g. "privileged" or "pid".
	Key    string `json:"key"`
	Reason string `json:"reason"`
}
