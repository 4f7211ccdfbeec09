// SPDX-License-Identifier: Apache-2.0

package exporter

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// sample is a box with two services, one of which is in trouble.
func sample() (status.Report, status.Usage) {
	r := status.Report{
		Release: status.Release{Name: "shop", Version: "2.3.0", OS: "a1b2c3"}, Generation: 7, Slot: "A",
		Root: status.Root{Hash: "00ff", Verified: true, ReadOnly: true}, MachineID: "0123abcd", Hostname: "box1", Platform: "qemu",
		Stack:    "degraded",
		Engine:   &status.Engine{Up: true, Version: "26.1.5", Mends: 1},
		Pressure: &status.PressureState{Level: "warn", Resource: "memory"},
		Budget: &status.NodeBudget{Size: "S", Node: status.Share{CPU: 4, Memory: 16 << 30}, Reserve: status.Share{CPU: 0.1, Memory: 1 << 30},
			Guaranteed: status.Share{CPU: 2, Memory: 8 << 30}, Limits: status.Share{CPU: 6, Memory: 12 << 30}, Admitted: true, Enforcement: "cgroup v2"},
		Conditions: []status.Condition{{Code: "service-crash-loop", Severity: "critical"}, {Code: "service-failed", Severity: "warning"}, {Code: "service-failed", Severity: "warning"}},
		Timings:    status.Timings{DaemonStarted: 9.5, ImagesLoaded: 20},
		Upgrade: &status.Upgrade{State: "fetching", Kind: "upgrade", Target: "shop 2.4.0", Done: 30 << 20, Total: 100 << 20, Reused: 20 << 20,
			Channel: "stable", Source: "https://r.example/shop", Available: "shop 2.4.0", Checked: noon.Add(-time.Hour), Kept: "shop 2.2.0", KeptGeneration: 6, Quarantined: 1,
			Last: &status.UpgradeResult{Generation: 7, Runs: 6, Kind: "upgrade", From: "shop 2.2.0", To: "shop 2.3.1", Result: "rolled-back", Why: "web never got healthy",
				End: noon.Add(-2 * time.Hour), Down: 61_500, Fetched: 5 << 20, Reused: 95 << 20}},
		Services: []status.Service{
			{Name: "db", Image: "db@sha256:aa", Container: "c1", ContainerName: "shop-db-1", State: "running", Health: "healthy", Restarts: 3,
				RestartsBy: map[string]int{"unhealthy": 2}, Since: noon.Add(-time.Hour), Class: "critical",
				Budget: &status.ServiceBudget{Guaranteed: status.Share{CPU: 1, Memory: 2 << 30}, Limit: status.Share{CPU: 2, Memory: 4 << 30, Pids: 200}}},
			{Name: "web", Image: "web@sha256:bb", State: "crash-loop", Health: "none", Restarts: 5, RestartsBy: map[string]int{"exit": 5}, Failures: 5,
				NextTry: noon.Add(16 * time.Second), Since: noon.Add(-time.Minute), Class: "best-effort",
				Budget: &status.ServiceBudget{Limit: status.Share{Memory: 1 << 30}}, Probes: []status.Probe{{Kind: "http", Health: "unhealthy"}, {Kind: "tcp", Health: "healthy"}}},
		},
	}
	u := status.Usage{
		Time: noon,
		Node: status.NodeUsage{CPUs: 4, CPUSeconds: 1234.5, MemoryTotal: 16 << 30, MemoryAvailable: 6 << 30,
			Disks:    []status.DiskUsage{{Name: "data", Used: 10 << 30, Total: 100 << 30}, {Name: "engine", Used: 5 << 30, Total: 50 << 30}},
			Pressure: &status.Pressure{CPUSome: 0.25, MemorySome: 0.125, IOSome: 0.5, IOFull: 0.25}},
		Services: []status.ServiceUsage{{Service: "db", Container: "c1", CPUSeconds: 99.5, Periods: 1000, Throttled: 10, ThrottledSeconds: 0.5,
			Memory: 3 << 30, MemoryWorkingSet: 2 << 30, MemoryLimit: 4 << 30, OOMKills: 1, Pids: 42, PidsLimit: 200, CPULimit: 2,
			IORead: 1 << 20, IOWritten: 2 << 20, IOReadOps: 100, IOWriteOps: 200, Pressure: &status.Pressure{CPUSome: 0.5},
			Volumes: []status.DiskUsage{{Name: "pgdata", Used: 1 << 30, Total: 2 << 30, Enforced: true}}}},
	}
	return r, u
}

// many is a box with n services of the sample's kind, each as wide as one can
// be.
func many(n, volumes int) (status.Report, status.Usage) {
	r, u := sample()
	r.Services, u.Services = nil, nil
	for i := range n {
		s := status.Service{Name: fmt.Sprintf("service-%d", i), Image: "registry.example/some/image@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
			Container: fmt.Sprintf("c%d", i), ContainerName: fmt.Sprintf("shop-service-%d-1", i), State: "running", Health: "healthy", Restarts: 9,
			RestartsBy: map[string]int{"exit": 1, "oom": 1, "made-up": 1}, Failures: 1, NextTry: noon.Add(time.Second), Since: noon, Class: "normal",
			Budget: &status.ServiceBudget{Guaranteed: status.Share{CPU: 1, Memory: 1 << 30, Pids: 9}, Limit: status.Share{CPU: 1, Memory: 1 << 30, Pids: 9}},
			Probes: []status.Probe{{Kind: "http", Health: "healthy"}, {Kind: "tcp"}, {Kind: "exec"}, {Kind: "uptime"}}}
		r.Services = append(r.Services, s)
		su := status.ServiceUsage{Service: s.Name, Container: s.Container, CPUSeconds: 1.5, Periods: 5, Throttled: 1, ThrottledSeconds: 1, Memory: 5, MemoryWorkingSet: 4,
			MemoryLimit: 9, OOMKills: 1, Pids: 3, PidsLimit: 9, CPULimit: 1, IORead: 1, IOWritten: 1, Pressure: &status.Pressure{CPUSome: 0.5}}
		for v := range volumes {
			su.Volumes = append(su.Volumes, status.DiskUsage{Name: fmt.Sprintf("volume-%d-%d", i, v), Used: 1, Total: 2})
		}
		u.Services = append(u.Services, su)
	}
	return r, u
}

func config(r status.Report, u status.Usage) Config {
	return Config{Version: "0.1.0", Report: func() status.Report { return r },
		Usage: func(context.Context) (status.Usage, error) { return u, nil },
		Work: func() status.Work {
			var w status.Work
			w.Took(4 * time.Millisecond)
			w.Took(time.Second)
			return w
		},
		Now: func() time.Time { return noon }}
}
