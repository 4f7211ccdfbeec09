// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"strings"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/status"
)

// Kind is what an operation does.
type Kind string

// The kinds of operation.
const (
	CreateNetwork Kind = "create network"
	CreateVolume  Kind = "create volume"
	Create        Kind = "create"
	Start         Kind = "start"
	RestartOp     Kind = "restart"
	Stop          Kind = "stop"
	Remove        Kind = "remove"
	// PostStart runs the hooks that a killed daemon left out.
	PostStart Kind = "post-start hooks"
	Rename    Kind = "rename"
	Update    Kind = "update"
	// Look is no act: a container has changed and is yet to be looked at.
	Look Kind = "look"
)

// Op is one act on the engine, with its cause.
type Op struct {
	Kind Kind
	// Target is the service's, network's or volume's name.
	Target string
	// Container is the id the act is for, "" for Create and networks.
	Container string
	// Grace bounds a stop.
	Grace time.Duration
	// Cause is what a restart counts as, "" for what is none.
	Cause string
	// Init is true for the first start of a container: pre_start comes before.
	Init bool
	// Name is the container's new name, for Rename, and for Create where it
	// is not the service's own.
	Name string
	// Said gets what an act has to tell although it went on; nil drops it.
	Said func(text string)
	// Limits to set, for Update.
	Limits *engine.Limits
	// Because is the cause, one clause.
	Because string
}

// key is what only one operation at a time may touch.
func (o Op) key() string {
	switch o.Kind {
	case CreateNetwork:
		return "network " + o.Target
	case CreateVolume:
		return "volume " + o.Target
	case Rename:
		return "name of " + o.Target
	case Update:
		return "limits of " + o.Target
	}
	return o.Target
}

func (o Op) String() string {
	s := string(o.Kind) + " " + o.Target
	if o.Container != "" {
		s += " (" + short(o.Container) + ")"
	}
	return s + ": " + o.Because
}

func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

// Plan is what shall happen now, what each service is, and when to look again.
type Plan struct {
	Ops []Op
	// Next is the earliest time at which the plan may change by itself; zero
	// where only an event can change it.
	Next time.Time
	// Stack is "starting", "healthy", "degraded", "stopping" or "stopped".
	Stack string
	// Services in start order.
	Services   []status.Service
	Conditions []status.Condition
	// heal is the throttle after this plan.
	heal bucket
}

// String prints the operations, one a line, then the state of each service.
func (p Plan) String() string {
	var b strings.Builder
	for _, o := range p.Ops {
		fmt.Fprintln(&b, o)
	}
	for _, s := range p.Services {
		fmt.Fprintf(&b, "  %s: %s/%s", s.Name, s.State, s.Health)
		if s.Reason != "" {
			fmt.Fprintf(&b, " (%s)", s.Reason)
		}
		fmt.Fprintln(&b)
	}
	fmt.Fprintf(&b, "stack: %s\n", p.Stack)
	return b.String()
}

// wake asks for another look at t, if that is the earliest.
func (p *Plan) wake(t time.Time) {
	if p.Next.IsZero() || t.Before(p.Next) {
		p.Next = t
	}
}
