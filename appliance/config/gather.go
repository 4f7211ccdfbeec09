// SPDX-License-Identifier: Apache-2.0

package config

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast/holdfast/appliance/config/platform"
)

// Env is what comes in from outside.
type Env struct {
	// Root goes before every path; "" on a box.
	Root string
	// Run runs vmware-rpctool, mount and umount.
	Run Runner
	// EC2 and GCE are the URLs of the metadata services, "" for the real one.
	EC2, GCE string
	// WaitNetwork returns once the network is up, with an error when it gives
	// up; nil does not wait. It is called only where the network is needed.
	WaitNetwork func(context.Context) error
	// Pause waits between two questions to a metadata service; nil waits by
	// the clock.
	Pause func(context.Context, time.Duration) error
	// Out hears a line for each document; nil means nobody.
	Out io.Writer
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Runner runs one command to its end and gives its standard output
// (appliance/firstboot has the real one).
type Runner interface {
	Run(ctx context.Context, argv ...string) ([]byte, error)
}

func (e Env) path(name string) string { return filepath.Join("/", e.Root, name) }

func (e Env) run(ctx context.Context, argv ...string) ([]byte, error) {
	if e.Run == nil {
		return nil, errors.New(argv[0] + ": nothing runs commands here")
	}
	return e.Run.Run(ctx, argv...)
}

func (e Env) say(format string, args ...any) {
	if e.Out != nil {
		fmt.Fprintf(e.Out, "holdfast: "+format+"\n", args...)
	}
}

func (e Env) now() time.Time {
	if e.Now != nil {
		return e.Now()
	}
	return time.Now()
}

// Local puts together what can be known before the network is up: all sources
// on the machine, and for a metadata service the last good document. It writes
// the result for Load. The context bounds the commands it runs.
func Local(ctx context.Context, env Env) Effective {
	return gather(ctx, env, false)
}

// Full is Local with the metadata service of the platform, if it has one, for
// which it waits for the network. What is good it keeps for later boots, what
// is gone it forgets.
func Full(ctx context.Context, env Env) Effective {
	return gather(ctx, env, true)
}

// input is one document that a platform may have.
type input struct {
	source Source
	// name is that of the kept file, where is for people.
	name, where string
	// layers checks a document and gives its content, one or two layers.
	layers func(data []byte) ([]layer, []Problem)
	// lasting: that the document is not there is no wish of anybody. vCenter
	// hands the OVF environment over only when it starts the machine itself,
	// not when the host does.
	lasting bool
	read    func(context.Context) reading
}

// reading is what came of looking for a document.
type reading struct {
	// state is Applied (found, not judged yet), Absent, Unreachable or
	// Waiting.
	state string
	data  []byte
	// where, if not "", is more exact than that of the input.
	where string
	// text is why, or a note.
	text string
}

func gather(ctx context.Context, env Env, network bool) Effective {
	dmi := platform.Read(env.Root)
	e := Effective{Platform: platform.Detect(dmi), At: env.now()}
	machine := strings.ToLower(dmi.ProductUUID)
	var layers []layer
	for _, in := range env.inputs(e.Platform, network, &e.Instance) {
		s := settled{in: in, reading: in.read(ctx), at: e.At}
		kept, err := loadKept(env, in.name)
		if err != nil {
			s.reading.text = join(s.reading.text, err.Error())
		} else if kept != nil && kept.Machine == machine {
			s.kept = kept
		}
		s.settle()
		e.Sources = append(e.Sources, s.state)
		layers = append(layers, s.layers...)
		if network {
			if err := s.keep(env, machine); err != nil {
				e.Failed = errors.Join(e.Failed, err)
			}
			env.tell(s.state)
		}
	}
	c, err := build(layers)
	if err != nil {
		// Only a fault of this package ends here; the box comes up all the same.
		c, layers = Default(), nil
		e.Failed = errors.Join(e.Failed, err)
	}
	e.Config, e.Origin = c, origins(layers)
	if err := e.Save(env.Root); err != nil {
		e.Failed = errors.Join(e.Failed, fmt.Errorf("the configuration can't be written down: %w", err))
	}
	return e
}

// tell puts what became of a document on the console.
func (e Env) tell(s SourceState) {
	if s.State == Absent {
		return
	}
	text := s.State
	if s.Why != "" {
		text += " from earlier, the newest is " + s.Why
	}
	if s.Text != "" {
		text += ": " + s.Text
	}
	e.say("configuration, %s: %s", s.Where, text)
	for _, p := range s.Problems {
		e.say("  %s", p)
	}
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// settled is one input once it is known what counts.
type settled struct {
	in      input
	reading reading
	// kept is the last good document of this machine, or nil.
	kept *record
	at   time.Time

	state  SourceState
	layers []layer
}

// settle decides. It is pure.
func (s *settled) settle() {
	s.state = SourceState{Source: s.in.source, Where: s.in.where, State: s.reading.state, Text: s.reading.text, At: s.at}
	if s.reading.where != "" {
		s.state.Where = s.reading.where
	}
	if s.reading.state == Applied {
		layers, problems := s.in.layers(s.reading.data)
		if len(problems) == 0 {
			s.layers = layers
			return
		}
		s.state.State, s.state.Problems = Refused, problems
	}
	if s.state.State == Absent && !s.in.lasting || s.kept == nil {
		return
	}
	layers, problems := s.in.layers(s.kept.Data)
	if len(problems) > 0 {
		// Another version of this program has kept it.
		s.state.Text = join(s.state.Text, "the one kept from earlier is not good any more: "+problems[0].String())
		return
	}
	s.layers = layers
	s.state.State, s.state.Why, s.state.At = Kept, s.state.State, s.kept.At
}

// keep stores a good document and forgets one that was taken away.
func (s *settled) keep(env Env, machine string) error {
	switch {
	case s.state.State == Applied:
		return storeKept(env, s.in.name, s.kept, record{
			Source: s.in.source, Where: s.state.Where, At: s.at, Machine: machine, Data: s.reading.data,
		})
	case s.state.State == Absent && !s.in.lasting:
		return forgetKept(env, s.in.name)
	}
	return nil
}
