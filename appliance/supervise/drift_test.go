// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/engine/fake"
)

// TestDriftIsMended does to a running service what people do.
func TestDriftIsMended(t *testing.T) {
	for what, want := range map[string]string{
		"rename": "[rename web]", "update": "[update web]", "remove": "[create web start web]",
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox(t, demo())
				b.d.Services[2].Spec.Host.Memory = 1 << 30
				b.start()
				pass(10 * time.Second)
				b.want("healthy")
				was, _ := b.e.Get("web")
				b.e.ClearLog()
				b.e.ByHand("web", what)
				pass(5 * time.Second)
				b.want("healthy")
				if got := fmt.Sprint(b.e.Log()); got != want {
					t.Errorf("%s, want %s", got, want)
				}
				if is, _ := b.e.Get("web"); is.Name != was.Name || is.Limits != was.Limits {
					t.Errorf("was %+v, is %+v", was, is)
				}
				if c := b.plan().Conditions; len(c) != 1 || c[0].Code != "service-drift" || c[0].Severity != "info" {
					t.Errorf("conditions %v", c)
				}
				if !strings.Contains(b.journal(), "web") || !strings.Contains(b.journal(), map[string]string{
					"rename": driftName, "update": driftLimits, "remove": "somebody removed it"}[what]) {
					t.Error("not in the journal")
				}
				pass(2 * driftShown)
				if c := b.plan().Conditions; len(c) != 0 {
					t.Errorf("still there: %v", c)
				}
				b.stop()
			})
		})
	}
}

// TestLimitsThatCannotBeUnset: the engine takes no 0, so the container is
// made anew.
func TestLimitsThatCannotBeUnset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, demo())
		b.start()
		pass(10 * time.Second)
		c, _ := b.e.Get("web")
		l := c.Limits
		l.NanoCPUs = 5e8 // web has none
		b.e.ClearLog()
		if err := b.e.Update(t.Context(), c.ID, l); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		b.want("healthy")
		if got := fmt.Sprint(b.e.Log()); got != "[update web stop web remove web create web start web]" {
			t.Errorf("calls %s", got)
		}
		b.stop()
	})
}

// TestNetworkRemovedByHand: the containers refer to it by an id that is gone
// for good, so they are made anew.
func TestNetworkRemovedByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, stackOf(svc("db", "always", true), svc("web", "always", false, "db")))
		b.start()
		pass(10 * time.Second)
		b.e.Kill("web", 1)
		b.e.Kill("db", 1)
		b.e.RemoveNetwork("demo_default")
		b.e.ClearLog()
		pass(time.Minute)
		b.want("healthy")
		if got := fmt.Sprint(b.e.Log()); !strings.Contains(got, "network demo_default") || strings.Count(got, "create db") != 1 || strings.Count(got, "create web") != 1 {
			t.Errorf("calls %s", got)
		}
		b.stop()
	})
}

func TestForeignContainersAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := stackOf(svc("db", "always", false), svc("web", "always", false))
		port := network.MustParsePort("80/tcp")
		d.Services[1].Spec.Host.PortBindings = network.PortMap{port: {{HostIP: netip.IPv4Unspecified(), HostPort: "8080"}}}
		b := newBox(t, d)
		b.e.AddForeign(engine.Holder{ID: "f1", Name: "demo-db-1"})
		b.e.AddForeign(engine.Holder{ID: "f2", Name: "squatter", Ports: []string{"8080/tcp"}})
		b.e.AddForeign(engine.Holder{ID: "f3", Name: "neighbour", Ports: []string{"9090/tcp"}})
		b.start()
		pass(10 * time.Second)
		var texts []string
		for _, c := range b.plan().Conditions {
			if c.Code == "foreign-container" {
				texts = append(texts, c.Text)
			}
		}
		all := strings.Join(texts, "\n")
		if len(texts) != 2 || !strings.Contains(all, "the name demo-db-1 of db") || !strings.Contains(all, "squatter, which is not of this stack, holds the port 8080/tcp of web") {
			t.Errorf("conditions %q", texts)
		}
		if s := b.state("db"); s.State != "backoff" && s.State != "waiting" && s.State != "crash-loop" {
			t.Errorf("db: %+v", s)
		}
		b.e.RemoveForeign("demo-db-1")
		b.e.RemoveForeign("squatter")
		pass(10 * time.Minute)
		b.want("healthy")
		if c := codes(b.plan()); strings.Contains(c, "foreign") {
			t.Errorf("conditions %s", c)
		}
		b.stop()
	})
}

// TestStartFirst replaces a service without a gap, and one with a read-write
// volume never so.
func TestStartFirst(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Service)
		want   string
	}{
		{"nothing shared", func(*Service) {}, "[create web start web stop web remove web rename web]"},
		{"a read-write volume", func(s *Service) {
			s.Spec.Host.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: "demo_data", Target: "/data"}}
		}, "[stop web remove web create web start web]"},
		{"a read-only volume", func(s *Service) {
			s.Spec.Host.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: "demo_data", Target: "/data", ReadOnly: true}}
		}, "[create web start web stop web remove web rename web]"},
		{"a bind", func(s *Service) { s.Spec.Host.Binds = []string{"/a:/b:rw"} }, "[stop web remove web create web start web]"},
		{"a port", func(s *Service) {
			s.Spec.Host.PortBindings = network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "80"}}}
		}, "[stop web remove web create web start web]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := stackOf(svc("web", "always", true))
				d.Services[0].Update = StartFirst
				c.change(&d.Services[0])
				b := newBox(t, d)
				b.start()
				pass(10 * time.Second)
				b.want("healthy")
				b.stop()
				d.Services[0].Hash = "changed"
				relabel(d, &d.Services[0])
				b.e.ClearLog()
				b.start()
				pass(time.Minute)
				b.want("healthy")
				if got := fmt.Sprint(b.e.Log()); got != c.want {
					t.Errorf("calls %s, want %s", got, c.want)
				}
				all := b.e.All("web")
				if len(all) != 1 || all[0].Name != "demo-web-1" {
					t.Errorf("containers %+v", all)
				}
				b.stop()
			})
		})
	}
}

// TestStartFirstKeepsTheOldOne while the new one never gets well.
func TestStartFirstKeepsTheOldOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := stackOf(svc("web", "always", true))
		d.Services[0].Update = StartFirst
		b := newBox(t, d)
		b.start()
		pass(10 * time.Second)
		old, _ := b.e.Get("web")
		b.stop()
		d.Services[0].Hash = "changed"
		relabel(d, &d.Services[0])
		b.e.Behave("web", fake.Behaviour{ExitAfter: time.Second, ExitCode: 1, HealthyAfter: -1})
		b.start()
		pass(time.Hour)
		all := b.e.All("web")
		if len(all) != 2 || all[0].ID != old.ID || !all[0].Up() {
			t.Errorf("containers %+v", all)
		}
		b.e.Behave("web", fake.Behaviour{HealthyAfter: time.Second})
		pass(10 * time.Minute)
		b.want("healthy")
		if all := b.e.All("web"); len(all) != 1 || all[0].Name != "demo-web-1" || all[0].ID == old.ID {
			t.Errorf("containers %+v", all)
		}
		b.stop()
	})
}
