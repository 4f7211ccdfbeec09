// SPDX-License-Identifier: Apache-2.0

package sourcegraph

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/compose/budget"
)

const gib = int64(1) << 30

// machines are those the vendor recommends.
var machines = []struct {
	size   string
	cpus   float64
	memory int64
}{{"XS", 8, 32 * gib}, {"S", 16, 64 * gib}, {"M", 32, 128 * gib}, {"L", 48, 192 * gib}, {"XL", 96, 384 * gib}}

// TestEverySizeFitsItsMachine, as it is sold and with the sixteenth less that
// a kernel may show of it, with the volume that a disk of 500 GB gives.
func TestEverySizeFitsItsMachine(t *testing.T) {
	st := load(t, ourDir)
	for _, m := range machines {
		for _, memory := range []int64{m.memory, m.memory - m.memory/16} {
			node := budget.Node{CPUs: m.cpus, Memory: memory, Data: 362 * gib}
			b, err := budget.For(st, "", node)
			if err != nil {
				t.Errorf("%s on %.0f cpus and %d bytes:\n%v", m.size, m.cpus, memory, err)
				continue
			}
			if b.Size != m.size {
				t.Errorf("%.0f cpus and %d bytes are size %s, want %s", m.cpus, memory, b.Size, m.size)
			}
			// Proved here, by another sum than the calculator's own: no
			// overlap is counted, every service is up at once.
			cpu, guaranteed := b.Reserve.CPU, b.Reserve.Memory
			for _, s := range b.Services {
				cpu, guaranteed = cpu+s.Guaranteed.CPU, guaranteed+s.Guaranteed.Memory
				if s.Guaranteed.Memory > s.Limit.Memory || s.Limit.Memory > memory || s.Guaranteed.Memory == 0 || s.FromLimit {
					t.Errorf("%s: %s is guaranteed %d of at most %d bytes", m.size, s.Name, s.Guaranteed.Memory, s.Limit.Memory)
				}
			}
			if cpu > m.cpus || guaranteed > memory {
				t.Errorf("%s: %.2f cpus and %d bytes are promised of %.0f and %d", m.size, cpu, guaranteed, m.cpus, memory)
			}
		}
	}
}

// TestReleasable: the bake's own proof passes for all five sizes.
func TestReleasable(t *testing.T) {
	sizes, err := budget.Prove(load(t, ourDir))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"m6a.2xlarge", "m6a.4xlarge", "m6a.8xlarge", "m6a.12xlarge", "m6a.24xlarge"} {
		if len(sizes) != 5 || sizes[i].EC2 != want {
			t.Fatalf("sizes are %+v, want the machine %s for number %d of 5", sizes, want, i+1)
		}
	}
}

// TestNextSizeIsRefused: a size on the machine of the one below does not fit,
// so the numbers are not merely small.
func TestNextSizeIsRefused(t *testing.T) {
	st := load(t, ourDir)
	for i, m := range machines[:len(machines)-1] {
		next := machines[i+1].size
		var no *budget.Refused
		if _, err := budget.For(st, next, budget.Node{CPUs: m.cpus, Memory: m.memory, Data: 362 * gib}); !errors.As(err, &no) {
			t.Errorf("size %s on the machine of %s: %v, want a refusal", next, m.size, err)
		}
	}
}

// TestPublicDeploymentIsRefused: 151.6 GiB of limits and no reservation, on
// the machine of XS. The table names every service and what it asks for.
func TestPublicDeploymentIsRefused(t *testing.T) {
	st := load(t, publicDir)
	_, err := budget.For(st, "XS", budget.Node{CPUs: 8, Memory: 32 * gib, Data: 362 * gib})
	var no *budget.Refused
	if !errors.As(err, &no) {
		t.Fatalf("got %v, want a refusal", err)
	}
	got := fmt.Sprintln(no)
	for _, name := range st.Services {
		if !strings.Contains(got, name) {
			t.Errorf("the table does not name %s", name)
		}
	}
	if !strings.Contains(got, "151.6 GiB") {
		t.Error("the table does not show the sum of 151.6 GiB")
	}
}
