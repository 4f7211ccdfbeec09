// SPDX-License-Identifier: Apache-2.0

package budget

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
	tib = int64(1) << 40
)

const (
	// leastMemory and leastCPU are the floor of the reserve, in bytes and
	// cores: what kernel, systemd, engine, supervisor and one admin need on
	// the smallest machine; shimMemory is what the engine adds for each
	// container. docs/budgets.md has the measurement.
	leastMemory = 400 * mib
	leastCPU    = 0.1
	shimMemory  = 12 * mib
)

// step is one part of a curve: share of the next amount; 0 is all that is left.
type step[T int64 | float64] struct {
	next  T
	share float64
}

// The curves are those by which Google Kubernetes Engine reserves for its
// nodes ("Plan node sizes", allocatable resources): a large machine needs more
// for its system than a small one, but not in proportion.
var (
	memoryCurve = []step[int64]{{4 * gib, 0.25}, {4 * gib, 0.20}, {8 * gib, 0.10}, {112 * gib, 0.06}, {0, 0.02}}
	cpuCurve    = []step[float64]{{1, 0.06}, {1, 0.01}, {2, 0.005}, {0, 0.0025}}
)

func reserved[T int64 | float64](of T, curve []step[T]) float64 {
	sum := 0.0
	for _, s := range curve {
		part := of
		if s.next != 0 {
			part = min(of, s.next)
		}
		sum += float64(part) * s.share
		of -= part
	}
	return sum
}

// Reserve is what a machine keeps for its system beside a number of services:
// kernel, engine, supervisor and an admin. It grows with the machine, slower
// than the machine.
func Reserve(n Node, services int) Amount {
	return Amount{
		CPU:    round(max(leastCPU, reserved(n.CPUs, cpuCurve))),
		Memory: max(leastMemory+int64(services)*shimMemory, int64(reserved(n.Memory, memoryCurve))),
	}
}

// DataReserve is the part of the volume for data, in bytes, that no service's
// budget may claim: the file system's own metadata, and what lets an admin in
// when all budgets are used up.
func DataReserve(data int64) int64 {
	return min(max(data/20, 256*mib), 4*gib)
}
