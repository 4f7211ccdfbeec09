// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"fmt"
	"slices"
	"strings"
)

// Refused is a stack that does not fit a machine.
type Refused struct {
	// Budget is what was asked for: limits as written, nothing protected.
	Budget *Budget `json:"budget"`
	// Reasons are sentences, one for each sum that does not hold.
	Reasons []string `json:"reasons"`
	// CPU in cores, Memory and Disk in bytes are what is missing for the
	// guarantees, Limits in bytes is how far the limits of memory are above
	// what may be promised; 0 where that sum holds.
	CPU    float64 `json:"cpu"`
	Memory int64   `json:"memory"`
	Disk   int64   `json:"disk"`
	Limits int64   `json:"limits"`
}

// Error says why, shows who asks for how much, and what to do.
func (r *Refused) Error() string {
	b := r.Budget
	return fmt.Sprintf("%s does not fit this machine at size %s:\n  %s\n\n%s\n%s", b.Stack, b.Size, strings.Join(r.Reasons, "\n  "), b.table(r), r.Remedy())
}

// Remedy says what to do next.
func (r *Refused) Remedy() string {
	b := r.Budget
	var machine, ask []string
	cpus, memory := r.least()
	if r.CPU > 0 {
		machine = append(machine, fmt.Sprintf("%d cpus", cpus))
		ask = append(ask, "reserve fewer cpus")
	}
	if r.Memory > 0 || r.Limits > 0 {
		machine = append(machine, SizeText(memory)+" of memory")
	}
	if r.Memory > 0 {
		what := "reserve less memory for the services at the top of the table"
		if slices.ContainsFunc(b.Services, func(s Service) bool { return s.FromLimit }) {
			what = "write what the services at the top of the table need at least as deploy.resources.reservations.memory"
		}
		ask = append(ask, what)
	}
	if r.Limits > 0 {
		ask = append(ask, "lower the limits of memory")
	}
	if r.Disk > 0 {
		machine = append(machine, fmt.Sprintf("a volume for data of %s", SizeText(r.leastData())))
		ask = append(ask, "give the volumes smaller budgets (x-holdfast.disk)")
	}
	return fmt.Sprintf("Take a machine that has at least %s;\nor %s.\nWhat differs for this size only is written below x-holdfast.sizes.%s.\n",
		strings.Join(machine, " and "), strings.Join(ask, ", and "), b.Size)
}

// least is the smallest machine for these guarantees and limits: whole cpus,
// and whole GiB of memory as its kernel sees it.
func (r *Refused) least() (cpus int, memory int64) {
	b := *r.Budget
	need := b.guaranteed()
	for cpus = 1; round(need.CPU+Reserve(Node{CPUs: float64(cpus)}, len(b.Services)).CPU) > float64(cpus); cpus++ {
	}
	limits := r.limits()
	fits := func(n int64) bool {
		m := Budget{Node: Node{Memory: n * gib}, Reserve: Reserve(Node{Memory: n * gib}, len(b.Services))}
		return need.Memory <= m.allocatable() && limits <= m.mostLimits()
	}
	lo, hi := int64(0), int64(1)
	for !fits(hi) {
		lo, hi = hi, hi*2
	}
	for hi-lo > 1 {
		if mid := lo + (hi-lo)/2; fits(mid) {
			hi = mid
		} else {
			lo = mid
		}
	}
	return cpus, hi * gib
}

// limits is the sum that was held to the ratio: the machine's most and what is
// above it, or what the limits in the table add up to.
func (r *Refused) limits() int64 {
	if r.Limits > 0 {
		return r.Limits + r.Budget.mostLimits()
	}
	return min(r.Budget.limits().Memory, r.Budget.mostLimits())
}

// leastData is the smallest volume for data, in whole GiB.
func (r *Refused) leastData() int64 {
	sum, rest := r.Budget.disk()
	n := (sum + rest) / gib
	for n*gib < sum+rest+DataReserve(n*gib) {
		n++
	}
	return n * gib
}
