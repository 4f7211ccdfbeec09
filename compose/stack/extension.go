// SPDX-License-Identifier: Apache-2.0

package stack

import "time"

// Class says what a service is worth when there is not enough for all.
type Class string

// The classes, most protected first.
const (
	// Critical services are protected hardest and never shed.
	Critical Class = "critical"
	// Normal is the class of a service that says nothing.
	Normal Class = "normal"
	// BestEffort services are shed under pressure, and brought back after it.
	BestEffort Class = "best-effort"
)

// Extension is `x-holdfast` of a service, with defaults where it says nothing.
type Extension struct {
	Class Class
	// Sheddable is true where the service may be stopped under pressure; the
	// default is true for best-effort and false for the others, and a
	// critical service cannot be sheddable.
	Sheddable bool
	// ShedOrder is the place in the order of shedding: lower is stopped
	// earlier, ties by name. 0 where the stack does not say.
	ShedOrder int
	// Probes are our own checks, beside the container's health check.
	Probes []Probe
	// Allow maps a key that is refused otherwise, as written ("privileged",
	// "pid", "volumes./var/run/docker.sock", ...), to the reason why this
	// service has it all the same.
	Allow map[string]string
}

// Probe is one check that the supervisor makes by itself.
type Probe struct {
	// Kind is "http", "tcp", "exec" or "uptime".
	Kind string
	// Port in the container, for http and tcp.
	Port int
	// Path and Status, for http: any status of 200 to 399 is good where
	// Status is 0. Scheme is "http" or "https" (whose certificate is not
	// verified: it is the container's own).
	Scheme, Path string
	Status       int
	// Command runs in the container, for exec; exit code 0 is good.
	Command []string
	// For is how long the container must have run without a restart, for
	// uptime.
	For time.Duration
	// Interval between checks, Timeout of one, StartPeriod in which failures
	// do not count, Retries failures in a row that make it unhealthy: the
	// words and defaults of a Compose health check (30 s, 30 s, 0 s, 3).
	Interval, Timeout, StartPeriod time.Duration
	Retries                        int
}

// Profile is one entry of the top-level `x-holdfast: {sizes: {NAME: ...}}`: the
// machine a size of this stack is made for, and what changes in its services.
type Profile struct {
	// Name is XS, S, M, L or XL.
	Name string
	// CPUs, Memory and Data are the machine's: processors, memory in bytes
	// and the volume data in bytes; 0 where the profile leaves the default.
	CPUs         float64
	Memory, Data int64
	// Services and Volumes override what the Compose keys say.
	Services map[string]ProfileService
	// Volumes maps a volume to its disk budget in bytes.
	Volumes map[string]int64
}

// ProfileService overrides the resources of one service; 0 leaves them.
type ProfileService struct {
	// CPUs and Memory (bytes) are limits, ReservedCPUs and ReservedMemory
	// (bytes) are guaranteed.
	CPUs, ReservedCPUs     float64
	Memory, ReservedMemory int64
	Pids                   int64
}
