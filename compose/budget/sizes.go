// SPDX-License-Identifier: Apache-2.0

// Package budget says what a machine has and what a stack may use of it: what
// each service is guaranteed, what it may use at most, what the system keeps,
// and whether all of it fits. It takes a loaded stack, one of its sizes and a
// machine, and refuses what does not fit with the table that shows why. It
// measures and enforces nothing.
package budget

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/compose/stack"
)

// Size is a machine we recommend.
type Size struct {
	// Name is XS, S, M, L or XL.
	Name string `json:"name"`
	// CPUs are virtual processors, MemoryMiB is memory in MiB.
	CPUs      int `json:"cpus"`
	MemoryMiB int `json:"memory_mib"`
	// DiskGiB is the system disk in GiB: release, state and, without a data
	// disk, the services' volumes.
	DiskGiB int `json:"disk_gib"`
	// DataGiB is the data disk we recommend where volumes shall survive the
	// machine, in GiB.
	DataGiB int `json:"data_gib"`
	// EC2 and GCE are the cloud's names of such a machine.
	EC2 string `json:"ec2"`
	GCE string `json:"gce"`
}

// DefaultSize is what a target is made for when nothing else is said.
const DefaultSize = "XS"

// Sizes lists the profiles, smallest first.
func Sizes() []Size {
	return []Size{
		{"XS", 2, 4 << 10, 20, 20, "t3.medium", "e2-medium"},
		{"S", 4, 16 << 10, 50, 100, "m6a.xlarge", "n2-standard-4"},
		{"M", 8, 32 << 10, 50, 250, "m6a.2xlarge", "n2-standard-8"},
		{"L", 16, 64 << 10, 100, 500, "m6a.4xlarge", "n2-standard-16"},
		{"XL", 32, 128 << 10, 100, 1000, "m6a.8xlarge", "n2-standard-32"},
	}
}

// SizeOf finds a profile by its name; "" is DefaultSize.
func SizeOf(name string) (Size, error) {
	if name == "" {
		name = DefaultSize
	}
	var known []string
	for _, s := range Sizes() {
		if s.Name == name {
			return s, nil
		}
		known = append(known, s.Name)
	}
	return Size{}, fmt.Errorf("size %q is not known: use one of %s", name, strings.Join(known, ", "))
}

// SizeIn finds a size among those a release is made for; "" is the smallest.
// Without any it is SizeOf.
func SizeIn(sizes []Size, name string) (Size, error) {
	if len(sizes) == 0 {
		return SizeOf(name)
	}
	var known []string
	for _, s := range sizes {
		if name == "" || s.Name == name {
			return s, nil
		}
		known = append(known, s.Name)
	}
	return Size{}, fmt.Errorf("the budgets of this release do not fit size %q: use one of %s", name, strings.Join(known, ", "))
}

// seen is what a kernel finds of the memory that a machine is sold with: its
// own image, the descriptors of all pages and the firmware's part are gone by
// then. One part in sixteen is allowed for it.
func seen(nominal int64) int64 { return nominal - nominal/16 }

// Node is the machine as its kernel sees it, at least. Its volume for data is
// what first boot makes of a data disk: four fifths, the rest is for one
// snapshot, and a hundredth for LVM.
func (s Size) Node() Node {
	return Node{CPUs: float64(s.CPUs), Memory: seen(int64(s.MemoryMiB) * mib), Data: int64(s.DataGiB) * gib / 100 * 78}
}

// machines are general-purpose machines of the clouds with 4 GiB a processor;
// "" where a cloud has none of that size.
var machines = []struct {
	cpus     int
	ec2, gce string
}{
	{2, "m6a.large", "n2-standard-2"}, {4, "m6a.xlarge", "n2-standard-4"}, {8, "m6a.2xlarge", "n2-standard-8"},
	{16, "m6a.4xlarge", "n2-standard-16"}, {32, "m6a.8xlarge", "n2-standard-32"}, {48, "m6a.12xlarge", "n2-standard-48"},
	{64, "m6a.16xlarge", "n2-standard-64"}, {96, "m6a.24xlarge", "n2-standard-96"}, {128, "m6a.32xlarge", "n2-standard-128"},
}

