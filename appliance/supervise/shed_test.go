// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast/holdfast/compose/stack"
)

func sheddable(s Service, class stack.Class, order int) Service {
	s.Class, s.Sheddable, s.ShedOrder = class, true, order
	return s
}

func TestSheddingAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		critical := svc("db", "always", false)
		critical.Class, critical.Sheddable = stack.Critical, true // never, whatever it says
		b := newBox(t, stackOf(critical,
			sheddable(svc("a", "always", false), stack.Normal, 0),
			sheddable(svc("x", "always", false), stack.BestEffort, 2),
			sheddable(svc("y", "always", false), stack.BestEffort, 1),
			sheddable(svc("z", "always", false), stack.BestEffort, 1),
			svc("edge", "always", false, "y")))
		b.start()
		pass(20 * time.Second)
		b.want("healthy")
		b.e.ClearLog()
		b.press(Pressure{Level: "high", Resource: "memory", Text: "memory: 97% in use", Since: time.Now()})
		pass(time.Second)
		if got := fmt.Sprint(b.e.Log()); got != "[stop y]" {
			t.Errorf("after 1 s: %s", got)
		}
		if s := b.state("y"); s.State != "shed" || s.Reason != "memory: 97% in use" || s.Restarts != 0 {
			t.Errorf("y: %+v", s)
		}
		if s := b.state("edge"); s.State != "running" || s.Reason != "y, which it depends on, is shed: memory: 97% in use" {
			t.Errorf("edge: %+v", s)
		}
		if c := codes(b.plan()); c != "service-shed" {
			t.Errorf("conditions %s", c)
		}
		b.want("degraded")
		pass(time.Minute)
		if got := fmt.Sprint(b.e.Log()); got != "[stop y stop z stop x stop a]" {
			t.Errorf("after a minute: %s", got)
		}
		if _, err := b.sup.Request(t.Context(), VerbStart, []string{"y"}); err == nil || !strings.Contains(err.Error(), "comes back by itself") {
			t.Errorf("start of a shed service: %v", err)
		}
		// A new daemon knows.
		b.stop()
		b.start()
		pass(time.Second)
		if s := b.state("a"); s.State != "shed" {
			t.Errorf("after a restart of the daemon: %+v", s)
		}
		b.e.ClearLog()
		b.press(Pressure{Level: "none", Since: time.Now()})
		pass(shedCalm - time.Second)
		b.press(Pressure{Level: "warn", Resource: "memory", Since: time.Now()})
		pass(time.Second)
		b.press(Pressure{Level: "none", Since: time.Now()})
		pass(shedCalm - time.Second)
		if l := b.e.Log(); len(l) != 0 {
			t.Errorf("came back after less than a calm minute: %v", l)
		}
		pass(2 * time.Second)
		if got := fmt.Sprint(b.e.Log()); got != "[start a]" {
			t.Errorf("first back: %s", got)
		}
		pass(4 * shedCalm)
		if got := fmt.Sprint(b.e.Log()); got != "[start a start x start z start y]" {
			t.Errorf("all back: %s", got)
		}
		b.want("healthy")
		if n := b.state("y").RestartsBy["pressure"]; n != 1 {
			t.Errorf("y: %v", b.state("y").RestartsBy)
		}
		b.stop()
	})
}

func (b *box) press(p Pressure) {
	b.mu.Lock()
	b.pressure = p
	b.mu.Unlock()
	b.sup.Wake()
}
