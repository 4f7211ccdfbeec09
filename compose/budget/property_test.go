// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"sort"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"pgregory.net/rapid"

	"github.com/holdfast/holdfast/compose/stack"
)

// anyStack makes stacks that Load could have made: reservations are not above
// limits, dependencies point to earlier services.
func anyStack(t *rapid.T, most int) *stack.Stack {
	st := &stack.Stack{Name: "any", Project: &types.Project{Services: types.Services{}, Volumes: types.Volumes{}},
		Extensions: map[string]stack.Extension{}, VolumeBudgets: map[string]int64{}}
	memory := rapid.Int64Range(6*mib, 64*gib)
	for i := range rapid.IntRange(1, most).Draw(t, "services") {
		s := types.ServiceConfig{Name: fmt.Sprintf("s%02d", i)}
		s.DependsOn = types.DependsOnConfig{}
		r := types.Resources{}
		limit, cpu := int64(0), float32(0)
		if rapid.Bool().Draw(t, "limited") {
			limit, cpu = memory.Draw(t, "limit"), float32(rapid.IntRange(1, 1600).Draw(t, "cpus"))/100
			r.Limits = &types.Resource{MemoryBytes: types.UnitBytes(limit), NanoCPUs: types.NanoCPUs(cpu)}
		}
		if rapid.Bool().Draw(t, "reserves") {
			if limit == 0 {
				limit, cpu = 64*gib, 16
			}
			r.Reservations = &types.Resource{MemoryBytes: types.UnitBytes(rapid.Int64Range(1, limit).Draw(t, "reserved")),
				NanoCPUs: types.NanoCPUs(cpu * float32(rapid.IntRange(1, 100).Draw(t, "share")) / 100)}
		}
		if r.Limits != nil || r.Reservations != nil {
			s.Deploy = &types.DeployConfig{Resources: r}
		}
		for _, dep := range st.Services {
			switch rapid.IntRange(0, 5).Draw(t, "dependency") {
			case 0:
				s.DependsOn[dep] = types.ServiceDependency{Condition: types.ServiceConditionCompletedSuccessfully, Required: true}
			case 1:
				s.DependsOn[dep] = types.ServiceDependency{Condition: types.ServiceConditionHealthy, Required: true}
			}
		}
		st.Project.Services[s.Name] = s
		st.Services = append(st.Services, s.Name)
		st.Extensions[s.Name] = stack.Extension{Class: rapid.SampledFrom([]stack.Class{stack.Critical, stack.Normal, stack.BestEffort}).Draw(t, "class")}
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "volumes") {
		name := fmt.Sprintf("v%d", i)
		st.Project.Volumes[name] = types.VolumeConfig{}
		if rapid.Bool().Draw(t, "budgeted") {
			st.VolumeBudgets[name] = rapid.Int64Range(mib, 100*gib).Draw(t, "disk")
		}
	}
	return st
}

func anyNode(t *rapid.T) Node {
	return Node{CPUs: float64(rapid.IntRange(1, 128).Draw(t, "node cpus")), Memory: rapid.Int64Range(256*mib, 512*gib).Draw(t, "node memory"),
		Data: rapid.Int64Range(0, 1*tib).Draw(t, "node data")}
}

// TestAdmittedMeansItFits adds up again, in its own way.
func TestAdmittedMeansItFits(t *testing.T) {
	admitted := 0
	rapid.Check(t, func(t *rapid.T) {
		st, n := anyStack(t, 10), anyNode(t)
		if rapid.Bool().Draw(t, "tight") {
			n.Memory = tight(t, st)
		}
		b, err := For(st, "XS", n)
		var no *Refused
		if errors.As(err, &no) {
			// What it says to do is true.
			cpus, memory := no.least()
			n := Node{CPUs: max(float64(cpus), n.CPUs), Memory: max(memory, n.Memory)}
			if no.Disk > 0 {
				n.Data = no.leastData()
			}
			if _, err := For(st, "XS", n); err != nil {
				t.Errorf("refused on the machine it asks for: %v", err)
			}
			return
		} else if err != nil {
			t.Fatal(err)
		}
		admitted++
		free := b.Node.Memory - b.Reserve.Memory
		protected, limits := int64(0), int64(0)
		for _, s := range b.Services {
			if s.Guaranteed.CPU <= 0 || s.Guaranteed.Memory <= 0 || s.Guaranteed.CPU > n.CPUs || s.Guaranteed.Memory > free {
				t.Errorf("guarantee of %+v", s)
			}
			if s.Limit.Memory < s.Guaranteed.Memory || s.Limit.Memory > free || s.Limit.CPU < 0 || s.Limit.CPU > n.CPUs || s.Limit.Pids <= 0 {
				t.Errorf("limit of %+v", s)
			}
			if s.OOMScoreAdj < -400 || s.OOMScoreAdj > 1000 || s.CPUWeight < 1 || s.CPUWeight > 10000 || s.IOWeight < 1 || s.IOWeight > 10000 {
				t.Errorf("protection of %+v", s)
			}
			if s.MemoryMin+s.MemoryLow > s.Guaranteed.Memory {
				t.Errorf("more is protected than guaranteed: %+v", s)
			}
			if !s.OneShot {
				protected += s.MemoryMin + s.MemoryLow
			}
			limits += s.Limit.Memory
		}
		if protected > free {
			t.Errorf("%d bytes are protected, %d are there", protected, free)
		}
		if float64(limits) > MaxMemoryOvercommit*float64(free)+1 {
			t.Errorf("limits add up to %d, %d are there", limits, free)
		}
		// Weights keep the proportion of the guarantees.
		for _, s := range b.Services {
			for _, o := range b.Services {
				if s.Guaranteed.CPU > o.Guaranteed.CPU && s.CPUWeight < o.CPUWeight {
					t.Errorf("%+v weighs less than %+v", s, o)
				}
			}
			if least := int(min(s.Guaranteed.CPU*100, 10000)); s.CPUWeight < least {
				t.Errorf("%+v weighs less than %d", s, least)
			}
		}
		if cpu, memory := peak(st, b); memory > free || cpu > n.CPUs-b.Reserve.CPU+1e-3 {
			t.Errorf("at one moment %v cpus and %d bytes are guaranteed", cpu, memory)
		}
		disk := b.DataReserve
		for _, v := range b.Volumes {
			disk += v.Bytes
		}
		if n.Data > 0 && disk > n.Data && disk > b.DataReserve {
			t.Errorf("disk budgets add up to %d of %d", disk, n.Data)
		}
		// What is kept on disk reads back as the same budget.
		var again Budget
		if data, err := json.Marshal(b); err != nil || json.Unmarshal(data, &again) != nil || !reflect.DeepEqual(*b, again) {
			t.Errorf("%+v\nread back as %+v", *b, again)
		}
		if d := Diff(b, &again); d != nil {
			t.Errorf("differs from itself: %q", d)
		}
	})
	if admitted == 0 {
		t.Error("no stack was admitted: the test tests nothing")
	}
}

