// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/compose/stack"
)

// MaxMemoryOvercommit is how many times the memory that a machine has for
// services the limits of all of them may add up to. Processors have no such
// ratio: one that is needed elsewhere is given back within milliseconds.
const MaxMemoryOvercommit = 2.5

// leastRest is what must be left of the volume for data, in bytes, where some
// volume has no budget of its own.
const leastRest = 256 * mib

// For computes what each service of a stack is guaranteed and may use on a
// node, at one of the stack's sizes; "" is the largest one that the node is
// made for and has room for. The error is a *Refused, with the table that
// shows why, where the guarantees and the system's reserve are more than the
// node has, or the limits more than MaxMemoryOvercommit allows; any other
// error is about the stack or the size.
func For(st *stack.Stack, size string, node Node) (*Budget, error) {
	if !(node.CPUs > 0 && node.CPUs < math.MaxInt32) || node.Memory <= 0 || node.Data < 0 {
		return nil, fmt.Errorf("a machine of %v cpus and %d bytes of memory cannot run a stack", node.CPUs, node.Memory)
	}
	if size != "" {
		return at(st, size, node)
	}
	fit := Fitting(st, node)
	if len(fit) == 0 {
		// Smaller than all the machines the stack is made for: the sums of the
		// smallest size decide.
		fit = []string{SizesOf(st)[0].Name}
	}
	for i := len(fit) - 1; ; i-- {
		b, err := at(st, fit[i], node)
		var no *Refused
		if i > 0 && errors.As(err, &no) {
			continue // a smaller size of the stack may still do
		}
		return b, err
	}
}

// at is For with a size.
func at(st *stack.Stack, size string, node Node) (*Budget, error) {
	profile, err := profileOf(st, size)
	if err != nil {
		return nil, err
	}
	b := &Budget{Stack: st.Name, Size: size, Node: node, Reserve: Reserve(node, len(st.Services))}
	if node.Data > 0 {
		b.DataReserve = DataReserve(node.Data)
	}
	once := oneShots(st.Project)
	for _, name := range st.Services {
		s := ask(st.Project.Services[name], st.Extensions[name], profile.Services[name])
		s.Name, s.OneShot = name, once[name]
		b.Services = append(b.Services, s)
	}
	if err := contradictions(st, size, b.Services); err != nil {
		return nil, err
	}
	for i := range b.Services {
		b.Services[i].fill()
	}
	b.Overlap = overlap(st.Project, b.Services)
	for _, name := range slices.Sorted(maps.Keys(st.Project.Volumes)) {
		v := Volume{Name: name, Bytes: st.VolumeBudgets[name]}
		if n := profile.Volumes[name]; n > 0 {
			v.Bytes = n
		}
		b.Volumes = append(b.Volumes, v)
	}
	if no := b.judge(b.share()); no != nil {
		return nil, no
	}
	weight := b.weights()
	steady, free := b.steady()
	for i := range b.Services {
		s := &b.Services[i]
		// The engine refuses more processors than there are, and memory that
		// is the system's is no service's.
		if s.Limit.CPU > 0 {
			s.Limit.CPU = min(s.Limit.CPU, node.CPUs)
		}
		s.Limit.Memory = max(min(s.Limit.Memory, free), s.Guaranteed.Memory)
		s.protect(st.Project.Services[s.Name], steady, weight)
	}
	return b, nil
}

// allocatable is the memory that services can be guaranteed, in bytes.
func (b *Budget) allocatable() int64 { return max(0, b.Node.Memory-b.Reserve.Memory) }

// steady is the machine with its memory rounded down. A kernel finds some pages
// more or less at each boot: what a container is made with must not follow
// them, or it would be made anew.
func (b *Budget) steady() (node Node, allocatable int64) {
	const grain = 64 * mib
	node = b.Node
	node.Memory = node.Memory / grain * grain
	return node, max(0, node.Memory-Reserve(node, len(b.Services)).Memory)
}

// guaranteed is what all services are guaranteed at one moment.
func (b *Budget) guaranteed() Amount {
	sum := Amount{CPU: -b.Overlap.CPU, Memory: -b.Overlap.Memory}
	for _, s := range b.Services {
		sum.CPU += s.Guaranteed.CPU
		sum.Memory += s.Guaranteed.Memory
	}
	sum.CPU = round(sum.CPU)
	return sum
}

