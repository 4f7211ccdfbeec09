// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/appliance/engine/fake"
)

// ordered notes starts among the acts on quotas.
type ordered struct {
	*fake.Engine
	q *fakeQuotas
}

func (o ordered) Start(ctx context.Context, id string) error {
	o.q.acts = append(o.q.acts, "start")
	return o.Engine.Start(ctx, id)
}

// TestEngine: a layer is bounded before its container starts, a volume before
// anything can write to it, a group right after each start, whoever started it.
func TestEngine(t *testing.T) {
	root := t.TempDir()
	put(t, root, "proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
	for _, g := range []string{"holdfast.slice", "holdfast.slice/holdfast-critical.slice", "holdfast.slice/holdfast-normal.slice", "holdfast.slice/holdfast-besteffort.slice"} {
		group2(t, root, g)
	}
	d := &disks{space: map[string]Space{"/state": {40 * gib, 30 * gib}}, ballast: map[string]int64{"/state/ballast": 256 * mib}}
	q := newQuotas("/store", "/store/1/work", "/store/1/fs")
	layers := fakeLayers{}
	e := New(Config{Root: root, Slices: true, Run: &systemctl{root: root}, Quotas: q, Space: d.Space, Ballast: d, State: "/state", Store: []string{"/store"}, Layers: layers})
	inner := fake.New()
	w := e.Engine(ordered{inner, q})
	ctx := t.Context()
	if got := codes(e.Apply(ctx, shop(), nil, []Volume{{"db", "/volumes/shop_db/_data"}})); got != "" {
		t.Fatal(got)
	}
	q.did()
	q.folders["/volumes/shop_db/_data"] = 0
	if err := w.CreateVolume(ctx, engine.Volume{Name: "shop_db"}); err != nil {
		t.Fatal(err)
	}
	if got := q.did(); got != "adopt /volumes/shop_db/_data 1048577\nlimit /volumes/shop_db/_data 1048577 800 MiB" {
		t.Error(got)
	}
	inner.AddImage("i@sha256:1")
	id, err := w.Create(ctx, engine.Spec{Name: "shop-db-1", Config: container.Config{Image: "i@sha256:1", Labels: map[string]string{
		engine.ServiceLabel: "db", "com.docker.compose.project": "shop",
	}}})
	if err != nil {
		t.Fatal(err)
	}
	layers[id] = []string{"/store/1/work", "/store/1/fs"}
	scope := "holdfast.slice/holdfast-critical.slice/docker-" + id + ".scope"
	group2(t, root, scope)
	if err := w.Start(ctx, id); err != nil {
		t.Fatal(err)
	}
	if got := q.did(); !strings.HasPrefix(got, "adopt /store/1/work 1048577\nadopt /store/1/fs 1048577\nlimit /state 1048577") || !strings.HasSuffix(got, "start") {
		t.Error(got)
	}
	is := func(when, want string) {
		t.Helper()
		if got := values(t, filepath.Join(root, "sys/fs/cgroup", scope), "cpu.weight"); got != want {
			t.Errorf("%s: %s", when, got)
		}
	}
	is("started", "cpu.weight=80")
	for _, again := range []struct {
		when string
		do   func() error
	}{
		{"restarted", func() error { return w.Restart(ctx, id, time.Second) }},
		{"updated", func() error { return w.Update(ctx, id, engine.Limits{}) }},
		{"seen", func() error { _, err := w.Containers(ctx, "shop"); return err }},
	} {
		group2(t, root, scope)
		if err := again.do(); err != nil {
			t.Fatal(again.when, err)
		}
		is(again.when, "cpu.weight=80")
	}
	// What was looked after is not looked at again.
	group2(t, root, scope)
	if _, err := w.Containers(ctx, "shop"); err != nil {
		t.Fatal(err)
	}
	is("seen again", "cpu.weight=100")
	if len(e.who) != 1 {
		t.Errorf("%v", e.who)
	}
	// A layer that can't be found keeps nothing from starting.
	broken := "broken"
	e.who[broken] = known{service: "web"}
	e.beforeStart(ctx, broken)
	if got := codes(e.Conditions()); got != "limits-not-applied" {
		t.Error(got)
	}
}
