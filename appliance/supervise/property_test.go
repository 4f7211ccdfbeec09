// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/compose/stack"
)

// TestMain makes more checks than rapid's hundred; a flag still counts.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "2000"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// world is one random moment: a stack, what is there, what is remembered.
type world struct {
	d *Desired
	o Observed
	h History
}

func pick[T any](t *rapid.T, label string, from ...T) T {
	return rapid.SampledFrom(from).Draw(t, label)
}

func moment(t *rapid.T, label string) time.Time {
	return noon.Add(time.Duration(rapid.IntRange(-7200, 600).Draw(t, label)) * time.Second)
}

func drawWorld(t *rapid.T) world {
	var list []Service
	n := rapid.IntRange(1, 6).Draw(t, "services")
	for i := range n {
		s := svc(fmt.Sprintf("s%d", i), pick(t, "policy", "always", "on-failure", "unless-stopped", "no"), rapid.Bool().Draw(t, "check"))
		s.OneShot = rapid.IntRange(0, 4).Draw(t, "oneshot") == 0
		s.Restart.Max = pick(t, "max", 0, 0, 3)
		s.Restart.Delay = pick(t, "delay", 0, 0, 7*time.Second)
		s.Restart.Window = pick(t, "window", 0, 0, time.Minute)
		s.Sheddable, s.Class = rapid.Bool().Draw(t, "sheddable"), pick(t, "class", stack.Critical, stack.Normal, stack.BestEffort)
		s.Update = pick(t, "update", "", StartFirst)
		for j := range i {
			if rapid.IntRange(0, 2).Draw(t, "dep") == 0 {
				s.DependsOn = append(s.DependsOn, Dependency{Service: fmt.Sprintf("s%d", j), Condition: pick(t, "condition", Started, Healthy, Completed),
					Required: rapid.Bool().Draw(t, "required"), Restart: rapid.Bool().Draw(t, "restart")})
			}
		}
		list = append(list, s)
	}
	w := world{d: stackOf(list...), h: NewHistory()}
	w.h.Boot = "b"
	w.o = Observed{Services: map[string][]engine.Container{}, Boot: pick(t, "boot", "b", "b", "b", "c"), Busy: map[string]Kind{}, ByHand: map[string]bool{},
		Networks: map[string]bool{"demo_default": rapid.IntRange(0, 9).Draw(t, "network") > 0}, Volumes: map[string]bool{"demo_data": true},
		Fresh: rapid.IntRange(0, 9).Draw(t, "fresh") == 0, Stopping: rapid.IntRange(0, 9).Draw(t, "stopping") == 0}
	w.o.Pressure = Pressure{Level: pick(t, "pressure", "", "none", "warn", "high"), Text: "full", Since: moment(t, "since")}
	for i := range w.d.Services {
		s := &w.d.Services[i]
		for k := range pick(t, "containers", 0, 1, 1, 1, 1, 2) {
			c := is(w.d, s.Name, pick(t, "state", "created", "running", "running", "running", "paused", "exited", "exited", "dead", "restarting"),
				pick(t, "health", "none", "starting", "healthy", "unhealthy"))
			c.ID = fmt.Sprintf("id-%s-%d", s.Name, k)
			c.Started, c.ExitCode = moment(t, "started"), pick(t, "code", 0, 1, 137)
			if !c.Up() && c.State != "created" {
				c.Finished = moment(t, "finished")
			}
			switch rapid.IntRange(0, 9).Draw(t, "odd") {
			case 0:
				c.Labels = map[string]string{labelHash: "old", labelGeneration: "0", engine.ServiceLabel: s.Name}
			case 1:
				c.Name = "renamed-" + c.Name
			case 2:
				c.Name = s.next()
			}
			w.o.ByHand[c.ID] = rapid.IntRange(0, 5).Draw(t, "byhand") == 0
			w.o.Services[s.Name] = append(w.o.Services[s.Name], c)
		}
		if rapid.IntRange(0, 4).Draw(t, "busy") == 0 {
			w.o.Busy[s.Name] = pick(t, "kind", Start, Stop, RestartOp, Create, Remove, Look)
		}
		p := Past{Container: pick(t, "known", "", "id-"+s.Name+"-0", "id-gone"), Ended: pick(t, "ended", endNone, endRetry, endGaveUp, endDone, endByHand),
			Why: "why", Failures: rapid.IntRange(0, 12).Draw(t, "failures"), NotBefore: moment(t, "notbefore")}
		if p.Failures > 0 {
			p.FailingSince = moment(t, "failing")
		}
		if rapid.Bool().Draw(t, "well") {
			p.WellSince = moment(t, "wellsince")
		}
		switch rapid.IntRange(0, 9).Draw(t, "away") {
		case 0:
			p.Stopped = moment(t, "stopped")
		case 1:
			p.Asked = moment(t, "asked")
		case 2:
			p.Shed = &Shed{At: moment(t, "shed"), Why: "full"}
		}
		if s.OneShot && rapid.Bool().Draw(t, "completed") {
			p.Completed = &Completion{Generation: rapid.IntRange(0, 1).Draw(t, "generation"), Hash: s.Hash}
		}
		w.h.Past[s.Name] = p
	}
	return w
}

