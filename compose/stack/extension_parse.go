// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// Bounds of what x-holdfast may say. They keep a slip of the pen from becoming
// a check that runs all the time or a budget that no machine has.
const (
	maxProbes  = 8
	maxAllow   = 32
	minReason  = 10
	maxReason  = 200
	maxShed    = 1000
	minMemory  = 6 << 20 // the engine's own least limit
	maxSize    = 64 << 40
	minDisk    = 1 << 20
	minCPUs    = 0.01
	maxCPUs    = 1024
	minPids    = 1
	maxPids    = 4 << 20 // the kernel's own limit on 64 bits
	maxArgs    = 64
	maxArg     = 4096
	maxPath    = 1024
	maxRetries = 100
)

const (
	extensionMend = "write `x-holdfast: {class: critical}`; docs/budgets.md has all keys"
	volumeMend    = "write `x-holdfast: {disk: 20GiB}`"
	profileMend   = "write `x-holdfast: {sizes: {XS: {cpus: 8, memory: 32GiB, data: 500GiB}}}`"
	probeMend     = "write one of http, tcp, exec and uptime, such as `- http: {port: 8080, path: /healthz}`"
)

// ProfileNames are the names of sizes, smallest first.
var ProfileNames = []string{"XS", "S", "M", "L", "XL"}

// extended is all that x-holdfast says, secrets and data aside.
type extended struct {
	services map[string]Extension
	volumes  map[string]int64
	profiles []Profile
}

// extensions reads x-holdfast of services, volumes and the top level from the
// merged model, and reports what it does not know. Every service gets an
// Extension, with the defaults where it says nothing.
func (l *loading) extensions(dict map[string]any) extended {
	out := extended{services: map[string]Extension{}}
	services, _ := dict["services"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(services)) {
		service, _ := services[name].(map[string]any)
		e := Extension{Class: Normal}
		if x, ok := service[extension]; ok {
			e = l.serviceExtension(service, field{l, []string{"services", name, extension}, x})
		}
		out.services[name] = e
	}
	volumes, _ := dict["volumes"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(volumes)) {
		volume, _ := volumes[name].(map[string]any)
		x, ok := volume[extension]
		if !ok {
			continue
		}
		f := field{l, []string{"volumes", name, extension}, x}
		m := f.mapping(volumeMend, "disk")
		disk, ok := m["disk"]
		switch {
		case ok:
			if out.volumes == nil {
				out.volumes = map[string]int64{}
			}
			out.volumes[name] = disk.bytes(minDisk)
		case m != nil:
			f.bad("the key \"disk\" is missing", volumeMend)
		}
	}
	top, _ := dict[extension].(map[string]any) // readableFrom checks the rest of it
	if x, ok := top["sizes"]; ok {
		out.profiles = profiles(field{l, []string{extension, "sizes"}, x}, services, volumes)
	}
	return out
}

func (l *loading) serviceExtension(service map[string]any, f field) Extension {
	e := Extension{Class: Normal}
	m := f.mapping(extensionMend, "class", "sheddable", "shed-order", "probes", "allow")
	if c, ok := m["class"]; ok {
		e.Class = Class(c.one(string(Critical), string(Normal), string(BestEffort)))
		if e.Class == "" {
			e.Class = Normal
		}
	}
	e.Sheddable = e.Class == BestEffort
	if s, ok := m["sheddable"]; ok {
		e.Sheddable = s.flag()
		if e.Sheddable && e.Class == Critical {
			s.bad("a critical service is never stopped for others", "remove it, or give the service another class")
			e.Sheddable = false
		}
	}
	if o, ok := m["shed-order"]; ok {
		e.ShedOrder = o.whole(0, maxShed)
		if s, said := m["sheddable"]; !e.Sheddable && (!said || s.v == false) {
			o.bad("this service is not stopped under pressure", "add `sheddable: true`, or remove it")
			e.ShedOrder = 0
		}
	}
	if p, ok := m["probes"]; ok {
		for _, item := range p.list(maxProbes) {
			if probe, ok := item.probe(); ok {
				e.Probes = append(e.Probes, probe)
			}
		}
	}
	if a, ok := m["allow"]; ok {
		e.Allow = a.allow(service)
	}
	return e
}

