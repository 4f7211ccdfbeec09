// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/usage"
	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/compose/stack"
)

// Slices of systemd in which a box's containers run. The class slices lie
// below top, by their names.
const (
	top            = "holdfast.slice"
	criticalSlice  = "holdfast-critical.slice"
	normalSlice    = "holdfast-normal.slice"
	bestEffortPart = "holdfast-besteffort.slice"

	// systemWeight is the weight of system.slice, the kernel's default.
	systemWeight = 100
)

// sliceOf is the slice of a class; supervise puts containers there.
func sliceOf(c stack.Class) string {
	switch c {
	case stack.Critical:
		return criticalSlice
	case stack.BestEffort:
		return bestEffortPart
	}
	return normalSlice
}

// Share is what one control group is protected by and weighs, in the words of
// version 2: bytes, and weights of 1 to 10000, 0 to leave one alone.
type Share struct {
	MemoryMin, MemoryLow int64
	CPUWeight, IOWeight  int
}

// plan gives the share of each slice and of each service. It is pure.
//
// memory.min and memory.low of a group count only as far as its ancestors have
// them too, so each slice has the sum of what is in it. Together they never
// claim what is reserved for the system. One-shots are not summed, they are
// gone most of the time. Weights of slices are sums too: when all are busy each
// service has its weight's part of the machine, whatever its class. But for
// disks the stack as a whole weighs as much as the system.
func plan(b *budget.Budget) (slices, services map[string]Share) {
	slices, services = map[string]Share{}, map[string]Share{}
	room := max(0, b.Node.Memory-b.Reserve.Memory)
	for _, s := range b.Services {
		share := Share{MemoryMin: s.MemoryMin, MemoryLow: max(s.MemoryLow, s.MemoryMin), CPUWeight: s.CPUWeight, IOWeight: s.IOWeight}
		services[s.Name] = share
		if s.OneShot {
			continue
		}
		for _, name := range []string{top, sliceOf(s.Class)} {
			sum := slices[name]
			sum.MemoryMin += share.MemoryMin
			sum.MemoryLow += share.MemoryLow
			sum.CPUWeight += share.CPUWeight
			sum.IOWeight += share.IOWeight
			slices[name] = sum
		}
	}
	for name, s := range slices {
		if b.Node.Memory > 0 {
			s.MemoryMin, s.MemoryLow = min(s.MemoryMin, room), min(s.MemoryLow, room)
		}
		slices[name] = s
	}
	if s, ok := slices[top]; ok && s.IOWeight > 0 {
		s.IOWeight = systemWeight
		slices[top] = s
	}
	weigh(slices, func(s *Share) *int { return &s.CPUWeight })
	weigh(slices, func(s *Share) *int { return &s.IOWeight })
	return slices, services
}

// weigh brings the weights of the class slices into the kernel's range without
// changing their proportion; the top one is compared with the system's.
func weigh(slices map[string]Share, of func(*Share) *int) {
	most := 0
	for name, s := range slices {
		if name != top {
			most = max(most, *of(&s))
		}
	}
	for name, s := range slices {
		w := of(&s)
		if name != top && most > 10000 {
			*w = max(1, *w*10000/most)
		}
		*w = min(*w, 10000)
		slices[name] = s
	}
}

// protect gives slices and containers their shares.
func (e *Enforcer) protect(ctx context.Context, containers []Container) []status.Condition {
	if e.b == nil {
		return nil
	}
	tops, err := e.groups.Tops()
	if err != nil {
		return []status.Condition{failed("protection of services", err)}
	}
	var errs []error
	slices, services := plan(e.b)
	ours := tops.V2 && e.c.Slices
	if ours {
		for _, name := range []string{top, criticalSlice, normalSlice, bestEffortPart} {
			if share, ok := slices[name]; ok {
				errs = append(errs, e.slice(ctx, tops, name, share))
			}
		}
	}
	for _, c := range containers {
		share, ok := services[c.Service]
		if !ok {
			continue
		}
		g, ok, err := e.groups.Group(c.ID, c.PID)
		if err != nil {
			errs = append(errs, err)
		}
		if ok {
			errs = append(errs, set(g, share))
		}
	}
	var list []status.Condition
	if err := errors.Join(errs...); err != nil {
		list = append(list, failed("protection of services", err))
	}
	if !ours {
		text := "memory of services is limited but not kept for them: their control groups are not in holdfast's slices"
		if !tops.V2 {
			text = "memory of services is limited but not kept for them: control groups of version 1 can't"
		}
		list = append(list, status.Condition{Code: "memory-protection-observed", Severity: "info", Text: text,
			Remedy: "nothing on a shared host; a Holdfast box does it"})
	}
	return list
}

