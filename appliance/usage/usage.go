// SPDX-License-Identifier: Apache-2.0

// Package usage reads what the machine and the containers of a stack use:
// from the files of the kernel's control groups (version 1 and 2), /proc,
// statfs and project quotas. It never asks the engine and starts no program,
// and a read walks no folder of a volume: a volume without a project quota has
// an unknown use, unless a Gauge has measured it in the background.
//
// What is not there is left out: a container that has ended has no usage. What
// is there and can't be understood is an error, beside all that can be read.
package usage

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/holdfast/holdfast/appliance/enforce/quota"
	"github.com/holdfast/holdfast/appliance/status"
)

// Target is one container to read.
type Target struct {
	Service string
	// Container is the engine's id, 64 hexadecimal digits.
	Container string
	// PID of the container's first process makes finding its control group
	// cheap; 0 where it is not known.
	PID int
	// Volumes are the named volumes it mounts.
	Volumes []Place
}

// Place is a folder whose file system, or project, is measured.
type Place struct {
	// Name as it is shown: a volume's, or "data", "engine", "state".
	Name string
	// Path of the folder on the host.
	Path string
}

// Config of a Reader. The zero value reads the running machine.
type Config struct {
	// Root is put before every path; "" is the running machine.
	Root string
	// Disks of the node, each by a folder on it. One that is not there is
	// left out.
	Disks []Place
	// Quota reads a folder's project; quota.Get where nil.
	Quota func(path string) (quota.Usage, error)
	// Gauge knows volumes that have no quota; may be nil.
	Gauge *Gauge
	// Now is time.Now where nil.
	Now func() time.Time
}

// Reader reads usage. It keeps the places of the containers' files between
// reads. It may be used by several goroutines, one of them reads at a time.
type Reader struct {
	root  string
	disks []Place
	quota func(string) (quota.Usage, error)
	gauge *Gauge
	now   func() time.Time

	mu      sync.Mutex
	buf     []byte
	groups  groups
	entries map[string]*entry // by container id
	missed  map[string]time.Time
	parents []string // folders below a hierarchy in which containers were found
}

// New makes a Reader; it reads nothing yet.
func New(c Config) *Reader {
	r := &Reader{
		root: c.Root, disks: c.Disks, quota: c.Quota, gauge: c.Gauge, now: c.Now,
		buf: make([]byte, maxFile), entries: map[string]*entry{}, missed: map[string]time.Time{},
	}
	if r.quota == nil {
		r.quota = quota.Get
	}
	if r.now == nil {
		r.now = time.Now
	}
	return r
}

// Read gives what node and targets use, the services in the order of the
// targets. A target whose container has no control group is left out. The
// error joins what could not be read or understood; the usage is good beside
// it, with zeros for what the error names.
func (r *Reader) Read(ctx context.Context, targets []Target) (status.Usage, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := status.Usage{Time: r.now(), Services: []status.ServiceUsage{}}
	errs := []error{r.node(&u.Node)}
	r.forget(targets)
	if err := r.find(targets); err != nil {
		return u, errors.Join(append(errs, err)...)
	}
	for i := range targets {
		if err := ctx.Err(); err != nil {
			return u, errors.Join(append(errs, err)...)
		}
		s, ok, err := r.service(&targets[i])
		errs = append(errs, err)
		if ok {
			u.Services = append(u.Services, s)
		}
	}
	return u, errors.Join(errs...)
}

// V2 says whether containers are accounted for by control groups of version 2;
// it is false too where no control group is mounted.
func (r *Reader) V2() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mounts() == nil && r.groups.v2
}

func (r *Reader) service(t *Target) (s status.ServiceUsage, ok bool, err error) {
	e := r.entries[t.Container]
	if e == nil {
		return s, false, nil
	}
	s = status.ServiceUsage{Service: t.Service, Container: t.Container, Volumes: []status.DiskUsage{}}
	if r.groups.v2 {
		ok, err = r.version2(e, &s)
	} else {
		ok, err = r.version1(e, &s)
	}
	if !ok {
		// Ended since the last read; started again it may be elsewhere.
		delete(r.entries, t.Container)
		return s, false, nil
	}
	for _, v := range t.Volumes {
		s.Volumes = append(s.Volumes, r.volume(v))
	}
	return s, true, err
}

func processors() float64 { return float64(runtime.NumCPU()) }
