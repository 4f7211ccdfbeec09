// SPDX-License-Identifier: Apache-2.0

package exporter

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast/holdfast/appliance/status"
)

const (
	// patience bounds the reading of usage: a scrape shall end in time to say
	// that it failed.
	patience = 5 * time.Second
	// fresh is how long one reading serves: several scrapers at once cost no
	// more than one.
	fresh = 500 * time.Millisecond
	// maxLabel bytes of a label's value are shown; some come from a stack.
	maxLabel = 200
	// maxConditions series are shown; further ones are counted in one.
	maxConditions = 60
)

// collector makes metrics of a report and a usage at each scrape.
type collector struct {
	c Config

	mu    sync.Mutex
	at    time.Time
	usage status.Usage
	err   error
}

func newCollector(c Config) *collector {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &collector{c: c}
}

// Describe gives the names, so that the registry refuses a second collector of
// the same.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range families {
		ch <- f.desc
	}
}

// Collect is one scrape.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	began := c.c.Now()
	r := c.c.Report()
	u, err := c.read(began)
	e := &emitter{ch: ch, now: began}
	e.box(r, c.c.Version)
	e.engine(r)
	if c.c.Work != nil {
		e.work(c.c.Work())
	}
	e.pressure(r.Pressure)
	e.budget(r.Budget)
	e.upgrade(r.Upgrade)
	e.put(scrapeUsage, truth(err == nil))
	if u.Node.MemoryTotal > 0 {
		e.node(u.Node)
	}
	e.volumes(r.Services, u.Services)
	e.services(r.Services, u.Services, c.c.ContainerNames)
	e.put(scrapeDuration, c.c.Now().Sub(began).Seconds())
}

var errNoUsage = errors.New("nothing reads the use of resources here")

// read returns what is used now, shared by scrapes at nearly the same time.
// What could be read is there beside an error.
func (c *collector) read(now time.Time) (status.Usage, error) {
	if c.c.Usage == nil {
		return status.Usage{}, errNoUsage
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := now.Sub(c.at); age >= 0 && age < fresh {
		return c.usage, c.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	before := c.err
	c.usage, c.err = c.c.Usage(ctx)
	c.at = now
	if c.err != nil && c.c.Log != nil && (before == nil || before.Error() != c.err.Error()) {
		c.c.Log("metrics: the use of resources can't be read in full: " + c.err.Error())
	}
	return c.usage, c.err
}

// emitter sends the metrics of one scrape.
type emitter struct {
	ch  chan<- prometheus.Metric
	now time.Time
}

// put sends one value; one that is no number is left out.
func (e *emitter) put(f *family, v float64, labels ...string) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return
	}
	for i, l := range labels {
		labels[i] = label(l)
	}
	e.ch <- prometheus.MustNewConstMetric(f.desc, f.kind, v, labels...)
}

// label is text that may be a label's value, of bounded length.
func label(s string) string {
	if len(s) > maxLabel {
		s = s[:maxLabel]
	}
	return strings.ToValidUTF8(s, "?")
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// one sends 1 for the word that is so and 0 for the others.
func (e *emitter) one(f *family, words []string, is string, before ...string) {
	for _, w := range words {
		e.put(f, truth(w == is), append(slices.Clone(before), w)...)
	}
}

var stackStates = []string{"starting", "healthy", "degraded", "held", "stopping", "stopped"}

func (e *emitter) box(r status.Report, version string) {
	e.put(buildInfo, 1, version, r.Release.OS)
	e.put(boxInfo, 1, r.Hostname, r.MachineID, r.Platform, r.Slot, r.Release.Name, r.Release.Version)
	e.put(generation, float64(r.Generation))
	if r.Root.Hash != "" {
		e.put(rootVerified, truth(r.Root.Verified))
	}
	e.put(clock, seconds(e.now))
	e.one(stackState, stackStates, r.Stack)
	e.conditions(r.Conditions)
	for _, s := range []struct {
		name string
		at   float64
	}{{"daemon_started", r.Timings.DaemonStarted}, {"images_loaded", r.Timings.ImagesLoaded}, {"stack_healthy", r.Timings.StackHealthy}} {
		if s.at > 0 {
			e.put(stage, s.at, s.name)
		}
	}
}

// seconds since 1970.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (e *emitter) conditions(all []status.Condition) {
	type key struct{ code, severity string }
	count := map[key]int{}
	for _, c := range all {
		k := key{label(c.Code), label(c.Severity)}
		if _, ok := count[k]; !ok && len(count) >= maxConditions {
			k = key{"other", "warning"}
		}
		count[k]++
	}
	for k, n := range count {
		e.put(conditions, float64(n), k.code, k.severity)
	}
}

