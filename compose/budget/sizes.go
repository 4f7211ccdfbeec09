// SPDX-License-Identifier: Apache-2.0

// Package budget says what a machine has and what a stack may use of it. So
// far it holds the size profiles: the machines we recommend and test for.
package budget

import (
	"fmt"
	"strings"
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