// limits is the sum of all limits; a service without one of cpu adds nothing.
func (b *Budget) limits() (sum Amount) {
	for _, s := range b.Services {
		sum.CPU += s.Limit.CPU
		sum.Memory += s.Limit.Memory
		sum.Pids += s.Limit.Pids
	}
	sum.CPU = round(sum.CPU)
	return sum
}

// mostLimits is what limits of memory may add up to, in bytes.
func (b *Budget) mostLimits() int64 {
	return int64(float64(b.allocatable()) * MaxMemoryOvercommit)
}

// share gives every service without a limit of memory one: its guarantee and
// an equal part of what the ratio leaves, at most what the others' guarantees
// leave. So no service is unbounded, and one alone has the machine.
// The sum it returns, in bytes, is the least that the limits add up to on any
// machine: what is held to the ratio must not grow with the machine.
func (b *Budget) share() (least int64) {
	_, free := b.steady()
	spare, sum, without := int64(float64(free)*MaxMemoryOvercommit), int64(0), int64(0)
	for _, s := range b.Services {
		sum += s.Guaranteed.Memory
		if s.Limit.Memory > 0 {
			spare -= s.Limit.Memory
			least += s.Limit.Memory
		} else {
			spare -= s.Guaranteed.Memory
			least += s.Guaranteed.Memory + silentMemory
			without++
		}
	}
	for i := range b.Services {
		s := &b.Services[i]
		if s.Limit.Memory > 0 {
			continue
		}
		part := max(silentMemory, spare/without/mib*mib)
		most := free - (sum - s.Guaranteed.Memory)
		s.Limit.Memory = max(min(s.Guaranteed.Memory+part, most), s.Guaranteed.Memory)
	}
	return least
}

// judge holds the sums to the node and returns why it does not fit, or nil.
func (b *Budget) judge(limits int64) *Refused {
	no := &Refused{Budget: b}
	need := b.guaranteed()
	if over := need.Memory + b.Reserve.Memory - b.Node.Memory; over > 0 {
		no.Memory = over
		no.Reasons = append(no.Reasons, fmt.Sprintf("the services are guaranteed %s of memory and the system keeps %s, the machine has %s: %s are missing",
			SizeText(need.Memory), SizeText(b.Reserve.Memory), SizeText(b.Node.Memory), SizeText(over)))
	}
	if over := round(need.CPU + b.Reserve.CPU - b.Node.CPUs); over > 0 {
		no.CPU = over
		no.Reasons = append(no.Reasons, fmt.Sprintf("the services are guaranteed %s cpus and the system keeps %s, the machine has %s: %s are missing",
			cpuText(need.CPU), cpuText(b.Reserve.CPU), cpuText(b.Node.CPUs), cpuText(over)))
	}
	if most := b.mostLimits(); limits > most {
		no.Limits = limits - most
		no.Reasons = append(no.Reasons, fmt.Sprintf("the limits add up to %s of memory, which is more than %.1f times the %s that the machine has for services (%s)",
			SizeText(limits), MaxMemoryOvercommit, SizeText(b.allocatable()), SizeText(most)))
	}
	if sum, rest := b.disk(); b.Node.Data > 0 && sum > 0 && sum+b.DataReserve+rest > b.Node.Data {
		no.Disk = sum + b.DataReserve + rest - b.Node.Data
		text := fmt.Sprintf("the volumes may grow to %s and %s are kept free, the volume for data has %s: %s are missing",
			SizeText(sum), SizeText(b.DataReserve), SizeText(b.Node.Data), SizeText(no.Disk))
		if rest > 0 {
			text = strings.Replace(text, " and ", fmt.Sprintf(", those without a budget need %s, and ", SizeText(rest)), 1)
		}
		no.Reasons = append(no.Reasons, text)
	}
	if no.Reasons == nil {
		return nil
	}
	return no
}

// disk is the sum of the volumes' budgets and what those without one need.
func (b *Budget) disk() (sum, rest int64) {
	for _, v := range b.Volumes {
		sum += v.Bytes
		if v.Bytes == 0 {
			rest = leastRest
		}
	}
	return sum, rest
}
