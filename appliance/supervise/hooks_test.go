// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/engine/fake"
)

func hooked() *Desired {
	d := stackOf(svc("web", "always", false), svc("edge", "always", false, "web"))
	s := &d.Services[0]
	s.Hooks = Hooks{
		PreStart: []engine.Spec{{Name: "demo-web-pre-start-0", Config: container.Config{Labels: map[string]string{
			engine.ProjectLabel: "demo", engine.ServiceLabel: "web", fake.InitLabel: "pre_start.0"}}}},
		PostStart: []Hook{{Command: []string{"after"}}},
		PreStop:   []Hook{{Command: []string{"before"}}},
	}
	return d
}

func TestHooksRunAroundTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, hooked())
		b.start()
		pass(10 * time.Second)
		b.want("healthy")
		got := strings.Join(b.e.Log(), ", ")
		if !strings.Contains(got, "init create web, init start web, init remove web, start web, exec web [after], start edge") {
			t.Errorf("calls %s", got)
		}
		b.e.ClearLog()
		b.e.Kill("web", 1)
		pass(time.Second)
		// A restart of the same container needs no init container.
		if got := fmt.Sprint(b.e.Log()); got != "[start web exec web [after]]" {
			t.Errorf("calls %s", got)
		}
		b.e.ClearLog()
		b.ask(VerbStop, "web")
		pass(time.Second)
		if got := fmt.Sprint(b.e.Log()); got != "[exec web [before] stop web]" {
			t.Errorf("calls %s", got)
		}
		b.stop()
	})
}

func TestFailingHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, hooked())
		b.e.Behave("web", fake.Behaviour{InitCode: 3})
		b.start()
		pass(3 * time.Second)
		if s := b.state("web"); s.State != "backoff" || !strings.Contains(s.Reason, "pre_start 0 ended with exit code 3: docker logs demo-web-pre-start-0") {
			t.Errorf("%+v", s)
		}
		b.e.Behave("web", fake.Behaviour{HookFails: true})
		pass(3 * time.Second)
		s := b.state("web")
		if !strings.Contains(s.Reason, "post_start 0: after ended with exit code 1: the hook said no") {
			t.Errorf("%+v", s)
		}
		if s := b.state("edge"); s.State == "running" {
			t.Errorf("edge started before web had: %+v", s)
		}
		failures := s.Failures
		b.e.Behave("web", fake.Behaviour{})
		pass(20 * time.Minute)
		b.want("healthy")
		if failures > 6 {
			t.Errorf("%d failures: each start counted twice?", failures)
		}
		// pre_stop that fails does not keep it from stopping.
		b.e.Behave("web", fake.Behaviour{HookFails: true})
		b.ask(VerbStop, "web")
		pass(time.Second)
		if s := b.state("web"); s.State != "stopped" {
			t.Errorf("%+v", s)
		}
		if !strings.Contains(b.journal(), "pre_stop: before ended with exit code 1") {
			t.Error("the failed pre_stop is not in the journal")
		}
		b.stop()
	})
}
