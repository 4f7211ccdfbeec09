// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"fmt"
	"maps"
	"slices"
)

// Diff says in one line each how two budgets of a stack differ, the machine
// first; nil where they are the same. Either may be nil.
func Diff(old, now *Budget) []string {
	if old == nil || now == nil {
		return nil
	}
	var out []string
	tell := func(what string, a, b fmt.Stringer) {
		if x, y := a.String(), b.String(); x != y {
			out = append(out, fmt.Sprintf("%s: %s -> %s", what, x, y))
		}
	}
	tell("machine: cpus", cores(old.Node.CPUs), cores(now.Node.CPUs))
	tell("machine: memory", size(old.Node.Memory), size(now.Node.Memory))
	tell("machine: volume for data", size(old.Node.Data), size(now.Node.Data))
	tell("size", word(old.Size), word(now.Size))
	tell("kept for the system: cpus", cores(old.Reserve.CPU), cores(now.Reserve.CPU))
	tell("kept for the system: memory", size(old.Reserve.Memory), size(now.Reserve.Memory))
	for _, name := range names(old.Services, now.Services, func(s Service) string { return s.Name }) {
		a, had := old.Service(name)
		b, has := now.Service(name)
		if !had || !has {
			out = append(out, name+map[bool]string{true: ": new", false: ": gone"}[has])
			continue
		}
		tell(name+": class", word(a.Class), word(b.Class))
		tell(name+": cpus guaranteed", cores(a.Guaranteed.CPU), cores(b.Guaranteed.CPU))
		tell(name+": cpus at most", cores(a.Limit.CPU), cores(b.Limit.CPU))
		tell(name+": memory guaranteed", size(a.Guaranteed.Memory), size(b.Guaranteed.Memory))
		tell(name+": memory at most", size(a.Limit.Memory), size(b.Limit.Memory))
		tell(name+": processes at most", word(fmt.Sprint(a.Limit.Pids)), word(fmt.Sprint(b.Limit.Pids)))
	}
	disks := func(b *Budget) map[string]int64 {
		m := map[string]int64{}
		for _, v := range b.Volumes {
			m[v.Name] = v.Bytes
		}
		return m
	}
	a, b := disks(old), disks(now)
	for _, name := range names(old.Volumes, now.Volumes, func(v Volume) string { return v.Name }) {
		x, had := a[name]
		y, has := b[name]
		if !had || !has {
			out = append(out, "volume "+name+map[bool]string{true: ": new", false: ": gone"}[has])
			continue
		}
		tell("volume "+name, size(x), size(y))
	}
	return out
}

// names joins the names of two lists, sorted, each once.
func names[T any](a, b []T, name func(T) string) []string {
	all := map[string]bool{}
	for _, x := range slices.Concat(a, b) {
		all[name(x)] = true
	}
	return slices.Sorted(maps.Keys(all))
}

type (
	cores float64
	size  int64
	word  string
)

func (c cores) String() string {
	if c == 0 {
		return "no limit"
	}
	return cpuText(float64(c))
}

func (s size) String() string {
	if s == 0 {
		return "none"
	}
	return SizeText(int64(s))
}

func (w word) String() string { return string(w) }
