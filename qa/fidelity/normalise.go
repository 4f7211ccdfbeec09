// SPDX-License-Identifier: Apache-2.0

package fidelity

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Things is what `docker inspect` says of one project: "container web",
// "network default", "volume data" and the document of each.
type Things map[string]map[string]any

// times are what only says when something happened.
var times = []string{"Created", "CreatedAt", "StartedAt", "FinishedAt"}

// numbers are what the engine or the kernel numbers things by.
var numbers = []string{"EndpointID", "SandboxID", "Pid"}

// pools are what the engine takes the network of a stack from that names none.
var pools = regexp.MustCompile(`^(172\.\d+\.0\.0/16|192\.168\.\d+\.0/20)$`)

// addresses are what the engine picks where the stack does not: they are the
// running container's, and what the stack asks for stands elsewhere too.
var addresses = []string{"IPAddress", "Gateway", "GlobalIPv6Address", "IPv6Gateway", "IPPrefixLen", "GlobalIPv6PrefixLen",
	"Bridge", "SandboxKey", "MacAddress", "IPv4Address", "IPv6Address"}

// sets are lists without an order: docker compose itself gives them in
// another one each time.
var sets = []string{"Env", "Binds", "ExtraHosts", "Ulimits", "Links", "DNSNames", "VolumesFrom", "SecurityOpt"}

var (
	hex64   = regexp.MustCompile(`\b[0-9a-f]{64}\b`)
	isTime  = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d`)
	isDrive = regexp.MustCompile(`^(GraphDriver|Storage)$`)
)

// Normalise takes ids, times and addresses out of a document, and the order
// out of sets. ids maps each id of the project to its name.
func Normalise(doc map[string]any, ids map[string]string) map[string]any {
	out, _ := normal("", doc, ids).(map[string]any)
	return out
}

func normal(key string, v any, ids map[string]string) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			switch {
			case slices.Contains(times, k), isDrive.MatchString(k): // a path of ids
				continue
			case slices.Contains(addresses, k) && key != "IPAMConfig" && key != "Config":
				continue
			case slices.Contains(numbers, k):
				continue
			case key == "Config" && k == "Gateway" && pools.MatchString(fmt.Sprint(v["Subnet"])):
				continue
			}
			out[ident(k, ids)] = normal(k, e, ids)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = normal(key, e, ids)
		}
		if slices.Contains(sets, key) {
			slices.SortFunc(out, func(a, b any) int { return strings.Compare(text(a), text(b)) })
		}
		return out
	case string:
		if isTime.MatchString(v) {
			return "TIME"
		}
		if key == "Subnet" && pools.MatchString(v) {
			return "ADDRESS"
		}
		if key == "com.docker.compose.depends_on" {
			deps := strings.Split(v, ",")
			slices.Sort(deps)
			return strings.Join(deps, ",")
		}
		return ident(v, ids)
	}
	return v
}

// ident replaces ids by the names of what they are. Images are named by their
// digest, which is no accident and stays; so do hashes.
func ident(s string, ids map[string]string) string {
	for id, name := range ids {
		s = strings.ReplaceAll(s, id, name)
		s = strings.ReplaceAll(s, id[:12], name)
	}
	return s
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Difference is one place where two documents are not the same; Ours or
// Theirs is nil where it is missing.
type Difference struct {
	// Thing is "container web"; Path is "HostConfig.RestartPolicy.Name".
	Thing, Path  string
	Ours, Theirs any
}

func (d Difference) String() string {
	return fmt.Sprintf("%s: %s: ours %s, docker compose's %s", d.Thing, d.Path, text(d.Ours), text(d.Theirs))
}

// Compare lists what differs, in order.
func Compare(ours, theirs Things) []Difference {
	var out []Difference
	for _, name := range keys(ours, theirs) {
		a, b := ours[name], theirs[name]
		switch {
		case a == nil:
			out = append(out, Difference{Thing: name, Theirs: "exists"})
		case b == nil:
			out = append(out, Difference{Thing: name, Ours: "exists"})
		default:
			out = append(out, compare(name, nil, a, b)...)
		}
	}
	return out
}

func compare(thing string, path []string, a, b any) []Difference {
	x, okX := asMap(a)
	y, okY := asMap(b)
	if okX && okY {
		var out []Difference
		for _, k := range keys(x, y) {
			out = append(out, compare(thing, append(path[:len(path):len(path)], k), x[k], y[k])...)
		}
		return out
	}
	if text(a) == text(b) {
		return nil
	}
	return []Difference{{Thing: thing, Path: strings.Join(path, "."), Ours: a, Theirs: b}}
}

// asMap sees a list of mounts as a mapping by their place in the container,
// so that one that differs is one difference.
func asMap(v any) (map[string]any, bool) {
	switch v := v.(type) {
	case map[string]any:
		return v, true
	case []any:
		out := map[string]any{}
		for _, e := range v {
			m, ok := e.(map[string]any)
			if !ok {
				return nil, false
			}
			place, ok := m["Target"].(string)
			if !ok {
				place, ok = m["Destination"].(string)
			}
			if !ok {
				return nil, false
			}
			out[place] = m
		}
		return out, len(v) > 0
	}
	return nil, false
}

func keys[V any](ms ...map[string]V) []string {
	var out []string
	for _, m := range ms {
		for k := range m {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
