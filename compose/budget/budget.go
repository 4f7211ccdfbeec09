// SPDX-License-Identifier: Apache-2.0

package budget

import "github.com/holdfast/holdfast/compose/stack"

// Amount is a share of a machine.
type Amount struct {
	// CPU in cores, Memory in bytes, Pids in processes and threads; 0 is
	// nothing guaranteed, or no limit.
	CPU    float64 `json:"cpu"`
	Memory int64   `json:"memory"`
	Pids   int64   `json:"pids"`
}

// Node is a machine as the budget sees it.
type Node struct {
	// CPUs in cores, Memory in bytes.
	CPUs   float64 `json:"cpus"`
	Memory int64   `json:"memory"`
	// Data is the size of the volume for data in bytes, Engine that of the
	// engine's store; 0 is not known.
	Data   int64 `json:"data"`
	Engine int64 `json:"engine"`
}

// Service is the budget of one service.
type Service struct {
	Name  string      `json:"name"`
	Class stack.Class `json:"class"`
	// Guaranteed is admitted hard and protected; Limit is enforced.
	Guaranteed Amount `json:"guaranteed"`
	Limit      Amount `json:"limit"`
	// OOMScoreAdj is the kernel's -1000 to 1000; CPUWeight and IOWeight are
	// cgroup v2's 1 to 10000, 100 the default.
	OOMScoreAdj int `json:"oom_score_adj"`
	CPUWeight   int `json:"cpu_weight"`
	IOWeight    int `json:"io_weight"`
	// MemoryMin and MemoryLow in bytes are cgroup v2's memory.min and
	// memory.low.
	MemoryMin int64 `json:"memory_min"`
	MemoryLow int64 `json:"memory_low"`
	// Sheddable and ShedOrder are stack.Extension's.
	Sheddable bool `json:"sheddable"`
	ShedOrder int  `json:"shed_order"`
	// OneShot services run once; their guarantee counts while they run.
	OneShot bool `json:"one_shot"`
	// FromLimit is true where the stack reserves no memory, so that the limit
	// is what is guaranteed.
	FromLimit bool `json:"from_limit,omitempty"`
}

// Volume is the disk budget of one named volume.
type Volume struct {
	Name string `json:"name"`
	// Bytes is the quota, 0 where it has none of its own.
	Bytes int64 `json:"bytes"`
}

// Budget is what each service of a stack is guaranteed and may use on a node.
type Budget struct {
	// Stack is its name, Size the profile's.
	Stack string `json:"stack"`
	Size  string `json:"size"`
	Node  Node   `json:"node"`
	// Reserve is kept for the system: kernel, engine, supervisor, admin.
	Reserve Amount `json:"reserve"`
	// Services in start order, Volumes sorted by name.
	Services []Service `json:"services"`
	Volumes  []Volume  `json:"volumes"`
	// Overlap is how much of the sum of all guarantees never falls due at
	// once, because one-shots end before others start.
	Overlap Amount `json:"overlap"`
	// DataReserve in bytes is kept free of the volume for data.
	DataReserve int64 `json:"data_reserve"`
}

// Service returns the budget of a service; ok is false where it has none.
func (b *Budget) Service(name string) (s Service, ok bool) {
	if b == nil {
		return Service{}, false
	}
	for _, s := range b.Services {
		if s.Name == name {
			return s, true
		}
	}
	return Service{}, false
}
