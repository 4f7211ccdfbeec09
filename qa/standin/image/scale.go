// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"
)

// Scale says how a stack is made small enough for a test's machine. A divisor
// of 0 is 1.
type Scale struct {
	// Memory, CPU and Disk divide what the Compose keys and x-holdfast say.
	Memory, CPU, Disk int64
	// Size is the one of the stack's sizes to keep; "" keeps none.
	Size string
	// Confined makes the stack run on a host that may not raise a limit of a
	// process or protect it from the kernel's out-of-memory killer (see
	// Confined): no ulimits, and an oom_score_adj that is not negative.
	Confined bool
	// Environment is added to services by name: what a stand-in shall do.
	Environment map[string]map[string]string
}

const (
	// leastLimit is what a stand-in and its health check need, in bytes, and
	// leastReserved what the engine takes as a reservation.
	leastLimit, leastReserved = 16 << 20, 6 << 20
	// leastCPU lets a stand-in start in well under a second, in cores.
	leastCPU = 0.1
)

// Confined reports whether this process lacks CAP_SYS_RESOURCE, and with it
// every engine that it starts.
func Confined() bool {
	const sysResource = 24
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return err == nil && caps>>sysResource&1 == 0
		}
	}
	return false
}

// Apply rewrites a Compose file. Comments and anchors are gone afterwards, so
// it is for copies only.
func (s Scale) Apply(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var top map[string]any
	if err := yaml.Unmarshal(b, &top); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	w := &scaling{Scale: s}
	for name, v := range mapping(top["services"]) {
		w.service(name, mapping(v))
	}
	for _, v := range mapping(top["volumes"]) {
		w.bytes(mapping(mapping(v)["x-holdfast"]), "disk", s.Disk, 1<<20)
	}
	if x := mapping(top["x-holdfast"]); x != nil {
		w.sizes(x)
		if len(x) == 0 { // nothing said is nothing there
			delete(top, "x-holdfast")
		}
	}
	if w.err != nil {
		return fmt.Errorf("%s: %w", file, w.err)
	}
	if b, err = yaml.Marshal(top); err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o644)
}

// scaling keeps the first error.
type scaling struct {
	Scale
	err error
}

func (w *scaling) service(name string, s map[string]any) {
	resources := mapping(mapping(s["deploy"])["resources"])
	limits, reserved := mapping(resources["limits"]), mapping(resources["reservations"])
	w.bytes(limits, "memory", w.Memory, leastLimit)
	w.bytes(reserved, "memory", w.Memory, leastReserved)
	w.bytes(s, "mem_limit", w.Memory, leastLimit)
	w.bytes(s, "shm_size", w.Memory, 1<<20)
	w.cores(limits, "cpus", leastCPU)
	w.cores(reserved, "cpus", 0.01)
	w.cores(s, "cpus", leastCPU)
	if w.Confined {
		delete(s, "ulimits")
		s["oom_score_adj"] = 1 // 0 would be the class's own
	}
	add := w.Environment[name]
	if len(add) == 0 {
		return
	}
	env := map[string]any{}
	for k, v := range mapping(s["environment"]) {
		env[k] = v
	}
	for k, v := range add {
		env[k] = v
	}
	s["environment"] = env
}

// sizes keeps one size, whose services are the Compose keys'.
func (w *scaling) sizes(x map[string]any) {
	p := mapping(mapping(x["sizes"])[w.Size])
	if p == nil {
		delete(x, "sizes")
		return
	}
	if p["services"] != nil || p["volumes"] != nil {
		w.err = fmt.Errorf("size %s changes services: only the one that is the Compose keys' can be scaled", w.Size)
		return
	}
	w.bytes(p, "memory", w.Memory, 1)
	w.bytes(p, "data", w.Disk, 1)
	w.cores(p, "cpus", 0)
	x["sizes"] = map[string]any{w.Size: p}
}

func (w *scaling) bytes(m map[string]any, key string, by, least int64) {
	v, ok := m[key]
	if !ok || w.err != nil {
		return
	}
	var n types.UnitBytes
	if w.err = n.DecodeMapstructure(v); w.err == nil {
		m[key] = strconv.FormatInt(max(int64(n)/max(by, 1), least), 10)
	}
}

func (w *scaling) cores(m map[string]any, key string, least float64) {
	v, ok := m[key]
	if !ok || w.err != nil {
		return
	}
	n, err := strconv.ParseFloat(fmt.Sprint(v), 64)
	if w.err = err; err == nil {
		m[key] = max(n/float64(max(w.CPU, 1)), least)
	}
}

func mapping(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}
