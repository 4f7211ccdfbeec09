// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// is makes a container of a service as the engine would show it.
func is(d *Desired, service, state, health string, change ...func(*engine.Container)) engine.Container {
	c := engine.Container{ID: "id-" + service, Name: "demo-" + service + "-1", State: state, Health: health, Started: noon.Add(-time.Hour)}
	if s := d.service(service); s != nil {
		c.Labels = s.Spec.Config.Labels
	} else {
		c.Labels = map[string]string{engine.ProjectLabel: d.Project, engine.ServiceLabel: service}
	}
	if state == "exited" {
		c.Finished = noon.Add(-time.Minute)
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

// TestPlans holds whole plans as text: what is done, why, and what each
// service is.
func TestPlans(t *testing.T) {
	id := func(s string) func(*engine.Container) { return func(c *engine.Container) { c.ID = s } }
	for _, c := range []struct {
		name string
		have []engine.Container
		set  func(*Observed, *History)
		want string
	}{
		{name: "an empty box", set: func(o *Observed, _ *History) { clear(o.Networks); clear(o.Volumes) }, want: `
create network demo_default: the stack has it and the engine does not
create volume demo_data: the stack has it and the engine does not
  db: waiting/none (waits for volume demo_data)
  migrate: waiting/none (waits for volume demo_data)
  web: waiting/none (waits for volume demo_data)
  edge: waiting/none (waits for volume demo_data)
stack: starting`},
		{name: "all is made", have: []engine.Container{is(demo(), "db", "created", "none"), is(demo(), "web", "created", "none")}, want: `
start db (id-db): it depends on nothing
create migrate: it has no container
create edge: it has no container
  db: created/none
  migrate: waiting/none (waits for db to be healthy)
  web: created/none (waits for db to be healthy)
  edge: waiting/none (waits for web to be healthy)
stack: starting`},
		{name: "an operation is under way", have: []engine.Container{is(demo(), "db", "created", "none")},
			set: func(o *Observed, _ *History) {
				o.Busy = map[string]Kind{"db": Start, "migrate": Create, "edge": Create}
			}, want: `
create web: it has no container
  db: created/none
  migrate: waiting/none (waits for db to be healthy)
  web: waiting/none (waits for db to be healthy)
  edge: waiting/none (waits for web to be healthy)
stack: starting`},
		{name: "orphans and doubles", have: []engine.Container{
			is(demo(), "db", "running", "healthy"), is(demo(), "old", "running", "none"), is(demo(), "older", "exited", "none"),
			is(demo(), "web", "running", "healthy"), is(demo(), "web", "exited", "none", id("twin")),
			is(demo(), "migrate", "exited", "none"), is(demo(), "edge", "running", "none"),
		}, want: `
remove web (twin): a second container of the service
stop old (id-old): the stack has no such service
remove older (id-older): the stack has no such service
  db: running/healthy
  migrate: completed/none
  web: running/healthy
  edge: running/none
stack: healthy`},
		{name: "a change", have: []engine.Container{
			is(demo(), "db", "running", "healthy", func(c *engine.Container) { c.Labels = map[string]string{labelHash: "old", engine.ServiceLabel: "db"} }),
			is(demo(), "migrate", "exited", "none"), is(demo(), "web", "running", "healthy"), is(demo(), "edge", "running", "none"),
		}, want: `
stop db (id-db): its configuration changed
  db: running/healthy
  migrate: completed/none
  web: running/healthy
  edge: running/none
stack: healthy`},
		{name: "stopping", have: []engine.Container{
			is(demo(), "db", "running", "healthy"), is(demo(), "migrate", "exited", "none"),
			is(demo(), "web", "running", "healthy"), is(demo(), "edge", "exited", "none"),
		}, set: func(o *Observed, _ *History) { o.Stopping = true }, want: `
stop web (id-web): the stack is being stopped
  db: running/healthy
  migrate: completed/none
  web: running/healthy
  edge: exited/none (the stack was stopped)
stack: stopping`},
		{name: "a clock that was set back", have: []engine.Container{is(demo(), "db", "exited", "none")},
			set: func(o *Observed, h *History) {
				o.Busy = map[string]Kind{"migrate": Create, "web": Create, "edge": Create}
				h.Past["db"] = Past{Container: "id-db", Finished: noon.Add(-time.Minute), Ended: endRetry, Why: "ended with exit code 1", Failures: 2, NotBefore: noon.Add(24 * time.Hour)}
			}, want: `
  db: backoff/none (ended with exit code 1; next try in 5m0s)
  migrate: waiting/none (waits for db to be healthy)
  web: waiting/none (waits for db to be healthy)
  edge: waiting/none (waits for web to be healthy)
stack: starting`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := demo()
			o := Observed{Services: map[string][]engine.Container{}, Boot: "b",
				Networks: map[string]bool{"demo_default": true}, Volumes: map[string]bool{"demo_data": true}}
			for _, x := range c.have {
				n := x.Labels[engine.ServiceLabel]
				o.Services[n] = append(o.Services[n], x)
			}
			h := NewHistory()
			h.Boot = "b"
			if c.set != nil {
				c.set(&o, &h)
			}
			h, _ = Advance(d, o, h, noon, func() float64 { return 0.5 })
			p := Decide(d, o, h, noon)
			if got, want := strings.TrimSpace(p.String()), strings.TrimSpace(c.want); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if c.name == "a clock that was set back" && !p.Next.Equal(noon.Add(backoffMax)) {
				t.Errorf("looks again at %s, want in %s at the latest", p.Next, backoffMax)
			}
		})
	}
}

// TestClockSetBack: a dependent that was restarted with its dependency is not
// restarted for ever because the clock says it came first.
func TestClockSetBack(t *testing.T) {
	web := svc("web", "always", false, "db")
	web.DependsOn[0].Restart = true
	d := stackOf(svc("db", "always", false), web)
	o := Observed{Services: map[string][]engine.Container{
		"db":  {is(d, "db", "running", "none", func(c *engine.Container) { c.Started = noon.Add(time.Hour) })},
		"web": {is(d, "web", "running", "none")},
	}, Boot: "b", Networks: map[string]bool{"demo_default": true}, Volumes: map[string]bool{"demo_data": true}}
	h := NewHistory()
	h.Boot = "b"
	h, _ = Advance(d, o, h, noon, half)
	p := Decide(d, o, h, noon)
	if len(p.Ops) != 1 || p.Ops[0].Kind != RestartOp || p.Ops[0].Cause != causeDependency {
		t.Fatalf("plan\n%s", p)
	}
	h = intend(d, o, h.Record(p), p).Done(p.Ops[0], "")
	o.Services["web"][0].Started = noon.Add(time.Second)
	h, _ = Advance(d, o, h, noon, half)
	if p := Decide(d, o, h, noon); len(p.Ops) != 0 {
		t.Errorf("again\n%s", p)
	}
}

// BenchmarkDecide is one turn of a stack of 50.
func BenchmarkDecide(b *testing.B) {
	var list []Service
	for i := range 50 {
		list = append(list, svc(fmt.Sprintf("s%02d", i), "always", true))
		if i > 0 {
			list[i].DependsOn = []Dependency{{Service: "s00", Condition: Healthy, Required: true}}
		}
	}
	d := stackOf(list...)
	o := Observed{Services: map[string][]engine.Container{}, Boot: "b", Networks: map[string]bool{"demo_default": true}, Volumes: map[string]bool{"demo_data": true}}
	for _, s := range d.Services {
		o.Services[s.Name] = []engine.Container{is(d, s.Name, "running", "healthy")}
	}
	h := NewHistory()
	b.ReportAllocs()
	for b.Loop() {
		h, _ = Advance(d, o, h, noon, half)
		h = h.Record(Decide(d, o, h, noon))
	}
}

func TestDelay(t *testing.T) {
	for n, want := range map[int]time.Duration{0: 0, 1: 0, 2: time.Second, 3: 2 * time.Second, 9: 128 * time.Second, 10: 256 * time.Second, 11: backoffMax, 1000: backoffMax} {
		if got := Delay(n, 0.5); got != want {
			t.Errorf("Delay(%d) is %s, want %s", n, got, want)
		}
		for _, j := range []float64{0, 0.999} {
			if got := Delay(n, j); got < want*9/10 || got > min(want*11/10, backoffMax) {
				t.Errorf("Delay(%d, %g) is %s", n, j, got)
			}
		}
	}
}
