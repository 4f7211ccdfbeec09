// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"slices"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
)

// driftShown is how long a mended drift stays among the conditions: long
// enough to be seen by who comes to look, the journal keeps it for good.
const driftShown = time.Hour

// Drift is a change that somebody made to a container behind our back.
type Drift struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// next is the name of a container that runs before the old one has gone.
func (s *Service) next() string { return s.Spec.Name + "-next" }

// drifted compares name and limits with what the container was made with.
func (p Past) drifted(s *Service, c *engine.Container, now time.Time) (Past, string) {
	odd := ""
	switch {
	case p.Limits == nil:
		// The engine's own reading of what we asked for is what counts: it
		// rounds and fills in.
		l := c.Limits
		p.Limits = &l
	case *p.Limits != c.Limits:
		odd = driftLimits
	}
	if c.Name != s.Spec.Name && c.Name != s.next() && c.Labels[labelHash] == s.Hash {
		odd = join(odd, driftName+" to "+c.Name)
	}
	if odd == p.Odd {
		return p, ""
	}
	if p.Odd = odd; odd != "" {
		p.Drift = &Drift{At: now, Text: odd}
	}
	return p, odd
}

const (
	driftLimits = "its limits were changed by hand"
	driftName   = "its container was renamed"
)

// mend sets back what can be set back without an interruption.
func (x *decision) mend(s *Service, p Past, c *engine.Container, alone bool) {
	if c.Name != s.Spec.Name && alone {
		op := Op{Kind: Rename, Target: s.Name, Container: c.ID, Name: s.Spec.Name, Because: driftName}
		if c.Name == s.next() {
			op.Because = "the container it replaces is gone"
		}
		if x.ready(op.key()) {
			x.add(op)
		}
	}
	if p.Limits != nil && *p.Limits != c.Limits {
		op := Op{Kind: Update, Target: s.Name, Container: c.ID, Limits: p.Limits, Because: driftLimits}
		if x.ready(op.key()) {
			x.add(op)
		}
	}
}

// foreign keeps of all containers those that are not the project's and hold a
// name or a host port of the stack.
func foreign(d *Desired, all []engine.Holder, ours map[string]bool) []Foreign {
	var out []Foreign
	for _, h := range all {
		if h.Project == d.Project || ours[h.ID] {
			continue
		}
		for i := range d.Services {
			s := &d.Services[i]
			if h.Name == s.Spec.Name {
				out = append(out, Foreign{Service: s.Name, Container: h.Name, Holds: "the name " + h.Name})
			}
			for _, p := range s.hostPorts() {
				if slices.Contains(h.Ports, p) {
					out = append(out, Foreign{Service: s.Name, Container: h.Name, Holds: "the port " + p})
				}
			}
		}
	}
	return out
}

// hostPorts are the fixed ports a service publishes, as "80/tcp".
func (s *Service) hostPorts() []string {
	var out []string
	for port, bindings := range s.Spec.Host.PortBindings {
		for _, b := range bindings {
			if b.HostPort != "" && b.HostPort != "0" {
				out = append(out, b.HostPort+"/"+string(port.Proto()))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
