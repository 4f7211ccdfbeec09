// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/appliance/enforce/quota"
	"github.com/holdfast/holdfast/appliance/status"
)

func off(err error) bool { return errors.Is(err, unix.EOPNOTSUPP) }

func (r *Reader) node(n *status.NodeUsage) error {
	n.Disks = []status.DiskUsage{}
	var errs []error
	if b, err := r.read(r.root + "/proc/stat"); err != nil {
		errs = append(errs, err)
	} else if busy, cpus, err := stat(b); err != nil {
		errs = append(errs, fmt.Errorf("%s/proc/stat: %w", r.root, err))
	} else {
		n.CPUSeconds, n.CPUs = busy, float64(cpus)
	}
	if n.CPUs == 0 {
		n.CPUs = processors()
	}
	if b, err := r.read(r.root + "/proc/meminfo"); err != nil {
		errs = append(errs, err)
	} else {
		total, ok1 := keyed(b, "MemTotal")
		available, ok2 := keyed(b, "MemAvailable")
		const most = int64(1) << 52 // kibibytes
		if !ok1 || !ok2 || total > most || available > most {
			errs = append(errs, fmt.Errorf("%s/proc/meminfo: no MemTotal or MemAvailable", r.root))
		} else {
			n.MemoryTotal, n.MemoryAvailable = total<<10, available<<10
		}
	}
	var err error
	at := r.root + "/proc/pressure/"
	if n.Pressure, err = r.pressure([3]string{at + "cpu", at + "memory", at + "io"}); err != nil {
		errs = append(errs, err)
	}
	for _, d := range r.disks {
		u, err := r.disk(d)
		if gone(err) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		n.Disks = append(n.Disks, u)
	}
	return errors.Join(errs...)
}

// disk is a file system as a whole, or the project of the place where that
// has a limit of its own.
func (r *Reader) disk(p Place) (status.DiskUsage, error) {
	path := r.root + p.Path
	d := status.DiskUsage{Name: p.Name}
	if q, err := r.quota(path); err == nil && q.Limit > 0 {
		d.Used, d.Total, d.Enforced = q.Used, q.Limit, true
		return d, nil
	} else if err != nil && !errors.Is(err, quota.ErrNone) && !errors.Is(err, unix.ENOENT) {
		return d, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return d, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	d.Used, d.Total = disk(st.Blocks, st.Bfree, st.Bavail, st.Bsize)
	return d, nil
}

// volume is what one volume uses: exact by its project, measured by the gauge
// where it has none, else unknown.
func (r *Reader) volume(p Place) status.DiskUsage {
	path := r.root + p.Path
	d := status.DiskUsage{Name: p.Name}
	if q, err := r.quota(path); err == nil {
		d.Used, d.Total, d.Enforced = q.Used, q.Limit, q.Limit > 0
		return d
	}
	if bytes, at, ok := r.gauge.get(path); ok {
		d.Used, d.Measured = bytes, at
		return d
	}
	d.Unknown = true
	return d
}
