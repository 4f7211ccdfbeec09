// SPDX-License-Identifier: Apache-2.0

package status

import "time"

// Top is what a box and its services use now, against budget: the difference
// of two Usages, as `holdfast top` shows it. Sizes are in bytes, processors in
// cores, rates per second. What is not known is nil.
type Top struct {
	Time time.Time `json:"time"`
	// Seconds between the two looks.
	Seconds float64 `json:"seconds"`
	// Stack is its state, Size the profile's name, "" where there is none.
	Stack    string       `json:"stack"`
	Size     string       `json:"size"`
	Node     TopNode      `json:"node"`
	Services []TopService `json:"services"`
}

// TopNode is the machine.
type TopNode struct {
	CPU  *float64 `json:"cpu"`
	CPUs float64  `json:"cpus"`
	// CPUGuaranteed and MemoryGuaranteed are the sums of what the services
	// are guaranteed; the reserves are the system's. 0 without a budget.
	CPUGuaranteed    float64     `json:"cpu_guaranteed"`
	CPUReserve       float64     `json:"cpu_reserve"`
	Memory           int64       `json:"memory"`
	MemoryTotal      int64       `json:"memory_total"`
	MemoryGuaranteed int64       `json:"memory_guaranteed"`
	MemoryReserve    int64       `json:"memory_reserve"`
	Disks            []DiskUsage `json:"disks"`
	Pressure         *Pressure   `json:"pressure,omitempty"`
}

// TopService is one service. A limit of 0 is none.
type TopService struct {
	Service string `json:"service"`
	State   string `json:"state"`
	Class   string `json:"class"`
	// Measured is false where the service has no container that runs; what
	// it uses is then 0.
	Measured      bool     `json:"measured"`
	CPU           *float64 `json:"cpu"`
	CPULimit      float64  `json:"cpu_limit"`
	CPUGuaranteed float64  `json:"cpu_guaranteed"`
	// Throttled is the share of scheduling periods, 0 to 1, in which the
	// limit was reached.
	Throttled *float64 `json:"throttled"`
	// Memory is the working set: without the file cache that can go at once.
	Memory           int64       `json:"memory"`
	MemoryLimit      int64       `json:"memory_limit"`
	MemoryGuaranteed int64       `json:"memory_guaranteed"`
	OOMKills         int64       `json:"oom_kills"`
	Pids             int64       `json:"pids"`
	PidsLimit        int64       `json:"pids_limit"`
	IORead           *float64    `json:"io_read"`
	IOWritten        *float64    `json:"io_written"`
	Volumes          []DiskUsage `json:"volumes"`
}

// TopOf compares two looks. before may be the zero Usage: then nothing is
// known that needs two.
func TopOf(r Report, before, now Usage) Top {
	t := Top{Time: now.Time, Stack: r.Stack, Services: []TopService{}}
	if !before.Time.IsZero() && now.Time.After(before.Time) {
		t.Seconds = now.Time.Sub(before.Time).Seconds()
	}
	n := now.Node
	t.Node = TopNode{CPUs: n.CPUs, MemoryTotal: n.MemoryTotal, Memory: max(0, n.MemoryTotal-n.MemoryAvailable), Disks: n.Disks, Pressure: n.Pressure,
		CPU: rate(before.Node.CPUSeconds, n.CPUSeconds, t.Seconds)}
	if t.Node.Disks == nil {
		t.Node.Disks = []DiskUsage{}
	}
	if b := r.Budget; b != nil {
		t.Size = b.Size
		t.Node.CPUGuaranteed, t.Node.MemoryGuaranteed = b.Guaranteed.CPU, b.Guaranteed.Memory
		t.Node.CPUReserve, t.Node.MemoryReserve = b.Reserve.CPU, b.Reserve.Memory
	}
	for _, s := range r.Services {
		t.Services = append(t.Services, topService(s, find(before, s), find(now, s), t.Seconds))
	}
	return t
}

func find(u Usage, s Service) *ServiceUsage {
	for i := range u.Services {
		if u.Services[i].Service == s.Name && u.Services[i].Container == s.Container {
			return &u.Services[i]
		}
	}
	return nil
}

func topService(s Service, before, now *ServiceUsage, seconds float64) TopService {
	t := TopService{Service: s.Name, State: s.State, Class: s.Class, Volumes: []DiskUsage{}}
	if b := s.Budget; b != nil {
		t.CPULimit, t.MemoryLimit, t.PidsLimit = b.Limit.CPU, b.Limit.Memory, b.Limit.Pids
		t.CPUGuaranteed, t.MemoryGuaranteed = b.Guaranteed.CPU, b.Guaranteed.Memory
	}
	if now == nil {
		return t
	}
	t.Measured = true
	t.Memory, t.Pids, t.OOMKills = now.MemoryWorkingSet, now.Pids, now.OOMKills
	// What the kernel enforces counts more than what was meant.
	if now.MemoryLimit > 0 {
		t.MemoryLimit = now.MemoryLimit
	}
	if now.CPULimit > 0 {
		t.CPULimit = now.CPULimit
	}
	if now.PidsLimit > 0 {
		t.PidsLimit = now.PidsLimit
	}
	if now.Volumes != nil {
		t.Volumes = now.Volumes
	}
	if before == nil || seconds <= 0 {
		return t
	}
	t.CPU = rate(before.CPUSeconds, now.CPUSeconds, seconds)
	t.IORead = rate(float64(before.IORead), float64(now.IORead), seconds)
	t.IOWritten = rate(float64(before.IOWritten), float64(now.IOWritten), seconds)
	if periods := now.Periods - before.Periods; periods >= 0 && now.Throttled >= before.Throttled {
		share := 0.0
		if periods > 0 {
			share = min(1, float64(now.Throttled-before.Throttled)/float64(periods))
		}
		t.Throttled = &share
	}
	return t
}

// rate is nil for a counter that began anew.
func rate(before, now, seconds float64) *float64 {
	if seconds <= 0 || now < before {
		return nil
	}
	r := (now - before) / seconds
	return &r
}
