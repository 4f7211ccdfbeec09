// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

const extendedStack = `
-- compose.yaml --
name: demo
x-probe: &probe
  interval: 10s
  retries: 5
x-holdfast:
  data: {readable-from: "1.0.0"}
  sizes:
    M: {}
    XS:
      cpus: ${CPUS:-8}
      memory: 32GiB
      data: 500GiB
      services:
        web: {cpus: "1.5", memory: 2G, reserved-cpus: 0.25, reserved-memory: 512m, pids: 300}
      volumes: {store: 100GiB}
    S: {cpus: 16, memory: 64GiB}
services:
  plain: {image: a}
  best: {image: a, x-holdfast: {class: best-effort, shed-order: 3}}
  keep: {image: a, x-holdfast: {class: best-effort, sheddable: false}}
  shed: {image: a, x-holdfast: {sheddable: true}}
  base:
    image: a
    x-holdfast: {class: critical, probes: [{tcp: {port: 5432}}]}
  web:
    extends: base
    volumes: ["store:/d"]
    ipc: private
    x-holdfast:
      probes:
        - http: {port: 3080, path: /healthz?a=b, scheme: https, status: 204}
          <<: *probe
          timeout: 500ms
          start-period: 5m
        - exec: ["/bin/check", ""]
        - uptime: 30s
      allow:
        ipc: the shared memory of base is read
volumes:
  store: {x-holdfast: {disk: 20GiB}}
  e:
`

func TestExtensions(t *testing.T) {
	s, err := Load(context.Background(), folder(t, extendedStack), Options{})
	if err != nil {
		t.Fatal(err)
	}
	usual := Probe{Interval: 30 * time.Second, Timeout: 30 * time.Second, Retries: 3}
	tcp, exec, uptime := usual, usual, usual
	tcp.Kind, tcp.Port = "tcp", 5432
	exec.Kind, exec.Command = "exec", []string{"/bin/check", ""}
	uptime.Kind, uptime.For = "uptime", 30*time.Second
	want := map[string]Extension{
		"plain": {Class: Normal},
		"best":  {Class: BestEffort, Sheddable: true, ShedOrder: 3},
		"keep":  {Class: BestEffort},
		"shed":  {Class: Normal, Sheddable: true},
		"base":  {Class: Critical, Probes: []Probe{tcp}},
		"web": {Class: Critical, Probes: []Probe{tcp, {Kind: "http", Port: 3080, Path: "/healthz?a=b", Scheme: "https", Status: 204,
			Interval: 10 * time.Second, Timeout: 500 * time.Millisecond, StartPeriod: 5 * time.Minute, Retries: 5}, exec, uptime},
			Allow: map[string]string{"ipc": "the shared memory of base is read"}},
	}
	for name, w := range want {
		if got := s.Extensions[name]; !reflect.DeepEqual(got, w) {
			t.Errorf("%s: %+v\nwant %+v", name, got, w)
		}
	}
	if len(s.Extensions) != len(want) {
		t.Errorf("%d extensions, want one a service", len(s.Extensions))
	}
	if want := map[string]int64{"store": 20 << 30}; !reflect.DeepEqual(s.VolumeBudgets, want) {
		t.Errorf("volumes %v, want %v", s.VolumeBudgets, want)
	}
	profiles := []Profile{
		{Name: "XS", CPUs: 8, Memory: 32 << 30, Data: 500 << 30, Volumes: map[string]int64{"store": 100 << 30},
			Services: map[string]ProfileService{"web": {CPUs: 1.5, Memory: 2 << 30, ReservedCPUs: 0.25, ReservedMemory: 512 << 20, Pids: 300}}},
		{Name: "S", CPUs: 16, Memory: 64 << 30},
		{Name: "M"},
	}
	if !reflect.DeepEqual(s.Profiles, profiles) {
		t.Errorf("profiles %+v\nwant %+v", s.Profiles, profiles)
	}
}

// TestExtensionOfAnInclude finds the line in the file that writes it.
func TestExtensionOfAnInclude(t *testing.T) {
	_, err := Load(context.Background(), folder(t, `
-- compose.yaml --
name: demo
include: [db/compose.yaml]
services: {web: {image: a}}
-- db/compose.yaml --
services:
  db:
    image: a
    x-holdfast:
      class: precious
`), Options{})
	want := "db/compose.yaml:5: services.db.x-holdfast.class: precious is not known; write one of critical, normal, best-effort"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// FuzzExtension gives one document to each place that x-holdfast may be in:
// whatever it is, what is read stays within the bounds or is refused.
func FuzzExtension(f *testing.F) {
	for _, seed := range []string{
		"{class: best-effort, sheddable: true, shed-order: 3}",
		"{probes: [{http: {port: 80, path: /, scheme: https, status: 200}, interval: 1s, timeout: 1s, start-period: 1s, retries: 1}]}",
		"{probes: [{tcp: {port: 1}}, {exec: [a, b]}, {uptime: 1s}], allow: {privileged: because of reasons}}",
		"{disk: 1GiB}", "{disk: 18446744073709551616}",
		"{XS: {cpus: 8, memory: 32GiB, data: 1T, services: {web: {cpus: 1e308, memory: 1g, pids: 9}}, volumes: {d: 1k}}}",
		"[]", "~", "{1: 2}", "{sizes: {}}", "{XS: {cpus: .inf}}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var x any
		if len(text) > 4096 || yaml.Unmarshal([]byte(text), &x) != nil {
			return
		}
		l := &loading{src: &sources{}, probs: &Problems{}}
		got := l.extensions(map[string]any{
			extension:  map[string]any{"sizes": x},
			"services": map[string]any{"web": map[string]any{extension: x, "privileged": true}},
			"volumes":  map[string]any{"d": map[string]any{extension: x}},
		})
		e, ok := got.services["web"]
		if !ok || !slices.Contains([]Class{Critical, Normal, BestEffort}, e.Class) || e.Sheddable && e.Class == Critical ||
			e.ShedOrder < 0 || e.ShedOrder > maxShed || len(e.Probes) > maxProbes {
			t.Errorf("service %+v", e)
		}
		for _, reason := range e.Allow {
			if len(l.probs.List) == 0 && len([]rune(reason)) < minReason {
				t.Errorf("reason %q", reason)
			}
		}
		if v := got.volumes["d"]; v < 0 || v > maxSize {
			t.Errorf("volume %d", v)
		}
		for _, p := range got.profiles {
			s := p.Services["web"]
			for _, n := range []float64{p.CPUs, s.CPUs, s.ReservedCPUs} {
				if !(n >= 0 && n <= maxCPUs) {
					t.Errorf("profile %+v", p)
				}
			}
			for _, n := range []int64{p.Memory, p.Data, s.Memory, s.ReservedMemory, p.Volumes["d"]} {
				if n < 0 || n > maxSize {
					t.Errorf("profile %+v", p)
				}
			}
		}
		if len(l.probs.List) > 0 {
			return
		}
		// What is accepted is a probe that can be run.
		for _, p := range e.Probes {
			if !slices.Contains([]string{"http", "tcp", "exec", "uptime"}, p.Kind) || p.Interval < time.Second || p.Timeout <= 0 || p.Retries < 1 ||
				(p.Kind == "http" || p.Kind == "tcp") && (p.Port < 1 || p.Port > 65535) ||
				p.Kind == "http" && !strings.HasPrefix(p.Path, "/") || p.Kind == "exec" && len(p.Command) == 0 || p.Kind == "uptime" && p.For <= 0 {
				t.Errorf("probe %+v", p)
			}
		}
	})
}