func half() float64 { return 0.5 }

// TestDecideProperties holds for every moment whatever led to it.
func TestDecideProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		h, _ := Advance(w.d, w.o, w.h, noon, half)
		again, notes := Advance(w.d, withoutFresh(w.o), h, noon, half)
		for _, n := range notes {
			if n.Text != "" && h.Past[n.Service].Shed == again.Past[n.Service].Shed {
				t.Fatalf("the same look told something twice: %+v", n)
			}
		}
		for i := range w.d.Services {
			n := w.d.Services[i].Name
			if a, b := h.Past[n], again.Past[n]; a.Failures != b.Failures || a.Ended != b.Ended && b.Shed == a.Shed || a.Attempts != b.Attempts {
				t.Fatalf("%s was counted twice: %+v, then %+v", n, a, b)
			}
		}
		p := Decide(w.d, w.o, h, noon)
		keys := map[string]bool{}
		for _, op := range p.Ops {
			if keys[op.key()] {
				t.Fatalf("two operations on %s:\n%s", op.key(), p)
			}
			keys[op.key()] = true
			w.judge(t, h, p, op)
		}
		if q := Decide(w.d, w.o, h, noon); !reflect.DeepEqual(p.Ops, q.Ops) {
			t.Fatalf("not the same twice:\n%s\n%s", p, q)
		}
		// While they are under way, nothing is asked for again.
		o := w.o
		o.Busy = map[string]Kind{}
		for k, v := range w.o.Busy {
			o.Busy[k] = v
		}
		for _, op := range p.Ops {
			o.Busy[op.key()] = op.Kind
		}
		for _, op := range Decide(w.d, o, h, noon).Ops {
			if keys[op.key()] {
				t.Fatalf("asked for twice: %s\n%s", op, p)
			}
		}
		w.lively(t, h, p)
	})
}

func withoutFresh(o Observed) Observed {
	o.Fresh = false
	return o
}

// judge checks one operation.
func (w world) judge(t *rapid.T, h History, p Plan, op Op) {
	s := w.d.service(op.Target)
	if s == nil {
		return
	}
	past := h.Past[s.Name]
	c, _ := w.o.pick(s)
	starts := op.Kind == Start || op.Kind == RestartOp
	if starts && past.away() != "" {
		t.Fatalf("starts what is %s: %s", past.away(), op)
	}
	if starts && w.o.Stopping {
		t.Fatalf("starts while the stack is being stopped: %s", op)
	}
	if op.Kind == Start {
		if past.Ended == endRetry && past.NotBefore.After(noon) && past.NotBefore.Sub(noon) <= backoffMax {
			t.Fatalf("starts %s too early: %s", past.NotBefore.Sub(noon), op)
		}
		if past.completed(s, 1) {
			t.Fatalf("a completed one-shot runs again: %s", op)
		}
		if len(w.o.Services[s.Name]) > 1 && c.Name != s.next() {
			t.Fatalf("starts one of two containers: %s", op)
		}
	}
	if starts {
		for _, dep := range s.DependsOn {
			if !dep.Required {
				continue
			}
			dp := h.Past[dep.Service]
			dc, _ := w.o.pick(w.d.service(dep.Service))
			switch {
			case dp.completed(w.d.service(dep.Service), 1) && dep.Condition != Healthy:
			case dep.Condition == Completed && op.Kind == Start:
				t.Fatalf("starts before %s has completed: %s", dep.Service, op)
			case op.Kind == RestartOp && op.Cause != causeUnhealthy:
			case dc == nil || !dc.Up():
				t.Fatalf("starts before %s: %s\n%s", dep.Service, op, p)
			case dep.Condition == Healthy && dc.Health != "healthy" && dc.Health != "none":
				t.Fatalf("starts before %s is healthy: %s", dep.Service, op)
			}
		}
	}
	// What is well, as it shall be, and wanted is not touched.
	ends := op.Kind == Stop || op.Kind == RestartOp || op.Kind == Remove
	if ends && c != nil && op.Container == c.ID && c.State == "running" && (c.Health == "healthy" || c.Health == "none") &&
		c.Labels[labelHash] == s.Hash && past.away() == "" && past.Asked.IsZero() && !w.o.Stopping && op.Cause != causeDependency {
		t.Fatalf("touches what is well: %s\n%s", op, p)
	}
	if op.Kind == Stop && op.Cause == "" && past.Shed != nil && w.h.Past[s.Name].Shed == nil && (s.Class == stack.Critical || !s.Sheddable) {
		t.Fatalf("sheds %s, which must not be shed", s.Name)
	}
}

