// SPDX-License-Identifier: Apache-2.0

package ova

import (
	"testing"

	"github.com/holdfast/holdfast/compose/budget"
)

// TestSizesOfTheRelease: the machine is one that the release was proven for,
// the smallest where none is named.
func TestSizesOfTheRelease(t *testing.T) {
	sizes := []budget.Size{{Name: "XS", CPUs: 8, MemoryMiB: 32 << 10, DiskGiB: 50}, {Name: "M", CPUs: 32, MemoryMiB: 128 << 10, DiskGiB: 100}}
	for _, c := range []struct {
		size         string
		cpus, memory int
		disk         int64
	}{{"", 8, 32 << 10, 50 << 30}, {"M", 32, 128 << 10, 100 << 30}} {
		r, err := Options{Size: c.size}.resolve("shop", "1.0.0", sizes)
		if err != nil {
			t.Fatal(err)
		}
		if r.ovf.CPUs != c.cpus || r.ovf.MemoryMiB != c.memory || r.profileDisk != c.disk {
			t.Errorf("size %q: %d cpus, %d MiB, disk %d", c.size, r.ovf.CPUs, r.ovf.MemoryMiB, r.profileDisk)
		}
	}
	want := `size: the budgets of this release do not fit size "S": use one of XS, M`
	if _, err := (Options{Size: "S"}).resolve("shop", "1.0.0", sizes); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
