// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"math"

	"github.com/moby/moby/api/types/container"

	"github.com/holdfast/holdfast/compose/stack"
)

// SliceOf is the systemd slice whose share of the machine is a class's. A
// dash in a slice's name means "below", so best-effort is written in one word.
func SliceOf(c stack.Class) string {
	switch c {
	case stack.Critical:
		return "holdfast-critical.slice"
	case stack.BestEffort:
		return "holdfast-besteffort.slice"
	}
	return "holdfast-normal.slice"
}

// extend fills what the stack says of a service beyond Compose. The budget,
// where there is one, has the last word on the class: a size may change it.
func (t *translation) extend(svc *Service) {
	x := t.o.Extensions[svc.Name]
	svc.Class, svc.Sheddable, svc.ShedOrder, svc.Probes = x.Class, x.Sheddable, x.ShedOrder, x.Probes
	if b, ok := t.o.Budget.Service(svc.Name); ok {
		svc.Class, svc.Sheddable, svc.ShedOrder = b.Class, b.Sheddable, b.ShedOrder
	}
	if svc.Class == "" {
		svc.Class = stack.Normal
	}
}

// budget sets the service's limits to its share of the machine. The
// protection by class (memory.min, cpu.weight) is for the enforcer: the
// engine has no word for it.
func (t *translation) budget(h *container.HostConfig) {
	if t.o.Slices {
		svc := Service{Name: t.s.Name}
		t.extend(&svc)
		h.CgroupParent = SliceOf(svc.Class)
	}
	b, ok := t.o.Budget.Service(t.s.Name)
	if !ok {
		return
	}
	if b.Limit.Memory > 0 {
		h.Memory = b.Limit.Memory
		// Memory and swap together: never less than the memory alone, which
		// the engine refuses.
		if h.MemorySwap > 0 && h.MemorySwap < h.Memory {
			h.MemorySwap = h.Memory
		}
	}
	if b.Guaranteed.Memory > 0 {
		h.MemoryReservation = b.Guaranteed.Memory
	}
	if h.Memory > 0 && h.MemoryReservation > h.Memory {
		h.MemoryReservation = h.Memory
	}
	if b.Limit.CPU > 0 {
		h.NanoCPUs = int64(math.Round(b.Limit.CPU * 1e9))
		h.CPUQuota, h.CPUPeriod = 0, 0 // the same limit in other words
	}
	if b.Limit.Pids > 0 {
		h.PidsLimit = &b.Limit.Pids
	}
	// What the stack itself writes for these two stays.
	if t.s.OomScoreAdj == 0 {
		h.OomScoreAdj = b.OOMScoreAdj
	}
	if t.s.CPUShares == 0 && b.CPUWeight > 0 {
		h.CPUShares = sharesOf(b.CPUWeight)
	}
}

// sharesOf turns cgroup v2's weight (1 to 10000) into the shares (2 to
// 262144) that the engine takes and the runtime turns back: weight is
// 1 + (shares-2)*9999/262142, rounded down.
func sharesOf(weight int) int64 {
	w := int64(min(max(weight, 1), 10000))
	return 2 + ((w-1)*262142+9998)/9999
}
