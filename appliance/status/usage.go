// SPDX-License-Identifier: Apache-2.0

package status

import "time"

// Usage is what the box and each service use at one moment, against budget.
type Usage struct {
	Time     time.Time      `json:"time"`
	Node     NodeUsage      `json:"node"`
	Services []ServiceUsage `json:"services"`
}

// NodeUsage is the machine as a whole. Sizes are in bytes, times in seconds.
type NodeUsage struct {
	CPUs            float64 `json:"cpus"`
	CPUSeconds      float64 `json:"cpu_seconds"`
	MemoryTotal     int64   `json:"memory_total"`
	MemoryAvailable int64   `json:"memory_available"`
	// Disks by purpose: "data", "engine" and "state" where they are there.
	Disks []DiskUsage `json:"disks"`
	// Pressure of the machine, from the kernel's PSI; nil without PSI.
	Pressure *Pressure `json:"pressure,omitempty"`
}

// DiskUsage is one file system, or one volume's share of it, in bytes.
type DiskUsage struct {
	Name  string `json:"name"`
	Used  int64  `json:"used"`
	Total int64  `json:"total"`
	// Enforced is true where Total is a quota that the kernel enforces.
	Enforced bool `json:"enforced"`
	// Unknown is true where Used is not known: no quota counts it and nobody
	// has measured it yet. Total is 0 where nothing limits it.
	Unknown bool `json:"unknown,omitempty"`
	// Measured is when Used was measured by a walk in the background; zero
	// where it is of now.
	Measured time.Time `json:"measured,omitzero"`
}

// Pressure holds the shares of time, 0 to 1, over the last 10 s in which some
// or all tasks waited for a resource (the kernel's "some avg10", "full avg10").
type Pressure struct {
	CPUSome    float64 `json:"cpu_some"`
	MemorySome float64 `json:"memory_some"`
	MemoryFull float64 `json:"memory_full"`
	IOSome     float64 `json:"io_some"`
	IOFull     float64 `json:"io_full"`
}

// ServiceUsage is what one service's container uses. Counters start with the
// container. Sizes are in bytes, times in seconds.
type ServiceUsage struct {
	Service   string `json:"service"`
	Container string `json:"container"`
	// CPUSeconds used; of Periods, Throttled had no time left, which cost
	// ThrottledSeconds.
	CPUSeconds       float64 `json:"cpu_seconds"`
	Periods          int64   `json:"periods"`
	Throttled        int64   `json:"throttled"`
	ThrottledSeconds float64 `json:"throttled_seconds"`
	// MemoryWorkingSet is usage less inactive file cache (cAdvisor's
	// definition), MemoryLimit what is enforced, 0 without.
	Memory           int64 `json:"memory"`
	MemoryWorkingSet int64 `json:"memory_working_set"`
	MemoryLimit      int64 `json:"memory_limit"`
	// OOMKills of processes in the container.
	OOMKills  int64 `json:"oom_kills"`
	Pids      int64 `json:"pids"`
	PidsLimit int64 `json:"pids_limit"`
	// CPULimit in cores, 0 without.
	CPULimit float64 `json:"cpu_limit"`
	// Bytes read and written on disks.
	IORead    int64 `json:"io_read"`
	IOWritten int64 `json:"io_written"`
	// Requests that were made for them.
	IOReadOps  int64     `json:"io_read_ops"`
	IOWriteOps int64     `json:"io_write_ops"`
	Pressure   *Pressure `json:"pressure,omitempty"`
	// Volumes are the named volumes it mounts, by what they use.
	Volumes []DiskUsage `json:"volumes"`
}
