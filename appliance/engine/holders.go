// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// Limits are what `docker update` can change of a container: a value that
// compares. Sizes are in bytes, 0 or "" is the engine's default.
type Limits struct {
	CPUShares         int64  `json:"cpu_shares,omitempty"`
	NanoCPUs          int64  `json:"nano_cpus,omitempty"`
	CPUPeriod         int64  `json:"cpu_period,omitempty"`
	CPUQuota          int64  `json:"cpu_quota,omitempty"`
	CpusetCpus        string `json:"cpuset_cpus,omitempty"`
	CpusetMems        string `json:"cpuset_mems,omitempty"`
	Memory            int64  `json:"memory,omitempty"`
	MemorySwap        int64  `json:"memory_swap,omitempty"`
	MemoryReservation int64  `json:"memory_reservation,omitempty"`
	Pids              int64  `json:"pids,omitempty"`
	BlkioWeight       uint16 `json:"blkio_weight,omitempty"`
	// Restart is the engine's own restart policy, "no" for "".
	Restart    string `json:"restart,omitempty"`
	RestartMax int    `json:"restart_max,omitempty"`
}

func limits(h *container.HostConfig) Limits {
	if h == nil {
		return Limits{}
	}
	l := Limits{
		CPUShares: h.CPUShares, NanoCPUs: h.NanoCPUs, CPUPeriod: h.CPUPeriod, CPUQuota: h.CPUQuota,
		CpusetCpus: h.CpusetCpus, CpusetMems: h.CpusetMems,
		Memory: h.Memory, MemorySwap: h.MemorySwap, MemoryReservation: h.MemoryReservation,
		BlkioWeight: h.BlkioWeight, Restart: string(h.RestartPolicy.Name), RestartMax: h.RestartPolicy.MaximumRetryCount,
	}
	if h.PidsLimit != nil && *h.PidsLimit > 0 {
		l.Pids = *h.PidsLimit
	}
	if l.Restart == "no" {
		l.Restart = ""
	}
	return l
}

// Reaches reports whether Update can lead from one set of limits to the other:
// the engine takes a 0 for "leave it as it is", except for pids and restart.
func (l Limits) Reaches(to Limits) bool {
	kept := l
	if to.CPUShares != 0 {
		kept.CPUShares = to.CPUShares
	}
	if to.NanoCPUs != 0 {
		kept.NanoCPUs = to.NanoCPUs
	}
	if to.CPUPeriod != 0 {
		kept.CPUPeriod = to.CPUPeriod
	}
	if to.CPUQuota != 0 {
		kept.CPUQuota = to.CPUQuota
	}
	if to.CpusetCpus != "" {
		kept.CpusetCpus = to.CpusetCpus
	}
	if to.CpusetMems != "" {
		kept.CpusetMems = to.CpusetMems
	}
	if to.Memory != 0 {
		kept.Memory = to.Memory
	}
	if to.MemorySwap != 0 {
		kept.MemorySwap = to.MemorySwap
	}
	if to.MemoryReservation != 0 {
		kept.MemoryReservation = to.MemoryReservation
	}
	if to.BlkioWeight != 0 {
		kept.BlkioWeight = to.BlkioWeight
	}
	kept.Pids, kept.Restart, kept.RestartMax = to.Pids, to.Restart, to.RestartMax
	return kept == to
}

// Holder is any container of the engine with what it holds that another one
// may want.
type Holder struct {
	ID, Name string
	// Project is its Compose project, "" where it has none.
	Project string
	// Ports are the host ports it has now, as "80/tcp".
	Ports []string
}

// Holders lists every container of the engine, of whatever project.
func (d *Docker) Holders(ctx context.Context) ([]Holder, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	l, err := d.cli.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, wrap("list all containers", err)
	}
	out := make([]Holder, 0, len(l.Items))
	for _, it := range l.Items {
		h := Holder{ID: it.ID, Project: it.Labels[ProjectLabel]}
		if len(it.Names) > 0 {
			h.Name = strings.TrimPrefix(it.Names[0], "/")
		}
		for _, p := range it.Ports {
			if p.PublicPort != 0 {
				h.Ports = append(h.Ports, fmt.Sprintf("%d/%s", p.PublicPort, p.Type))
			}
		}
		out = append(out, h)
	}
	return out, nil
}

// Container inspects one container by id or name.
func (d *Docker) Container(ctx context.Context, id string) (Container, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	r, err := d.cli.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return Container{}, wrap("inspect container "+id, err)
	}
	return fromInspect(r.Container), nil
}

// Rename gives a container another name; it runs on.
func (d *Docker) Rename(ctx context.Context, id, name string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	_, err := d.cli.ContainerRename(ctx, id, client.ContainerRenameOptions{NewName: name})
	return wrap("rename", err)
}

// Update sets limits of a container; it runs on. What is 0 stays as it is,
// see Reaches.
func (d *Docker) Update(ctx context.Context, id string, l Limits) error {
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	restart := l.Restart
	if restart == "" {
		restart = "no"
	}
	_, err := d.cli.ContainerUpdate(ctx, id, client.ContainerUpdateOptions{
		Resources: &container.Resources{
			CPUShares: l.CPUShares, NanoCPUs: l.NanoCPUs, CPUPeriod: l.CPUPeriod, CPUQuota: l.CPUQuota,
			CpusetCpus: l.CpusetCpus, CpusetMems: l.CpusetMems,
			Memory: l.Memory, MemorySwap: l.MemorySwap, MemoryReservation: l.MemoryReservation,
			BlkioWeight: l.BlkioWeight, PidsLimit: &l.Pids,
		},
		RestartPolicy: &container.RestartPolicy{Name: container.RestartPolicyMode(restart), MaximumRetryCount: l.RestartMax},
	})
	return wrap("update", err)
}

// Wait waits until a container has ended, at most until ctx does, and returns
// its exit code. One that has ended already is no error.
func (d *Docker) Wait(ctx context.Context, id string) (code int, err error) {
	w := d.cli.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case r := <-w.Result:
		if r.Error != nil {
			return 0, errors.New("wait: " + r.Error.Message)
		}
		return int(r.StatusCode), nil
	case err := <-w.Error:
		if errdefs.IsNotFound(err) {
			return 0, fmt.Errorf("wait: %w: %v", ErrNotFound, err)
		}
		return 0, wrap("wait", err)
	}
}