// SizesOf lists the machines a stack is made for, smallest first: its own
// sizes, or Sizes() where it names none. What a size of its own leaves out is
// as in Sizes(); its system disk is that of the size there with such a memory.
func SizesOf(st *stack.Stack) []Size {
	if len(st.Profiles) == 0 {
		return Sizes()
	}
	var out []Size
	for _, p := range st.Profiles {
		s, err := SizeOf(p.Name)
		if err != nil {
			continue // Load takes no other names
		}
		if p.CPUs == 0 && p.Memory == 0 && p.Data == 0 {
			out = append(out, s)
			continue
		}
		s.CPUs = cmp.Or(int(math.Ceil(p.CPUs)), s.CPUs)
		s.MemoryMiB = cmp.Or(int((p.Memory+mib-1)/mib), s.MemoryMiB)
		if p.Data > 0 { // the disk whose 78% are the volume
			s.DataGiB = int((p.Data/78*100 + gib - 1) / gib)
		}
		if i := slices.IndexFunc(Sizes(), func(like Size) bool { return like.MemoryMiB >= s.MemoryMiB }); i >= 0 {
			s.DiskGiB = Sizes()[i].DiskGiB
		} else {
			s.DiskGiB = Sizes()[len(Sizes())-1].DiskGiB
		}
		s.EC2, s.GCE = "", ""
		for _, m := range machines {
			if m.cpus >= s.CPUs && m.cpus*4<<10 >= s.MemoryMiB {
				s.EC2, s.GCE = m.ec2, m.gce
				break
			}
		}
		out = append(out, s)
	}
	return out
}

// Fitting lists the names of a stack's sizes whose machine a node is, smallest
// first. A node may lack the part of the memory that its kernel does not see,
// and a size says nothing about data unless the stack does.
func Fitting(st *stack.Stack, n Node) []string {
	var out []string
	for _, s := range SizesOf(st) {
		data := dataOf(st, s.Name)
		if n.CPUs >= float64(s.CPUs) && n.Memory >= seen(int64(s.MemoryMiB)*mib) && (n.Data == 0 || n.Data >= data) {
			out = append(out, s.Name)
		}
	}
	return out
}

// NodeSize is the largest of a stack's sizes that a node is made for, "" where
// the node is smaller than all of them.
func NodeSize(st *stack.Stack, n Node) string {
	fit := Fitting(st, n)
	if len(fit) == 0 {
		return ""
	}
	return fit[len(fit)-1]
}

// NodeOf is Size.Node with the volume for data that the stack asks of it.
func NodeOf(st *stack.Stack, s Size) Node {
	n := s.Node()
	n.Data = cmp.Or(dataOf(st, s.Name), n.Data)
	return n
}

// dataOf is the volume for data, in bytes, that a stack asks of a size; 0 where
// it does not.
func dataOf(st *stack.Stack, size string) int64 {
	for _, p := range st.Profiles {
		if p.Name == size {
			return p.Data
		}
	}
	return 0
}

// Prove returns the sizes that a stack may be released for: all of its own, or
// those of Sizes() that it fits. The error is a *Refused where one of its own
// does not fit, or none at all.
func Prove(st *stack.Stack) ([]Size, error) {
	var out []Size
	var first error
	for _, s := range SizesOf(st) {
		_, err := at(st, s.Name, NodeOf(st, s))
		var no *Refused
		switch {
		case err == nil:
			out = append(out, s)
		case len(st.Profiles) > 0 || !errors.As(err, &no):
			return nil, err
		default:
			first = err // of the largest, in the end
		}
	}
	if out == nil {
		return nil, first
	}
	return out, nil
}

// profileOf is what a stack says about one of its sizes.
func profileOf(st *stack.Stack, name string) (stack.Profile, error) {
	var known []string
	for _, s := range SizesOf(st) {
		if known = append(known, s.Name); s.Name == name {
			i := slices.IndexFunc(st.Profiles, func(p stack.Profile) bool { return p.Name == name })
			if i < 0 {
				return stack.Profile{Name: name}, nil
			}
			return st.Profiles[i], nil
		}
	}
	return stack.Profile{}, fmt.Errorf("the stack %s is not made for size %q: use one of %s", st.Name, name, strings.Join(known, ", "))
}