// lively: whoever is not as it shall be has an operation, an event or a time
// to wait for, or a reason that only a person can change.
func (w world) lively(t *rapid.T, h History, p Plan) {
	for i := range w.d.Services {
		s := &w.d.Services[i]
		past := h.Past[s.Name]
		c, _ := w.o.pick(s)
		if w.o.Stopping || w.o.Busy[s.Name] != "" || past.away() != "" || past.completed(s, 1) || past.Ended != endRetry || c == nil || c.State != "exited" {
			continue
		}
		st := p.Services[i]
		moves := !p.Next.IsZero()
		for _, op := range p.Ops {
			moves = moves || op.Target == s.Name || op.Kind == CreateNetwork
		}
		if !moves && st.Reason == "" {
			t.Fatalf("%s is stuck without a word:\n%s", s.Name, p)
		}
	}
}

// TestBackoffProperty: whatever the failures, the waits are those of Delay,
// and never shorter than what the stack asks for.
func TestBackoffProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := svc("web", "always", false)
		s.Restart.Delay = time.Duration(rapid.IntRange(0, 600).Draw(t, "delay")) * time.Second
		j := rapid.Float64Range(0, 0.999).Draw(t, "jitter")
		p, now := Past{}, noon
		for n := 1; n <= rapid.IntRange(1, 40).Draw(t, "failures"); n++ {
			p = p.fail(&s, now, func() float64 { return j })
			wait := p.NotBefore.Sub(now)
			if wait < s.Restart.Delay || wait > max(backoffMax, s.Restart.Delay) {
				t.Fatalf("failure %d waits %s", n, wait)
			}
			if s.Restart.Delay == 0 && wait != Delay(n, j) || s.Restart.Delay > 0 && n < crashLoopAt && wait != s.Restart.Delay {
				t.Fatalf("failure %d waits %s", n, wait)
			}
			now = p.NotBefore
		}
	})
}

// TestThrottleProperty: in no stretch of time are more restarts allowed than
// the burst and one a second for each processor, whoever asks, and those who
// failed the fewest times are first.
func TestThrottleProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b bucket
		var given []time.Time
		now, o := noon, Observed{Processors: rapid.IntRange(0, 8).Draw(t, "processors")}
		for range rapid.IntRange(1, 200).Draw(t, "asks") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			x := &decision{now: now, o: o}
			x.plan.heal = b
			n := rapid.IntRange(1, 4).Draw(t, "at once")
			for i := range n {
				x.restart(Op{Kind: Start, Target: fmt.Sprint(i), Container: fmt.Sprint(9 - i)}, Past{Failures: 9 - i})
			}
			x.heal()
			for i, op := range x.plan.Ops {
				given = append(given, now)
				if op.Target != fmt.Sprint(n-1-i) {
					t.Fatalf("%s is number %d", op.Target, i)
				}
			}
			if x.throttled != n-len(x.plan.Ops) {
				t.Fatalf("%d of %d restarts, %d throttled", len(x.plan.Ops), n, x.throttled)
			}
			if x.throttled > 0 && (x.plan.Next.IsZero() || x.plan.Next.Sub(now) > o.healEvery()+time.Millisecond) {
				t.Fatalf("refused until %s", x.plan.Next)
			}
			b = x.plan.heal
		}
		for i, from := range given {
			for k := i; k < len(given); k++ {
				if n, d := k-i+1, given[k].Sub(from); float64(n) > healBurst+float64(d)/float64(o.healEvery())+1e-6 {
					t.Fatalf("%d restarts within %s", n, d)
				}
			}
		}
	})
}