// slice sets a slice through systemd, which would undo what it does not know
// of. One that is as it should be is left alone.
func (e *Enforcer) slice(ctx context.Context, tops usage.Group, name string, s Share) error {
	dir := tops.Tops[""] + "/" + top
	if name != top {
		dir += "/" + name
	}
	if missing, err := differs(dir, s); err == nil && len(missing) == 0 {
		return nil
	}
	argv := []string{"systemctl", "set-property", "--runtime", name, fmt.Sprintf("MemoryMin=%d", s.MemoryMin), fmt.Sprintf("MemoryLow=%d", s.MemoryLow)}
	if s.CPUWeight > 0 {
		argv = append(argv, fmt.Sprintf("CPUWeight=%d", s.CPUWeight))
	}
	if s.IOWeight > 0 {
		argv = append(argv, fmt.Sprintf("IOWeight=%d", s.IOWeight))
	}
	_, err := e.c.Run.Run(ctx, argv...)
	return err
}

// set writes a container's share into its group. The scope is delegated to the
// runtime, which writes its files in the same way.
func set(g usage.Group, s Share) error {
	if g.V2 {
		missing, err := differs(g.Tops[""]+g.Path, s)
		if err != nil {
			return err
		}
		return write(missing)
	}
	at := func(controller, file string) string { return g.Tops[controller] + g.Path + "/" + file }
	var want []setting
	if s.CPUWeight > 0 {
		// 100 is the default of one version, 1024 of the other.
		want = append(want, setting{at("cpu", "cpu.shares"), clamp(int64(s.CPUWeight)*1024/100, 2, 262144), ""})
	}
	if s.IOWeight > 0 {
		want = append(want, setting{at("blkio", "blkio.weight"), clamp(int64(s.IOWeight)*5, 10, 1000), ""},
			setting{at("blkio", "blkio.bfq.weight"), clamp(int64(s.IOWeight), 1, 1000), ""})
	}
	if low := max(s.MemoryMin, s.MemoryLow); low > 0 {
		want = append(want, setting{at("memory", "memory.soft_limit_in_bytes"), pages(low), ""})
	}
	missing, err := compare(want)
	if err != nil {
		return err
	}
	return write(missing)
}

// setting is one file of a group and the number it should hold.
type setting struct {
	file  string
	value int64
	// word before the number, as in "default 100".
	word string
}

// differs gives what of a share a group of version 2 does not have yet.
func differs(dir string, s Share) ([]setting, error) {
	want := []setting{{dir + "/memory.min", pages(s.MemoryMin), ""}, {dir + "/memory.low", pages(s.MemoryLow), ""}}
	if s.CPUWeight > 0 {
		want = append(want, setting{dir + "/cpu.weight", clamp(int64(s.CPUWeight), 1, 10000), ""})
	}
	if s.IOWeight > 0 {
		// io.weight is io.cost's, io.bfq.weight its scheduler's: what the
		// kernel was built with is there.
		want = append(want, setting{dir + "/io.weight", clamp(int64(s.IOWeight), 1, 10000), "default "},
			setting{dir + "/io.bfq.weight", clamp(int64(s.IOWeight), 1, 1000), "default "})
	}
	return compare(want)
}

// compare leaves out what is as it should be. A file that is not there belongs
// to a controller that is not, or to a container that has ended.
func compare(want []setting) (missing []setting, err error) {
	for _, s := range want {
		data, err := os.ReadFile(s.file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		first, _, _ := strings.Cut(string(data), "\n")
		has := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(first), strings.TrimSpace(s.word)))
		if n, err := strconv.ParseInt(has, 10, 64); err != nil || n != s.value {
			missing = append(missing, s)
		}
	}
	return missing, nil
}

func write(list []setting) error {
	var errs []error
	for _, s := range list {
		f, err := os.OpenFile(s.file, os.O_WRONLY|os.O_TRUNC, 0)
		if err == nil {
			_, err = f.WriteString(s.word + strconv.FormatInt(s.value, 10))
			err = errors.Join(err, f.Close())
		}
		if err != nil && !ended(err) {
			errs = append(errs, fmt.Errorf("%s=%d: %w", path.Base(s.file), s.value, err))
		}
	}
	return errors.Join(errs...)
}

// pages rounds down as the kernel does, which counts memory in pages.
func pages(n int64) int64 { return n - n%int64(os.Getpagesize()) }

func clamp(n, low, high int64) int64 { return min(max(n, low), high) }