func (e *emitter) engine(r status.Report) {
	if r.Engine != nil {
		e.put(engineUp, truth(r.Engine.Up))
		e.put(engineMends, float64(r.Engine.Mends))
		return
	}
	down := slices.ContainsFunc(r.Conditions, func(c status.Condition) bool { return c.Code == "engine-unreachable" })
	e.put(engineUp, truth(!down))
}

func (e *emitter) work(w status.Work) {
	buckets := map[float64]uint64{}
	for i, le := range status.WorkBuckets() {
		if i < len(w.Buckets) {
			buckets[le] = w.Buckets[i]
		}
	}
	if m, err := prometheus.NewConstHistogram(reconcile.desc, w.Reconciles, w.ReconcileSeconds, buckets); err == nil {
		e.ch <- m
	}
}

func (e *emitter) node(n status.NodeUsage) {
	e.put(nodeCPUs, n.CPUs)
	e.put(nodeCPU, n.CPUSeconds)
	e.put(nodeMemory, float64(n.MemoryTotal))
	e.put(nodeAvailable, float64(n.MemoryAvailable))
	seen := map[string]bool{}
	for _, d := range n.Disks {
		if name := label(d.Name); !seen[name] {
			seen[name] = true
			e.put(diskSize, float64(d.Total), name)
			e.put(diskUsed, float64(d.Used), name)
		}
	}
	if p := n.Pressure; p != nil {
		e.put(nodePressure, p.CPUSome, "cpu", "some")
		e.put(nodePressure, p.MemorySome, "memory", "some")
		e.put(nodePressure, p.MemoryFull, "memory", "all")
		e.put(nodePressure, p.IOSome, "io", "some")
		e.put(nodePressure, p.IOFull, "io", "all")
	}
}

func (e *emitter) pressure(p *status.PressureState) {
	if p == nil {
		return
	}
	level := map[string]float64{"warn": 1, "high": 2}[p.Level]
	for _, r := range []string{"cpu", "memory", "io", "disk"} {
		v := level
		if p.Resource != r {
			v = 0
		}
		e.put(pressureLevel, v, r)
	}
}

func (e *emitter) budget(b *status.NodeBudget) {
	if b == nil {
		return
	}
	e.put(budgetInfo, 1, b.Size, b.Enforcement)
	e.put(budgetAdmitted, truth(b.Admitted))
	for _, s := range []struct {
		name  string
		share status.Share
	}{{"node", b.Node}, {"reserve", b.Reserve}, {"guaranteed", b.Guaranteed}, {"limit", b.Limits}} {
		e.put(budgetCPU, s.share.CPU, s.name)
		e.put(budgetMemory, float64(s.share.Memory), s.name)
	}
}

// volumes sends each volume once, whoever mounts it. Where nothing enforces a
// disk budget, the budget itself says what it is.
func (e *emitter) volumes(services []status.Service, used []status.ServiceUsage) {
	all := map[string]status.DiskUsage{}
	for _, s := range used {
		for _, v := range s.Volumes {
			name := label(v.Name)
			if old, ok := all[name]; !ok || v.Used > old.Used {
				all[name] = v
			}
		}
	}
	budget := map[string]int64{}
	for _, s := range services {
		if s.Budget == nil {
			continue
		}
		for _, v := range s.Budget.Volumes {
			budget[label(v.Name)] = v.Bytes
		}
	}
	for _, name := range sortedKeys(all) {
		v := all[name]
		if !v.Unknown {
			e.put(volumeUsed, float64(v.Used), name)
		}
		if limit := cmp.Or(v.Total, budget[name]); limit > 0 {
			e.put(volumeLimit, float64(limit), name, strconv.FormatBool(v.Enforced))
		}
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
