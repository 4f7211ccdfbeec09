// SPDX-License-Identifier: Apache-2.0

package exporter

import (
	"math"
	"slices"

	"github.com/holdfast/holdfast/appliance/status"
)

// serviceStates are status.Service's, of which "created", a moment before
// running, counts as waiting; a word that is not here counts as unknown.
var serviceStates = []string{"waiting", "running", "exited", "completed", "backoff", "crash-loop",
	"held", "shed", "stopped", "paused", "unknown"}

var healths = []string{"healthy", "unhealthy", "starting"}

// cfsPeriod is the kernel's default scheduling period in microseconds, the one
// Docker sets for `cpus`.
const cfsPeriod = 100_000

// services sends what the report says of each service, and what is used where
// that is known. A service is sent once, whatever the report holds: a second
// series of one name would fail the scrape.
func (e *emitter) services(services []status.Service, usage []status.ServiceUsage, containerNames bool) {
	used := map[string]status.ServiceUsage{}
	for _, u := range usage {
		used[u.Service+"\x00"+u.Container] = u
	}
	names, containers := map[string]bool{}, map[string]bool{}
	for _, s := range services {
		name := label(s.Name)
		if names[name] {
			continue
		}
		names[name] = true
		e.state(name, s)
		e.allowed(name, s.Budget)
		u, ok := used[s.Name+"\x00"+s.Container]
		if !ok || s.Container == "" {
			e.limits(name, s.Budget, status.ServiceUsage{})
			continue
		}
		e.limits(name, s.Budget, u)
		e.use(name, u)
		if c := label(s.ContainerName); containerNames && c != "" && !containers[c] {
			containers[c] = true
			e.container(c, u)
		}
	}
}

func (e *emitter) state(name string, s status.Service) {
	state := s.State
	if state == "created" {
		state = "waiting"
	}
	if !slices.Contains(serviceStates, state) {
		state = "unknown"
	}
	e.put(serviceInfo, 1, name, s.Class, s.ContainerName, s.Image)
	e.one(serviceState, serviceStates, state, name)
	e.one(serviceHealth, healths, s.Health, name)
	e.put(serviceReady, truth(state == "completed" || state == "running" && (s.Health == "healthy" || s.Health == "none" || s.Health == "")), name)
	if !s.Since.IsZero() {
		e.put(serviceSince, seconds(s.Since), name)
	}
	by := map[string]int{}
	rest := s.Restarts
	for reason, n := range s.RestartsBy {
		if !slices.Contains(status.RestartReasons(), reason) {
			reason = "other"
		}
		by[reason] += n
		rest -= n
	}
	// Restarts of a time before causes were counted.
	by["other"] += max(0, rest)
	for _, reason := range status.RestartReasons() {
		e.put(serviceRestarts, float64(by[reason]), name, reason)
	}
	e.put(serviceFailures, float64(s.Failures), name)
	e.put(serviceBackoff, math.Max(0, backoff(s, e)), name)
	if len(s.Probes) > 0 {
		failing := 0
		for _, p := range s.Probes {
			if p.Health == "unhealthy" {
				failing++
			}
		}
		e.put(serviceProbes, float64(failing), name)
	}
}

func backoff(s status.Service, e *emitter) float64 {
	if s.NextTry.IsZero() {
		return 0
	}
	return s.NextTry.Sub(e.now).Seconds()
}

// allowed sends the guarantees of the budget.
func (e *emitter) allowed(name string, b *status.ServiceBudget) {
	if b == nil {
		return
	}
	e.put(serviceCPUGuaranteed, b.Guaranteed.CPU, name)
	e.put(serviceMemoryGuaranteed, float64(b.Guaranteed.Memory), name)
}

// limits sends what is enforced, or what the budget says while no container
// runs.
func (e *emitter) limits(name string, b *status.ServiceBudget, u status.ServiceUsage) {
	l := status.Share{CPU: u.CPULimit, Memory: u.MemoryLimit, Pids: u.PidsLimit}
	if b != nil {
		if l.CPU == 0 {
			l.CPU = b.Limit.CPU
		}
		if l.Memory == 0 {
			l.Memory = b.Limit.Memory
		}
		if l.Pids == 0 {
			l.Pids = b.Limit.Pids
		}
	}
	for f, v := range map[*family]float64{serviceCPULimit: l.CPU, serviceMemoryLimit: float64(l.Memory), servicePidsLimit: float64(l.Pids)} {
		if v > 0 {
			e.put(f, v, name)
		}
	}
}

func (e *emitter) use(name string, u status.ServiceUsage) {
	e.put(serviceCPU, u.CPUSeconds, name)
	e.put(servicePeriods, float64(u.Periods), name)
	e.put(serviceThrottled, float64(u.Throttled), name)
	e.put(serviceThrottledTime, u.ThrottledSeconds, name)
	e.put(serviceMemory, float64(u.MemoryWorkingSet), name)
	e.put(serviceOOM, float64(u.OOMKills), name)
	e.put(servicePids, float64(u.Pids), name)
	e.put(serviceRead, float64(u.IORead), name)
	e.put(serviceWritten, float64(u.IOWritten), name)
	if p := u.Pressure; p != nil {
		e.put(servicePressure, p.CPUSome, name, "cpu")
		e.put(servicePressure, p.MemorySome, name, "memory")
		e.put(servicePressure, p.IOSome, name, "io")
	}
}

func (e *emitter) container(name string, u status.ServiceUsage) {
	e.put(containerCPU, u.CPUSeconds, name)
	if u.CPULimit > 0 {
		e.put(containerQuota, math.Round(u.CPULimit*cfsPeriod), name)
		e.put(containerPeriod, cfsPeriod, name)
	}
	e.put(containerMemory, float64(u.Memory), name)
	e.put(containerWorkingSet, float64(u.MemoryWorkingSet), name)
	e.put(containerMemoryLimit, float64(u.MemoryLimit), name)
	e.put(containerOOM, float64(u.OOMKills), name)
	e.put(containerReads, float64(u.IOReadOps), name)
	e.put(containerWrites, float64(u.IOWriteOps), name)
	e.put(containerSeen, seconds(e.now), name)
}