// probe reads one of a service's own checks. The defaults are those of a
// Compose health check.
func (f field) probe() (Probe, bool) {
	p := Probe{Interval: 30 * time.Second, Timeout: 30 * time.Second, Retries: 3}
	m := f.mapping(probeMend, "http", "tcp", "exec", "uptime", "interval", "timeout", "start-period", "retries")
	if m == nil {
		return p, false
	}
	kinds := 0
	for _, kind := range []string{"http", "tcp", "exec", "uptime"} {
		v, ok := m[kind]
		if !ok {
			continue
		}
		kinds++
		p.Kind = kind
		switch kind {
		case "http":
			v.http(&p)
		case "tcp":
			if port, ok := v.mapping("write `tcp: {port: 5432}`", "port")["port"]; ok {
				p.Port = port.whole(1, 65535)
			} else {
				v.bad("the key \"port\" is missing", "write `tcp: {port: 5432}`")
			}
		case "exec":
			for _, arg := range v.list(maxArgs) {
				p.Command = append(p.Command, arg.text(0, maxArg))
			}
			if len(p.Command) > 0 && p.Command[0] == "" {
				v.bad("there is no program to run", "write its path first")
			}
		case "uptime":
			p.For = v.duration(time.Second, 24*time.Hour)
		}
	}
	if kinds != 1 {
		f.bad(fmt.Sprintf("this probe is of %d kinds", kinds), probeMend)
		return p, false
	}
	// What takes no time and counts no failures has nothing to set.
	set := map[string]func(field){
		"interval":     func(v field) { p.Interval = v.duration(time.Second, time.Hour) },
		"timeout":      func(v field) { p.Timeout = v.duration(100*time.Millisecond, 10*time.Minute) },
		"start-period": func(v field) { p.StartPeriod = v.duration(0, 24*time.Hour) },
		"retries":      func(v field) { p.Retries = v.whole(1, maxRetries) },
	}
	for _, k := range slices.Sorted(maps.Keys(set)) {
		v, ok := m[k]
		switch {
		case !ok:
		case p.Kind == "uptime":
			v.bad("an uptime probe has no "+k, "remove it")
		default:
			set[k](v)
		}
	}
	return p, true
}

func (f field) http(p *Probe) {
	const mend = "write `http: {port: 8080, path: /healthz}`"
	m := f.mapping(mend, "port", "path", "scheme", "status")
	p.Scheme, p.Path = "http", "/"
	if port, ok := m["port"]; ok {
		p.Port = port.whole(1, 65535)
	} else if m != nil {
		f.bad("the key \"port\" is missing", mend)
	}
	if v, ok := m["path"]; ok {
		p.Path = v.text(1, maxPath)
		bad := func(r rune) bool { return r <= ' ' || r > '~' || r == '#' }
		if p.Path != "" && (p.Path[0] != '/' || strings.ContainsFunc(p.Path, bad)) {
			v.bad(fmt.Sprintf("%q is no path of a request", p.Path), "start it with / and encode what is not plain ASCII")
		}
	}
	if v, ok := m["scheme"]; ok {
		p.Scheme = v.one("http", "https")
	}
	if v, ok := m["status"]; ok {
		p.Status = v.whole(100, 599)
	}
}

