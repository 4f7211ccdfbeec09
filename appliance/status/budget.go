// SPDX-License-Identifier: Apache-2.0

package status

import "time"

// Share is an amount of a machine: CPU in cores, Memory in bytes, Pids in
// processes and threads. 0 is nothing guaranteed, or no limit.
type Share struct {
	CPU    float64 `json:"cpu"`
	Memory int64   `json:"memory"`
	Pids   int64   `json:"pids"`
}

// ServiceBudget is what one service is guaranteed and may use at most.
type ServiceBudget struct {
	Guaranteed Share `json:"guaranteed"`
	Limit      Share `json:"limit"`
	// CPUWeight and IOWeight are cgroup v2's 1 to 10000, 100 the default;
	// OOMScoreAdj is the kernel's -1000 to 1000.
	CPUWeight   int `json:"cpu_weight"`
	IOWeight    int `json:"io_weight"`
	OOMScoreAdj int `json:"oom_score_adj"`
	// Sheddable services are stopped under pressure, lowest ShedOrder first.
	Sheddable bool `json:"sheddable"`
	ShedOrder int  `json:"shed_order"`
	// Volumes are the disk budgets of the named volumes it mounts.
	Volumes []VolumeBudget `json:"volumes,omitempty"`
}

// VolumeBudget is the disk budget of one named volume in bytes, 0 where it has
// none of its own.
type VolumeBudget struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

// NodeBudget is the machine as the budget sees it, and the sums over all
// services.
type NodeBudget struct {
	// Size is the profile's name, e.g. "XS".
	Size string `json:"size"`
	// Node is what the machine has, Reserve what of it is kept for the system,
	// Guaranteed and Limits are the sums over the services.
	Node       Share `json:"node"`
	Reserve    Share `json:"reserve"`
	Guaranteed Share `json:"guaranteed"`
	Limits     Share `json:"limits"`
	// Admitted is false where the guarantees and the reserve exceed the node:
	// the stack is then held.
	Admitted bool `json:"admitted"`
	// Enforcement is how budgets are enforced here: "cgroup v2", "cgroup v1".
	Enforcement string `json:"enforcement,omitempty"`
}

// Engine is the container engine as the supervisor sees it.
type Engine struct {
	// Up is true while it answers within its deadline.
	Up      bool      `json:"up"`
	Version string    `json:"version,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	// Mends counts how often the supervisor restarted it since the daemon
	// started.
	Mends int `json:"mends"`
}

// PressureState is the judgement by which services are shed.
type PressureState struct {
	// Level is "none", "warn" or "high"; Resource is "memory", "disk", "io" or
	// "cpu", "" at level none.
	Level    string    `json:"level"`
	Resource string    `json:"resource,omitempty"`
	Text     string    `json:"text,omitempty"`
	Since    time.Time `json:"since,omitzero"`
}

// Work is what the supervisor's loop has done since the daemon started.
type Work struct {
	// Reconciles counts turns of the loop, ReconcileSeconds is the time they
	// took in all.
	Reconciles       uint64  `json:"reconciles"`
	ReconcileSeconds float64 `json:"reconcile_seconds"`
	// Buckets counts the turns that took at most so many seconds, by
	// WorkBuckets and in its order; each counts the ones before it too.
	Buckets []uint64 `json:"buckets"`
}

// WorkBuckets are the upper bounds of Work.Buckets in seconds.
func WorkBuckets() []float64 { return []float64{0.005, 0.025, 0.1, 0.5, 2.5, 10} }

// Took adds one turn of the loop. The caller serialises.
func (w *Work) Took(d time.Duration) {
	bounds := WorkBuckets()
	buckets := make([]uint64, len(bounds)) // readers hold the old ones
	copy(buckets, w.Buckets)
	for i, b := range bounds {
		if d.Seconds() <= b {
			buckets[i]++
		}
	}
	w.Buckets = buckets
	w.Reconciles++
	w.ReconcileSeconds += d.Seconds()
}
