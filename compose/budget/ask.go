// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/holdfast/holdfast/compose/stack"
)

// What a service has that says nothing; decision 0066 argues for each.
const (
	// silentMemory is guaranteed in bytes, and is how much of the spare memory
	// the default limit needs at least.
	silentMemory = 16 * mib
	// defaultPids is the limit of processes and threads.
	defaultPids = 1024
)

// silentCPU is guaranteed in cores.
var silentCPU = map[stack.Class]float64{stack.Critical: 0.05, stack.Normal: 0.02, stack.BestEffort: 0.01}

// round drops what the 32-bit floats of Compose's model add to a number of
// cores.
func round(cores float64) float64 { return math.Round(cores*1e4) / 1e4 }

// ask is what the Compose keys of a service and the profile say, as written.
func ask(s types.ServiceConfig, e stack.Extension, p stack.ProfileService) Service {
	a := Service{Name: s.Name, Class: cmp.Or(e.Class, stack.Normal), Sheddable: e.Sheddable, ShedOrder: e.ShedOrder}
	limits, reservations := &types.Resource{}, &types.Resource{}
	if s.Deploy != nil {
		if r := s.Deploy.Resources.Limits; r != nil {
			limits = r
		}
		if r := s.Deploy.Resources.Reservations; r != nil {
			reservations = r
		}
	}
	quota := 0.0
	if s.CPUQuota > 0 {
		quota = float64(s.CPUQuota) / float64(cmp.Or(s.CPUPeriod, 100000))
	}
	a.Limit = Amount{
		CPU:    round(cmp.Or(p.CPUs, float64(limits.NanoCPUs), float64(s.CPUS), quota)),
		Memory: cmp.Or(p.Memory, int64(limits.MemoryBytes), int64(s.MemLimit)),
		Pids:   cmp.Or(p.Pids, limits.Pids, s.PidsLimit),
	}
	a.Guaranteed = Amount{
		CPU:    round(cmp.Or(p.ReservedCPUs, float64(reservations.NanoCPUs))),
		Memory: cmp.Or(p.ReservedMemory, int64(reservations.MemoryBytes), int64(s.MemReservation)),
	}
	if a.Limit.Pids <= 0 { // -1 is Compose's "no limit", which no service has here
		a.Limit.Pids = defaultPids
	}
	return a
}

// fill gives a service its guarantees where nothing is written. The limit is
// left at 0 where none is: it depends on what is spare.
func (s *Service) fill() {
	if s.Guaranteed.CPU == 0 {
		s.Guaranteed.CPU = silentCPU[s.Class]
		if s.Limit.CPU > 0 {
			s.Guaranteed.CPU = min(s.Guaranteed.CPU, s.Limit.CPU)
		}
	}
	switch {
	case s.Guaranteed.Memory > 0:
	case s.Limit.Memory == 0:
		s.Guaranteed.Memory = silentMemory
	case s.Class == stack.BestEffort:
		s.Guaranteed.Memory = min(silentMemory, s.Limit.Memory)
	default:
		// Memory that is in use cannot be taken back: a service that names
		// only its limit is taken at its word, as Kubernetes takes it.
		s.Guaranteed.Memory, s.FromLimit = s.Limit.Memory, true
	}
}

// contradiction says where a guarantee is above its limit.
func contradictions(st *stack.Stack, size string, services []Service) error {
	var bad []string
	tell := func(s Service, what, got, most string) {
		file, line := st.Line("services", s.Name)
		bad = append(bad, fmt.Sprintf("%s:%d: services.%s: at size %s it is guaranteed %s of %s, which is more than its limit of %s; "+
			"write a smaller reservation or a larger limit, here or below x-holdfast.sizes.%s", file, line, s.Name, size, got, what, most, size))
	}
	for _, s := range services {
		if s.Limit.CPU > 0 && s.Guaranteed.CPU > s.Limit.CPU {
			tell(s, "cpu", cpuText(s.Guaranteed.CPU), cpuText(s.Limit.CPU))
		}
		if s.Limit.Memory > 0 && s.Guaranteed.Memory > s.Limit.Memory {
			tell(s, "memory", SizeText(s.Guaranteed.Memory), SizeText(s.Limit.Memory))
		}
	}
	if bad != nil {
		return fmt.Errorf("%s", strings.Join(bad, "\n"))
	}
	return nil
}

// oneShots are the services that run once, by the same rule as the
// supervisor's: another one waits for their end, or they never restart.
func oneShots(p *types.Project) map[string]bool {
	out := map[string]bool{}
	for name, s := range p.Services {
		if s.Restart == types.RestartPolicyNo && s.Deploy == nil {
			out[name] = true
		}
		for dep, d := range s.DependsOn {
			if d.Condition == types.ServiceConditionCompletedSuccessfully {
				out[dep] = true
			}
		}
	}
	return out
}

// after returns the services that start only when a one-shot has ended.
func after(p *types.Project, once string) map[string]bool {
	out := map[string]bool{}
	for grew := true; grew; {
		grew = false
		for name, s := range p.Services {
			for dep, d := range s.DependsOn {
				ends := dep == once && d.Condition == types.ServiceConditionCompletedSuccessfully
				if (ends || out[dep]) && !out[name] {
					out[name], grew = true, true
				}
			}
		}
	}
	return out
}

// overlap is how much of the sum of all guarantees never falls due at once: a
// one-shot takes the place of services that start only after its end. Each of
// these services makes room for one one-shot only, or two that run side by
// side would be given the same room.
func overlap(p *types.Project, services []Service) Amount {
	once := oneShots(p)
	var saved Amount
	free := map[string]Amount{}
	for _, s := range services {
		if !once[s.Name] {
			free[s.Name] = s.Guaranteed
		}
	}
	for _, s := range services {
		if !once[s.Name] {
			continue
		}
		need := s.Guaranteed
		for _, name := range slices.Sorted(maps.Keys(after(p, s.Name))) {
			f := free[name]
			cpu, memory := min(need.CPU, f.CPU), min(need.Memory, f.Memory)
			free[name] = Amount{CPU: f.CPU - cpu, Memory: f.Memory - memory}
			need.CPU, need.Memory = need.CPU-cpu, need.Memory-memory
			saved.CPU, saved.Memory = saved.CPU+cpu, saved.Memory+memory
		}
	}
	saved.CPU = round(saved.CPU)
	return saved
}