// allow reads the reasons why a service has what is refused otherwise.
func (f field) allow(service map[string]any) map[string]string {
	m, ok := f.v.(map[string]any)
	if !ok || len(m) == 0 {
		f.bad("this must be a mapping", "write `allow: {privileged: \"why this service needs it\"}`")
		return nil
	}
	if len(m) > maxAllow {
		f.bad(fmt.Sprintf("%d reasons are more than %d", len(m), maxAllow), "remove some")
		return nil
	}
	out := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := f.at(k, m[k])
		source, mount := strings.CutPrefix(k, "volumes.")
		switch {
		case mount && (!path.IsAbs(source) || path.Clean(source) != source || len(source) > maxPath):
			v.bad("this is no path of the box", "write `volumes.` and the absolute path as the volume has it")
			continue
		case !mount && !slices.Contains(allowable, k):
			v.bad("no reason opens this key", "known are "+strings.Join(allowable, ", ")+" and volumes.PATH")
			continue
		case !writes(service, k, source):
			v.bad("the service does not have what this allows", "remove it")
			continue
		}
		out[k] = v.text(minReason, maxReason)
	}
	return out
}

// writes says whether a service has a key, or mounts a path.
func writes(service map[string]any, key, source string) bool {
	inits, _ := service["pre_start"].([]any)
	for _, v := range inits {
		if init, ok := v.(map[string]any); ok && writes(init, key, source) {
			return true
		}
	}
	if source == key { // nothing was cut off
		return service[key] != nil
	}
	list, _ := service["volumes"].([]any)
	return slices.ContainsFunc(list, func(v any) bool {
		switch v := v.(type) {
		case map[string]any:
			return v["source"] == source
		case string:
			return strings.HasPrefix(v, source+":")
		}
		return false
	})
}

// profiles reads the sizes a stack names.
func profiles(f field, services, volumes map[string]any) []Profile {
	m := f.mapping(profileMend, ProfileNames...)
	if m != nil && len(m) == 0 {
		f.bad("there is no size", profileMend)
	}
	var out []Profile
	for _, name := range ProfileNames {
		v, ok := m[name]
		if !ok {
			continue
		}
		p := v.profile(name, services, volumes)
		if len(out) > 0 {
			// A box takes the largest size that it has room for.
			q := out[len(out)-1]
			if less(p.CPUs, q.CPUs) || less(p.Memory, q.Memory) || less(p.Data, q.Data) {
				v.bad(fmt.Sprintf("the machine has less of something than that of %s", q.Name), "make sizes grow in the order "+strings.Join(ProfileNames, ", "))
			}
		}
		out = append(out, p)
	}
	return out
}

// less says whether a is less than b where both are said.
func less[T int64 | float64](a, b T) bool { return a != 0 && b != 0 && a < b }

func (f field) profile(name string, services, volumes map[string]any) Profile {
	p := Profile{Name: name}
	m := f.mapping(profileMend, "cpus", "memory", "data", "services", "volumes")
	if v, ok := m["cpus"]; ok {
		p.CPUs = v.cores()
	}
	if v, ok := m["memory"]; ok {
		p.Memory = v.bytes(minMemory)
	}
	if v, ok := m["data"]; ok {
		p.Data = v.bytes(minDisk)
	}
	if v, ok := m["services"]; ok {
		p.Services = map[string]ProfileService{}
		for _, k := range v.names("service", services) {
			p.Services[k.key[len(k.key)-1]] = k.profileService()
		}
	}
	if v, ok := m["volumes"]; ok {
		p.Volumes = map[string]int64{}
		for _, k := range v.names("volume", volumes) {
			p.Volumes[k.key[len(k.key)-1]] = k.bytes(minDisk)
		}
	}
	return p
}

func (f field) profileService() ProfileService {
	var s ProfileService
	m := f.mapping("write `{cpus: 2, memory: 4GiB, reserved-memory: 1GiB}`", "cpus", "reserved-cpus", "memory", "reserved-memory", "pids")
	if v, ok := m["cpus"]; ok {
		s.CPUs = v.cores()
	}
	if v, ok := m["reserved-cpus"]; ok {
		s.ReservedCPUs = v.cores()
	}
	if v, ok := m["memory"]; ok {
		s.Memory = v.bytes(minMemory)
	}
	if v, ok := m["reserved-memory"]; ok {
		s.ReservedMemory = v.bytes(1)
	}
	if v, ok := m["pids"]; ok {
		s.Pids = int64(v.whole(minPids, maxPids))
	}
	return s
}