// tight is the memory that the guarantees of a stack need, to the byte.
func tight(t *rapid.T, st *stack.Stack) int64 {
	b, err := For(st, "XS", Node{CPUs: 4096, Memory: 1 << 50})
	if err != nil {
		t.Fatal(err)
	}
	need := b.guaranteed().Memory
	return int64(sort.Search(1<<50, func(n int) bool {
		return int64(n)-Reserve(Node{CPUs: 1, Memory: int64(n)}, len(b.Services)).Memory >= need
	}))
}

// peak is the most that is guaranteed at any moment, by trying all of them: a
// one-shot never runs beside a service that waits for its end, directly or
// through others.
func peak(st *stack.Stack, b *Budget) (cpu float64, memory int64) {
	var waits func(s, once string) bool
	waits = func(s, once string) bool {
		for dep, d := range st.Project.Services[s].DependsOn {
			if dep == once && d.Condition == types.ServiceConditionCompletedSuccessfully || waits(dep, once) {
				return true
			}
		}
		return false
	}
	n := len(b.Services)
	never := make([]int, n) // bits of the services that never run beside this one
	for i, s := range b.Services {
		for j, o := range b.Services {
			if waits(s.Name, o.Name) && o.OneShot {
				never[i] |= 1 << j
			}
		}
	}
	for set := range 1 << n {
		c, m := 0.0, int64(0)
		for i, s := range b.Services {
			if set>>i&1 == 0 {
				continue
			}
			if never[i]&set != 0 {
				c, m = 0, math.MinInt64
				break
			}
			c, m = c+s.Guaranteed.CPU, m+s.Guaranteed.Memory
		}
		if m >= 0 {
			cpu, memory = max(cpu, c), max(memory, m)
		}
	}
	return cpu, memory
}

// TestLargerMachinesAdmitMore is what lets a box grow without a thought.
func TestLargerMachinesAdmitMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		st, n := anyStack(t, 8), anyNode(t)
		larger := Node{CPUs: n.CPUs + float64(rapid.IntRange(0, 8).Draw(t, "more cpus")), Memory: n.Memory + rapid.Int64Range(0, 8*gib).Draw(t, "more memory")}
		if n.Data > 0 {
			larger.Data = n.Data + rapid.Int64Range(0, 8*gib).Draw(t, "more data")
		}
		a, b := Reserve(n, len(st.Services)), Reserve(larger, len(st.Services))
		if b.CPU < a.CPU || b.Memory < a.Memory || b.CPU-a.CPU > larger.CPUs-n.CPUs || b.Memory-a.Memory > larger.Memory-n.Memory {
			t.Errorf("reserve %+v of %+v, %+v of %+v", a, n, b, larger)
		}
		small, err := For(st, "XS", n)
		if err != nil {
			return
		}
		big, err := For(st, "XS", larger)
		if err != nil {
			t.Fatalf("admitted on %+v, on %+v: %v", n, larger, err)
		}
		for i, s := range small.Services {
			if g := big.Services[i]; g.Guaranteed != s.Guaranteed || g.Limit.CPU < s.Limit.CPU || g.Limit.Memory < s.Limit.Memory {
				t.Errorf("%+v on the larger machine is %+v", s, g)
			}
		}
	})
}
