// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/holdfast/holdfast/appliance/engine/fake"
	"github.com/holdfast/holdfast/appliance/settings"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/compose/stack"
)

// town is a Place that a test moves.
type town struct {
	mu      sync.Mutex
	v       settings.View
	changed func()
	watched chan struct{}
}

func newTown(v settings.View) *town { return &town{v: v, watched: make(chan struct{})} }

func (p *town) Look() settings.View {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.v
}

func (p *town) Watch(ctx context.Context, changed func()) error {
	p.changed = changed
	close(p.watched)
	<-ctx.Done()
	return ctx.Err()
}

func (p *town) move(edit func(*settings.View)) {
	<-p.watched
	p.mu.Lock()
	edit(&p.v)
	p.mu.Unlock()
	p.changed()
}

// published80 is a stack that answers on port 80.
func published80(t *testing.T) *Found {
	f := one(t)
	f.Source = source{text: pinned}
	s := f.Stack.Project.Services["web"]
	s.Ports = []types.ServicePortConfig{{Target: 8080, Published: "80", Protocol: "tcp"}}
	f.Stack.Project.Services["web"] = s
	return f
}

// TestAnnounces: who looks at the console knows where the box is and how it
// does, and no line comes twice.
func TestAnnounces(t *testing.T) {
	p := newTown(settings.View{Hostname: "box1", Platform: "vmware"})
	client, console, _ := start(t, Config{Engine: fake.New(), Find: found{f: published80(t)}, Place: p})
	r := await(t, client, "healthy")
	if r.Hostname != "box1" || r.Platform != "vmware" || r.Addresses == nil || r.URLs == nil {
		t.Errorf("%+v", r)
	}
	if strings.Contains(console.String(), "box1") {
		t.Errorf("a box without an address announces one:\n%s", console)
	}
	p.move(func(v *settings.View) {
		v.Addresses = []status.Address{{Interface: "ens192", Address: "10.0.0.5", Prefix: 24}, {Interface: "ens192", Address: "2001:db8::5", Prefix: 64}}
		v.SSH = status.SSH{Enabled: true, HostKey: "SHA256:abc", Keys: []string{"SHA256:x"}}
		v.Conditions = []status.Condition{{Code: "config-refused", Severity: "warning", Text: "line 3 \x1b[2J is wrong", Remedy: "mend it"}}
	})
	r, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.URLs, []string{"http://10.0.0.5/", "http://[2001:db8::5]/"}) || len(r.Addresses) != 2 || !r.SSH.Enabled {
		t.Errorf("%+v", r)
	}
	if condition(r, "config-refused").Severity != "warning" {
		t.Errorf("conditions %+v", r.Conditions)
	}
	for range 3 {
		p.changed() // nothing is new
	}
	p.move(func(v *settings.View) { v.SSH, v.Conditions = status.SSH{}, nil })
	if _, err := client.StopStack(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = await(t, client, "stopped")
	if condition(r, "config-refused").Code != "" {
		t.Error("what went away is still shown")
	}
	p.move(func(v *settings.View) { v.Addresses = nil })
	var lines []string
	for line := range strings.Lines(console.String()) {
		if strings.Contains(line, "box1") || strings.Contains(line, "admin access") || strings.Contains(line, "line 3") {
			lines = append(lines, line)
		}
	}
	want := []string{
		"holdfast: warning: line 3 ?[2J is wrong; mend it\n",
		"holdfast: box1 (demo 1.0.0): http://10.0.0.5/ http://[2001:db8::5]/ healthy\n",
		"holdfast: admin access: ssh root@10.0.0.5, host key SHA256:abc\n",
		"holdfast: admin access by ssh is off\n",
		"holdfast: box1 (demo 1.0.0): http://10.0.0.5/ http://[2001:db8::5]/ stopping\n",
		"holdfast: box1 (demo 1.0.0): http://10.0.0.5/ http://[2001:db8::5]/ stopped\n",
		"holdfast: box1 (demo 1.0.0): no network address stopped\n",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("the console says\n%s\nwant\n%s", strings.Join(lines, ""), strings.Join(want, ""))
	}
}

// TestHeldShowsThePlace: the conditions of both are there.
func TestHeldShowsThePlace(t *testing.T) {
	p := newTown(settings.View{Addresses: []status.Address{{Interface: "eth0", Address: "10.0.0.5", Prefix: 24}},
		Conditions: []status.Condition{{Code: "config-refused", Severity: "warning", Text: "bad", Remedy: "mend it"}}})
	client, console, _ := start(t, Config{Engine: fake.New(), Find: found{err: held("stack-invalid", "bake again", context.DeadlineExceeded)}, Place: p})
	r := await(t, client, "held")
	if len(r.Conditions) != 2 || r.Conditions[0].Code != "stack-invalid" || r.Conditions[1].Code != "config-refused" {
		t.Errorf("%+v", r.Conditions)
	}
	if !strings.Contains(console.String(), "holdfast: this box: 10.0.0.5 held\n") {
		t.Errorf("console:\n%s", console)
	}
	if n := strings.Count(console.String(), "deadline exceeded"); n != 1 {
		t.Errorf("the cause stands %d times on the console:\n%s", n, console)
	}
}

func TestPorts(t *testing.T) {
	for name, c := range map[string]struct {
		port types.ServicePortConfig
		want published
	}{
		"http":       {types.ServicePortConfig{Published: "80", Protocol: "tcp"}, published{http: true}},
		"https":      {types.ServicePortConfig{Published: "443"}, published{https: true}},
		"udp":        {types.ServicePortConfig{Published: "443", Protocol: "udp"}, published{}},
		"loopback":   {types.ServicePortConfig{Published: "80", HostIP: "127.0.0.1"}, published{}},
		"all":        {types.ServicePortConfig{Published: "80", HostIP: "0.0.0.0"}, published{http: true}},
		"other port": {types.ServicePortConfig{Published: "5432"}, published{}},
	} {
		s := &stack.Stack{Services: []string{"a"}, Project: &types.Project{Services: types.Services{"a": {WorkloadSpec: types.WorkloadSpec{Ports: []types.ServicePortConfig{c.port}}}}}}
		if got := portsOf(s); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	list := []status.Address{{Address: "10.0.0.5"}}
	if got := urls(list, published{http: true, https: true}); !slices.Equal(got, []string{"https://10.0.0.5/"}) {
		t.Errorf("%q", got)
	}
}
