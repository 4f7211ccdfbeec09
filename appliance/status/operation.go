// SPDX-License-Identifier: Apache-2.0

package status

import "time"

// Operation is long work that was asked for.
type Operation struct {
	ID string `json:"id"`
	// Verb is "restart", "stop", "start", "upgrade", "rollback" or "drill";
	// Services what it is for, empty for the whole stack.
	Verb     string   `json:"verb"`
	Services []string `json:"services"`
	// State is "running", "done" or "failed"; Error says why it failed.
	State   string    `json:"state"`
	Error   string    `json:"error,omitempty"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// Notes say what one should know of it, such as which writes will be lost.
	Notes []string `json:"notes,omitempty"`
	// Result of an upgrade, a rollback or a drill that has ended.
	Result *UpgradeResult `json:"result,omitempty"`
}

// Plan is what the supervisor would do now, as `holdfast plan` shows it.
type Plan struct {
	Time time.Time `json:"time"`
	// Ops in the order in which they would be done; empty when all is as it
	// shall be.
	Ops []PlanOp `json:"ops"`
	// Waiting services with what each waits for.
	Waiting []PlanWait `json:"waiting"`
	// Next is when the plan may change by itself.
	Next time.Time `json:"next,omitzero"`
}

// PlanOp is one operation with its cause.
type PlanOp struct {
	// Kind is the supervisor's word: "create", "start", "restart", "stop",
	// "remove", "create network", "create volume", ...
	Kind      string `json:"kind"`
	Target    string `json:"target"`
	Container string `json:"container,omitempty"`
	Because   string `json:"because"`
	// Running is true for an operation that is under way.
	Running bool `json:"running"`
}

// PlanWait is a service that cannot go on yet.
type PlanWait struct {
	Service string `json:"service"`
	Because string `json:"because"`
}

// Event is one line of what the supervisor did or saw.
type Event struct {
	// Number grows by one with each event of this daemon's run.
	Number    int64     `json:"number"`
	Time      time.Time `json:"time"`
	Service   string    `json:"service,omitempty"`
	Container string    `json:"container,omitempty"`
	// Act is an operation's kind, "seen", "state", "stack" or "daemon".
	Act     string  `json:"act"`
	Because string  `json:"because,omitempty"`
	Error   string  `json:"error,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}
