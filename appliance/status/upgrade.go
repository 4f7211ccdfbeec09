// SPDX-License-Identifier: Apache-2.0

package status

import "time"

// Upgrade is what the box knows of other releases and of its way to one.
type Upgrade struct {
	// State is "idle", "checking", "fetching", "ready" (all is on the box,
	// waiting for its window), "switching", "trial", "committing",
	// "rolling-back" or "held".
	State string `json:"state"`
	// Kind is "upgrade", "rollback" or "drill"; "" when idle.
	Kind string `json:"kind,omitempty"`
	// Target names the release on its way, "NAME VERSION".
	Target string `json:"target,omitempty"`
	Digest string `json:"digest,omitempty"`
	// Step is what is being done, for people.
	Step string `json:"step,omitempty"`
	// Done, Total and Reused are bytes of the step's transfer: Total is what
	// the release has, Reused what the box had already.
	Done   int64 `json:"done,omitempty"`
	Total  int64 `json:"total,omitempty"`
	Reused int64 `json:"reused,omitempty"`
	// Rate in bytes per second; Left in seconds, 0 while unknown.
	Rate int64 `json:"rate,omitempty"`
	Left int64 `json:"left,omitempty"`
	// Channel and Source that are followed.
	Channel string `json:"channel"`
	Source  string `json:"source"`
	// Available is the newest release that this box may install, "" for none.
	Available string `json:"available,omitempty"`
	// Checked is when the source was last asked with success; zero for never.
	Checked time.Time `json:"checked,omitzero"`
	// Kept is the release that rollback goes back to, "" for none, Generation
	// its number.
	Kept           string `json:"kept,omitempty"`
	KeptGeneration int    `json:"kept_generation,omitempty"`
	// Trial is true while the running generation is not committed: ingress is
	// closed.
	Trial bool `json:"trial"`
	// Deadline of the trial, zero without one.
	Deadline time.Time `json:"deadline,omitzero"`
	// Quarantined counts releases that failed here and are not tried again.
	Quarantined int `json:"quarantined,omitempty"`
	// Last is how the last upgrade, rollback or drill ended, nil before one.
	Last *UpgradeResult `json:"last,omitempty"`
}

// UpgradeResult is one row of the history.
type UpgradeResult struct {
	// Generation that was tried, and the one that runs since.
	Generation int `json:"generation"`
	Runs       int `json:"runs"`
	// Kind is "upgrade", "rollback" or "drill".
	Kind string `json:"kind"`
	// From and To are releases, "NAME VERSION"; Digest is To's.
	From   string `json:"from"`
	To     string `json:"to"`
	Digest string `json:"digest,omitempty"`
	// Result is "committed", "rolled-back", "cancelled" or "passed" (a drill).
	Result string `json:"result"`
	// Why is one sentence; "" for what went well.
	Why string `json:"why,omitempty"`
	// Start, Armed and End of it; zero where it did not come so far.
	Start time.Time `json:"start"`
	Armed time.Time `json:"armed,omitzero"`
	End   time.Time `json:"end"`
	// Quiesced is when the services were stopped: what was written later is in
	// the data of the other generation alone.
	Quiesced time.Time `json:"quiesced,omitzero"`
	// Down is how long the stack did not serve, in milliseconds.
	Down int64 `json:"down_ms,omitempty"`
	// Took is how long from then until the services of the trial were healthy,
	// in milliseconds; 0 where they never were. Of a drill it is what a
	// rollback by hand would take.
	Took int64 `json:"took_ms,omitempty"`
	// Fetched and Reused bytes.
	Fetched int64 `json:"fetched,omitempty"`
	Reused  int64 `json:"reused,omitempty"`
	// Reboot is true where another root was booted.
	Reboot bool `json:"reboot"`
	// Boots are the boot ids of before, the trial and after.
	Boots []string `json:"boots,omitempty"`
	// Evidence for `holdfast why`: the failing condition and last log lines.
	Evidence []Evidence `json:"evidence,omitempty"`
}

// Evidence is one thing that explains a result.
type Evidence struct {
	// What it is, e.g. "service web", "boot 1b2c…", "condition".
	What  string   `json:"what"`
	Lines []string `json:"lines"`
}
