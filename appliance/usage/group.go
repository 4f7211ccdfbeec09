// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"errors"
	"fmt"
	"math"

	"github.com/holdfast/holdfast/appliance/status"
)

// entry is where one container's files are. They are whole paths, made once.
type entry struct {
	// path below each hierarchy.
	path string
	// Both versions.
	memory, memoryStat, memoryLimit, memoryEvents string
	cpu, cpuStat, cpuLimit, cpuPeriod             string
	pids, pidsLimit                               string
	// io holds bytes, and in version 2 requests too; ioRequests is version 1's.
	io, ioRequests string
	// Version 2.
	pressure [3]string // cpu, memory, io
}

// entry2 gives the files of a folder of version 2.
func entry2(dir string) *entry {
	return &entry{
		memory: dir + "/memory.current", memoryStat: dir + "/memory.stat", memoryLimit: dir + "/memory.max", memoryEvents: dir + "/memory.events",
		cpuStat: dir + "/cpu.stat", cpuLimit: dir + "/cpu.max",
		pids: dir + "/pids.current", pidsLimit: dir + "/pids.max", io: dir + "/io.stat",
		pressure: [3]string{dir + "/cpu.pressure", dir + "/memory.pressure", dir + "/io.pressure"},
	}
}

// entry1 gives the files below the hierarchies of version 1.
func entry1(at map[string]string, path string) *entry {
	memory, cpu, account, pids, blkio := at["memory"]+path, at["cpu"]+path, at["cpuacct"]+path, at["pids"]+path, at["blkio"]+path
	return &entry{
		memory: memory + "/memory.usage_in_bytes", memoryStat: memory + "/memory.stat", memoryLimit: memory + "/memory.limit_in_bytes", memoryEvents: memory + "/memory.oom_control",
		cpu: account + "/cpuacct.usage", cpuStat: cpu + "/cpu.stat", cpuLimit: cpu + "/cpu.cfs_quota_us", cpuPeriod: cpu + "/cpu.cfs_period_us",
		pids: pids + "/pids.current", pidsLimit: pids + "/pids.max",
		io: blkio + "/blkio.throttle.io_service_bytes_recursive", ioRequests: blkio + "/blkio.throttle.io_serviced_recursive",
	}
}

// scan reads one container's files and keeps what went wrong. A file that is
// not there is a controller that is not, and leaves its field 0.
type scan struct {
	r    *Reader
	errs []error
}

func (c *scan) get(path string) []byte {
	b, err := c.r.read(path)
	if err != nil {
		if !gone(err) {
			c.errs = append(c.errs, err)
		}
		return nil
	}
	return b
}

func (c *scan) bad(path string, b []byte) {
	c.errs = append(c.errs, fmt.Errorf("%s: not what the kernel writes: %.60q", path, b))
}

func (c *scan) number(path string) int64 {
	b := c.get(path)
	if b == nil {
		return 0
	}
	n, _, ok := single(b)
	if !ok {
		c.bad(path, b)
	}
	return n
}

