// SPDX-License-Identifier: Apache-2.0

// Package sim is a box that does not exist: 26 services over some hours, with a
// crash loop, a leak that ends in an OOM kill, a volume that fills, a time of
// pressure in which two services are shed, and an engine that hangs. The same
// moment gives the same report. It stands in for a box where the monitoring
// pack is tested and looked at.
package sim

import (
	"fmt"
	"hash/fnv"
	"math"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// Box is the box; Start is when it booted, Hours how long its story is. What
// happens is told in shares of that time.
type Box struct {
	Start time.Time
	Hours float64
}

const gib = 1 << 30

type service struct {
	name, class string
	// cpu in cores and memory in GiB: guaranteed, limit, and as a rule used.
	cpu, cpuLimit, cpuUse float64
	mem, memLimit, memUse float64
	volume                float64 // GiB of its disk budget
	health                bool
}

var services = []service{
	{"pgsql", "critical", 1, 4, 0.6, 2, 4, 1.9, 50, true},
	{"codeintel-db", "critical", 0.5, 4, 0.2, 1, 4, 1.1, 50, true},
	{"codeinsights-db", "critical", 0.25, 2, 0.1, 0.5, 2, 0.4, 20, true},
	{"migrator", "normal", 0, 0.5, 0, 0, 0.5, 0, 0, false},
	{"redis-store", "critical", 0.1, 1, 0.05, 0.5, 1, 0.3, 5, true},
	{"redis-cache", "normal", 0.1, 1, 0.08, 0.5, 1, 0.7, 5, true},
	{"blobstore", "critical", 0.1, 1, 0.05, 0.25, 1, 0.2, 40, true},
	{"gitserver-0", "critical", 1, 4, 1.1, 2, 6, 2.5, 200, true},
	{"frontend-internal", "normal", 0.5, 2, 0.4, 1, 2, 0.9, 0, true},
	{"frontend-0", "normal", 1, 4, 0.9, 1, 3, 1.3, 10, true},
	{"searcher-0", "normal", 0.5, 2, 0.5, 0.5, 2, 0.8, 30, true},
	{"zoekt-indexserver-0", "best-effort", 0.25, 2, 0.9, 0.5, 3, 1.2, 0, true},
	{"zoekt-webserver-0", "normal", 0.5, 4, 0.7, 2, 6, 3.8, 60, true},
	{"worker", "normal", 0.25, 2, 0.3, 0.5, 2, 0.6, 10, true},
	{"precise-code-intel-worker", "best-effort", 0.1, 2, 0.2, 0.25, 2, 0.5, 0, true},
	{"syntactic-code-intel-worker", "best-effort", 0.1, 2, 0.1, 0.25, 1, 0.2, 0, true},
	{"syntect-server", "normal", 0.1, 2, 0.15, 0.25, 2, 0.4, 0, true},
	{"pgsql-exporter", "best-effort", 0.01, 0.1, 0.005, 0.02, 0.05, 0.02, 0, false},
	{"codeintel-db-exporter", "best-effort", 0.01, 0.1, 0.005, 0.02, 0.05, 0.02, 0, false},
	{"codeinsights-db-exporter", "best-effort", 0.01, 0.1, 0.005, 0.02, 0.05, 0.02, 0, false},
	{"otel-collector", "best-effort", 0.05, 0.5, 0.06, 0.1, 0.5, 0.15, 0, true},
	{"prometheus", "normal", 0.25, 2, 0.2, 0.5, 2, 0.9, 30, true},
	{"grafana", "best-effort", 0.05, 1, 0.02, 0.1, 0.5, 0.12, 2, true},
	{"jobs", "best-effort", 0.01, 0.2, 0.01, 0.05, 0.2, 0.06, 0, false},
	{"caddy", "critical", 0.1, 2, 0.1, 0.1, 0.5, 0.06, 1, true},
	{"mailer", "normal", 0.05, 0.5, 0.03, 0.1, 0.25, 0.08, 0, true},
}

// The story, in shares of the time.
const (
	upAt               = 0.03
	crashFrom, crashTo = 0.30, 0.42
	leakFrom, leakTo   = 0.10, 0.62 // the worker's memory grows until it is killed
	tightFrom, tightTo = 0.70, 0.80
	hangFrom, hangTo   = 0.88, 0.885
	fetchFrom, fetchTo = 0.92, 0.97
)

// wave is a slow wobble between -1 and 1, another for each name.
func wave(name string, seconds float64) float64 {
	h := fnv.New32a()
	h.Write([]byte(name))
	p := float64(h.Sum32()%1000) / 1000
	q := 1 + p*2
	return (math.Sin(2*math.Pi*(seconds/2700/q+5*p)) + 0.5*math.Sin(2*math.Pi*(seconds/610/q+3*p)) + 0.3*math.Sin(2*math.Pi*(seconds/171/q+7*p))) / 1.8
}

// At is the box at a moment.
func (b Box) At(t time.Time) (status.Report, status.Usage, status.Work) {
	sec := t.Sub(b.Start).Seconds()
	s := sec / (b.Hours * 3600) // the share of the story
	in := func(from, to float64) bool { return s >= from && s < to }
	r := status.Report{
		Release: status.Release{Name: "shop", Version: "2.3.0", OS: "0.1.0-4f2a"}, Generation: 7, Slot: "A",
		Root:      status.Root{Hash: "4f2a", Verified: true, ReadOnly: true},
		MachineID: "3f0c7a1b", Hostname: "box1", Platform: "vmware", Stack: "healthy", Now: t,
		Engine:   &status.Engine{Up: !in(hangFrom, hangTo), Version: "26.1.5"},
		Pressure: &status.PressureState{Level: "none"},
		Timings:  status.Timings{DaemonStarted: 11.2, ImagesLoaded: 31.5, StackHealthy: upAt * b.Hours * 3600},
	}
	if s >= hangTo {
		r.Engine.Mends = 1
	}
	r.Upgrade = &status.Upgrade{State: "idle", Channel: "stable", Source: "https://r.example/shop", Checked: t.Add(-time.Hour), Kept: "shop 2.2.0", KeptGeneration: 6,
		Last: &status.UpgradeResult{Generation: 7, Runs: 7, Kind: "upgrade", From: "shop 2.2.0", To: "shop 2.3.0", Result: "committed", End: b.Start, Down: 61_500, Fetched: 21 << 20, Reused: 600 << 20}}
	if in(fetchFrom, fetchTo) {
		r.Upgrade.State, r.Upgrade.Target, r.Upgrade.Available = "fetching", "shop 2.4.0", "shop 2.4.0"
	}
	if in(tightFrom, tightTo) {
		r.Pressure = &status.PressureState{Level: "high", Resource: "memory"}
		r.Conditions = append(r.Conditions, status.Condition{Code: "service-shed", Severity: "warning"})
	} else if in(tightFrom-0.02, tightTo+0.02) {
		r.Pressure = &status.PressureState{Level: "warn", Resource: "memory"}
	}
	r.Conditions = append(r.Conditions, status.Condition{Code: "config-kept", Severity: "warning"})
	u := status.Usage{Time: t, Node: status.NodeUsage{CPUs: 8, MemoryTotal: 32 * gib}}
	var sum status.NodeBudget
	memory, cpu := 1.4*gib, 0.15
	for i, d := range services {
		st, su := b.service(i, d, sec, s)
		if st.State != "running" && st.State != "completed" {
			r.Stack = "degraded"
		}
		sum.Guaranteed.CPU += d.cpu
		sum.Guaranteed.Memory += int64(d.mem * gib)
		sum.Limits.CPU += d.cpuLimit
		sum.Limits.Memory += int64(d.memLimit * gib)
		memory += float64(su.MemoryWorkingSet)
		cpu += d.cpuUse
		r.Services = append(r.Services, st)
		if su.Container != "" {
			u.Services = append(u.Services, su)
		}
		u.Node.CPUSeconds += b.integral(d, sec)
	}
	if s < upAt {
		r.Stack = "starting"
	}
	if in(crashFrom, crashTo) {
		r.Conditions = append(r.Conditions, status.Condition{Code: "service-crash-loop", Severity: "critical"})
	}
	sum.Size, sum.Node, sum.Reserve = "M", status.Share{CPU: 8, Memory: 32 * gib}, status.Share{CPU: 0.2, Memory: 2 * gib}
	sum.Admitted, sum.Enforcement = true, "cgroup v2"
	r.Budget = &sum
	u.Node.CPUSeconds += sec * 0.15
	tight := 0.0
	if in(tightFrom-0.02, tightTo) {
		tight = 9
	}
	u.Node.MemoryAvailable = int64(32*gib - memory - tight*gib)
	u.Node.Pressure = &status.Pressure{CPUSome: math.Max(0, 0.06+0.05*wave("cpu", sec)), IOSome: math.Max(0, 0.04+0.05*wave("io", sec)), IOFull: math.Max(0, 0.02+0.03*wave("io", sec)),
		MemorySome: tight / 9 * (0.3 + 0.1*wave("m", sec)), MemoryFull: tight / 9 * (0.15 + 0.08*wave("m", sec))}
	u.Node.Disks = []status.DiskUsage{{Name: "data", Used: int64((120 + 90*s) * gib), Total: 500 * gib}, {Name: "engine", Used: int64((21 + wave("engine", sec)) * gib), Total: 48 * gib}, {Name: "state", Used: int64((3 + s) * gib), Total: 10 * gib}}
	return r, u, b.work(sec)
}

// integral is the processor time d has used since the start.
func (b Box) integral(d service, sec float64) float64 {
	// A minute at a time: close enough, and never falling.
	total, step := 0.0, 60.0
	for at := 0.0; at < sec; at += step {
		use := 0.6 * d.cpuUse * (1 + 0.7*wave(d.name, at))
		total += math.Min(step, sec-at) * math.Max(0.001, math.Min(use, d.cpuLimit))
	}
	return total
}

func (b Box) service(i int, d service, sec, s float64) (status.Service, status.ServiceUsage) {
	in := func(from, to float64) bool { return s >= from && s < to }
	st := status.Service{Name: d.name, Image: "registry.example/" + d.name + "@sha256:0123456789abcdef", Container: fmt.Sprintf("c%02d", i), ContainerName: "shop-" + d.name + "-1",
		State: "running", Health: "healthy", Class: d.class, Since: b.Start, RestartsBy: map[string]int{},
		Budget: &status.ServiceBudget{Guaranteed: status.Share{CPU: d.cpu, Memory: int64(d.mem * gib)}, Limit: status.Share{CPU: d.cpuLimit, Memory: int64(d.memLimit * gib), Pids: 400}}}
	if !d.health {
		st.Health = "none"
	}
	use := 0.6 * d.cpuUse * (1 + 0.7*wave(d.name, sec))
	total := b.integral(d, sec)
	mem := d.memUse * (1 + 0.08*wave(d.name, sec))
	u := status.ServiceUsage{Service: d.name, Container: st.Container, CPUSeconds: total, Periods: int64(sec * 10),
		CPULimit: d.cpuLimit, MemoryLimit: int64(d.memLimit * gib), Pids: int64(20 + 200*d.cpuUse + 6*wave(d.name, sec)), PidsLimit: 400,
		IORead: int64(total * 3e6), IOWritten: int64(sec * d.volume * 2e4), IOReadOps: int64(sec * d.memUse * 20), IOWriteOps: int64(sec * d.volume),
		Pressure: &status.Pressure{CPUSome: math.Max(0, use/d.cpuLimit-0.25) / 3, IOSome: math.Max(0, 0.02*wave(d.name, sec)), MemorySome: 0}}
	if d.volume > 0 {
		used := d.volume * (0.15 + 0.5*math.Abs(wave(d.name, 3)))
		if d.name == "gitserver-0" {
			used = d.volume * (0.55 + 0.37*s)
		}
		u.Volumes = []status.DiskUsage{{Name: d.name, Used: int64(used * gib), Total: int64(d.volume * gib), Enforced: true}}
	}
	busy := d.cpuUse / d.cpuLimit
	u.Throttled = int64(sec * 10 * math.Max(0, busy-0.2))
	u.ThrottledSeconds = float64(u.Throttled) * 0.03
	gone := func(state string) {
		st.State, st.Health, st.Container, st.ContainerName = state, "none", "", ""
		u = status.ServiceUsage{}
	}
	switch d.name {
	case "migrator":
		st.OneShot = true
		gone("completed")
	case "mailer":
		n := 0
		if s >= crashFrom {
			n = int(math.Min(9, 1+math.Log2(1+(math.Min(s, crashTo)-crashFrom)*b.Hours*3600/8)))
		}
		st.RestartsBy["exit"], st.Restarts = n, n
		if in(crashFrom, crashTo) {
			st.Failures = n
			gone(map[bool]string{true: "crash-loop", false: "backoff"}[n >= 5])
			st.NextTry = b.Start.Add(time.Duration(sec+math.Pow(2, float64(n%8))) * time.Second)
		}
	case "worker":
		u.MemoryWorkingSet = int64(mem * gib)
		if in(leakFrom, leakTo) {
			mem = math.Min(d.memLimit*0.999, d.memUse+(d.memLimit-d.memUse)*(s-leakFrom)/(leakTo-leakFrom)*1.02)
		} else if s >= leakTo {
			st.RestartsBy["oom"], st.Restarts, u.OOMKills = 1, 1, 1
		}
	case "zoekt-indexserver-0", "precise-code-intel-worker":
		if in(tightFrom+0.005*float64(i-10), tightTo+0.005*float64(20-i)) {
			gone("shed")
		}
		if s >= tightTo+0.005*float64(20-i) {
			st.RestartsBy["pressure"], st.Restarts = 1, 1
		}
	case "searcher-0":
		n := 0
		for k := range 3 {
			if s > 0.5+0.02*float64(k) {
				n++
			}
		}
		st.RestartsBy["unhealthy"], st.Restarts = n, n
		if in(0.495, 0.5) || in(0.515, 0.52) {
			st.Health, st.Failures = "unhealthy", n
		}
	}
	if s < upAt && s < upAt*float64(i)/float64(len(services)) {
		gone("waiting")
	} else if s < upAt*float64(i+3)/float64(len(services)) && st.State == "running" && d.health {
		st.Health = "starting"
	}
	if u.Container != "" {
		u.MemoryWorkingSet = int64(mem * gib)
		u.Memory = int64(mem * 1.3 * gib)
	}
	return st, u
}

func (b Box) work(sec float64) status.Work {
	turns := uint64(sec / 4)
	w := status.Work{Reconciles: turns, ReconcileSeconds: float64(turns) * 0.012}
	for _, share := range []float64{0.3, 0.9, 0.985, 0.999, 1, 1} {
		w.Buckets = append(w.Buckets, uint64(math.Ceil(float64(turns)*share)))
	}
	return w
}
