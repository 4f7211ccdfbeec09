// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/holdfast/holdfast/compose/stack"
)

const (
	// criticalOOM is as far as any service is kept from the kernel's
	// out-of-memory killer. The engine has -500, supervisor and ssh have -900:
	// the kernel adds up to 1000 for the share of memory in use, so a service
	// is always taken before them.
	criticalOOM = -400
	// normalOOM less the guarantee's share of the memory in thousandths: all
	// normal services that use what they are guaranteed are equal to the
	// kernel, and one that uses more goes first.
	normalOOM = 500
	// bestEffortOOM goes before all others.
	bestEffortOOM = 1000

	// weightPerCore is cgroup v2's weight of one core: its default weight of
	// 100, which the system's own slice has, is one core's.
	weightPerCore = 100
	maxWeight     = 10000
	// sharesPerCore is the same in the words of cgroup v1 and Compose.
	sharesPerCore = 1024
)

// ioWeight is cgroup v2's, 100 the default.
var ioWeight = map[stack.Class]int{stack.Critical: 400, stack.Normal: 100, stack.BestEffort: 25}

// weights is the weight of one guaranteed core. All services together weigh
// as much as the cores that are not the system's: beside the system's slice,
// with the weight of one core, that is what Kubernetes gives its pods. So each
// service has what it is guaranteed when all of them are busy, and what nobody
// is guaranteed is shared out in the same proportion.
func (b *Budget) weights() float64 {
	need := b.guaranteed().CPU
	return weightPerCore * max(1, (b.Node.CPUs-b.Reserve.CPU)/max(need, 0.001))
}

// protect sets what the kernel needs to know to keep the guarantees; weight is
// what one guaranteed core weighs.
func (s *Service) protect(c types.ServiceConfig, n Node, weight float64) {
	switch s.Class {
	case stack.Critical:
		s.OOMScoreAdj, s.MemoryMin = criticalOOM, s.Guaranteed.Memory
	case stack.BestEffort:
		s.OOMScoreAdj = bestEffortOOM
	default:
		s.OOMScoreAdj = max(0, normalOOM-int(1000*float64(s.Guaranteed.Memory)/float64(max(n.Memory, 1))))
		s.MemoryLow = s.Guaranteed.Memory
	}
	if c.OomScoreAdj != 0 {
		s.OOMScoreAdj = int(min(max(c.OomScoreAdj, criticalOOM), 1000))
	}
	w := s.Guaranteed.CPU * weight
	if c.CPUShares > 0 { // the stack has its own proportions
		w = float64(c.CPUShares) * weightPerCore / sharesPerCore
	}
	s.CPUWeight = int(min(max(1, w+0.5), maxWeight))
	s.IOWeight = ioWeight[s.Class]
}
