// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast/holdfast/compose/stack"
)

const (
	pressureNone = "none"
	pressureHigh = "high"
	// shedPause is the least time between two sheddings: the kernel's
	// averages look back over 10 s, so the last one shows its effect by then.
	shedPause = 10 * time.Second
	// shedCalm is how long there must be no pressure at all before a service
	// comes back, and between two that do.
	shedCalm = 60 * time.Second
)

// Shed says why a service is stopped under pressure.
type Shed struct {
	At  time.Time `json:"at"`
	Why string    `json:"why"`
}

// shed stops one more service, or brings one back, as pressure goes.
func (h History) shed(d *Desired, o Observed, now time.Time) (History, []Note) {
	if h.ShedChange.After(now) {
		h.ShedChange = now // the clock was set back
	}
	switch {
	case o.Stopping || o.Pressure.Level == "":
	case o.Pressure.Level == pressureHigh && now.Sub(h.ShedChange) >= shedPause && !h.shedding(o):
		s := h.victim(d, o)
		if s == nil {
			return h, nil
		}
		p := h.Past[s.Name]
		p.Shed = &Shed{At: now, Why: o.Pressure.why()}
		h.Past[s.Name], h.ShedChange = p, now
		return h, []Note{{Service: s.Name, Container: p.Container, Text: "shed: " + p.Shed.Why}}
	case o.Pressure.calm(now, h.ShedChange) <= 0:
		name := h.lastShed()
		if name == "" {
			return h, nil
		}
		p := h.Past[name]
		p.Shed, p.Ended, p.NotBefore, p.Cause = nil, endNone, time.Time{}, causePressure
		h.Past[name], h.ShedChange = p, now
		return h, []Note{{Service: name, Text: fmt.Sprintf("brought back: no pressure for %s", shedCalm)}}
	}
	return h, nil
}

func (p Pressure) why() string {
	if p.Text != "" {
		return p.Text
	}
	return p.Resource + " pressure"
}

// calm is how long there must still be no pressure; more than 0 while there is.
func (p Pressure) calm(now, change time.Time) time.Duration {
	if p.Level != pressureNone {
		return shedCalm
	}
	since := p.Since
	if change.After(since) {
		since = change
	}
	return shedCalm - now.Sub(since)
}

// shedding reports whether a shed service has not ended yet.
func (h History) shedding(o Observed) bool {
	for name, p := range h.Past {
		if p.Shed != nil && slices.ContainsFunc(o.Services[name], engineUp) {
			return true
		}
	}
	return false
}

// victim is the next service to shed: best-effort ones first, then by the
// stack's order, then by name.
func (h History) victim(d *Desired, o Observed) *Service {
	var all []*Service
	for i := range d.Services {
		s := &d.Services[i]
		if s.Sheddable && s.Class != stack.Critical && h.Past[s.Name].Shed == nil &&
			o.Busy[s.Name] == "" && slices.ContainsFunc(o.Services[s.Name], engineUp) {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return nil
	}
	rank := func(s *Service) int {
		if s.Class == stack.BestEffort {
			return 0
		}
		return 1
	}
	return slices.MinFunc(all, func(a, b *Service) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.ShedOrder, b.ShedOrder), cmp.Compare(a.Name, b.Name))
	})
}

// lastShed is the service that was shed last, "" if none is.
func (h History) lastShed() string {
	last := ""
	for name, p := range h.Past {
		if p.Shed == nil {
			continue
		}
		if last == "" || p.Shed.At.After(h.Past[last].Shed.At) || p.Shed.At.Equal(h.Past[last].Shed.At) && name < last {
			last = name
		}
	}
	return last
}

// shedWake looks again when shedding may go on.
func (x *decision) shedWake() {
	switch {
	case x.o.Pressure.Level == pressureHigh && x.h.victim(x.d, x.o) != nil:
		if at := x.h.ShedChange.Add(shedPause); at.After(x.now) {
			x.plan.wake(at)
		}
	case x.o.Pressure.Level == pressureNone && x.h.lastShed() != "":
		x.plan.wake(x.now.Add(max(0, x.o.Pressure.calm(x.now, x.h.ShedChange))))
	}
}

// away says why a service is kept from running on purpose, or "".
func (p Past) away() string {
	switch {
	case p.Shed != nil:
		return "shed: " + p.Shed.Why
	case !p.Stopped.IsZero():
		return "stopped on request"
	}
	return ""
}