// version2 reads a container's files of version 2; false where it has ended.
func (r *Reader) version2(e *entry, s *status.ServiceUsage) (bool, error) {
	c := scan{r: r}
	// Each control group has cpu.stat, whatever its controllers.
	b, err := r.read(e.cpuStat)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	usec, ok := keyed(b, "usage_usec")
	if !ok {
		c.bad(e.cpuStat, b)
	}
	s.CPUSeconds = float64(usec) / 1e6
	s.Periods, _ = keyed(b, "nr_periods")
	s.Throttled, _ = keyed(b, "nr_throttled")
	usec, _ = keyed(b, "throttled_usec")
	s.ThrottledSeconds = float64(usec) / 1e6
	if b = c.get(e.cpuLimit); b != nil {
		if s.CPULimit, ok = quotaCores(b); !ok {
			c.bad(e.cpuLimit, b)
		}
	}
	s.Memory = c.number(e.memory)
	if b = c.get(e.memoryStat); b != nil {
		inactive, ok := keyed(b, "inactive_file")
		if !ok {
			c.bad(e.memoryStat, b)
		}
		s.MemoryWorkingSet = max(0, s.Memory-inactive)
	}
	s.MemoryLimit = c.number(e.memoryLimit)
	if b = c.get(e.memoryEvents); b != nil {
		if s.OOMKills, ok = keyed(b, "oom_kill"); !ok {
			c.bad(e.memoryEvents, b)
		}
	}
	s.Pids, s.PidsLimit = c.number(e.pids), c.number(e.pidsLimit)
	if b = c.get(e.io); b != nil {
		t := ioStat(b, r.groups.counts)
		s.IORead, s.IOWritten, s.IOReadOps, s.IOWriteOps = t.read, t.written, t.reads, t.writes
	}
	if s.Pressure, err = r.pressure(e.pressure); err != nil {
		c.errs = append(c.errs, err)
	}
	return true, errors.Join(c.errs...)
}

// version1 reads a container's files of version 1; false where it has ended.
// PSI and what it says of one container do not exist there.
func (r *Reader) version1(e *entry, s *status.ServiceUsage) (bool, error) {
	c := scan{r: r}
	b, err := r.read(e.memory)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	n, _, ok := single(b)
	if !ok {
		c.bad(e.memory, b)
	}
	s.Memory = n
	if b = c.get(e.memoryStat); b != nil {
		inactive, ok := keyed(b, "total_inactive_file")
		if !ok {
			c.bad(e.memoryStat, b)
		}
		s.MemoryWorkingSet = max(0, s.Memory-inactive)
	}
	s.MemoryLimit = c.number(e.memoryLimit)
	if b = c.get(e.memoryEvents); b != nil {
		// Kernels before 4.13 count no kills.
		s.OOMKills, _ = keyed(b, "oom_kill")
	}
	s.CPUSeconds = float64(c.number(e.cpu)) / 1e9
	if b = c.get(e.cpuStat); b != nil {
		s.Periods, _ = keyed(b, "nr_periods")
		s.Throttled, _ = keyed(b, "nr_throttled")
		n, _ := keyed(b, "throttled_time")
		s.ThrottledSeconds = float64(n) / 1e9
	}
	if q := c.number(e.cpuLimit); q > 0 {
		if p := c.number(e.cpuPeriod); p > 0 {
			s.CPULimit = float64(q) / float64(p)
		}
	}
	s.Pids, s.PidsLimit = c.number(e.pids), c.number(e.pidsLimit)
	if b = c.get(e.io); b != nil {
		s.IORead, s.IOWritten = ioBytes(b, r.groups.counts)
	}
	if b = c.get(e.ioRequests); b != nil {
		s.IOReadOps, s.IOWriteOps = ioBytes(b, r.groups.counts)
	}
	return true, errors.Join(c.errs...)
}

// pressure reads the three files of PSI; nil without PSI.
func (r *Reader) pressure(paths [3]string) (*status.Pressure, error) {
	var some, full [3]float64
	for i, path := range paths {
		b, err := r.read(path)
		// EOPNOTSUPP: PSI is compiled in and switched off.
		if gone(err) || off(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		var ok bool
		if some[i], full[i], ok = averages(b); !ok {
			return nil, fmt.Errorf("%s: not what the kernel writes: %.60q", path, b)
		}
	}
	return &status.Pressure{CPUSome: some[0], MemorySome: some[1], MemoryFull: full[1], IOSome: some[2], IOFull: full[2]}, nil
}

// disk gives statfs in bytes, as df counts: what root keeps for itself is
// neither used nor there.
func disk(blocks, free, available uint64, size int64) (used, total int64) {
	if size <= 0 || blocks > uint64(math.MaxInt64/size) || free > blocks || available > free {
		return 0, 0
	}
	used = int64(blocks-free) * size
	return used, used + int64(available)*size
}
