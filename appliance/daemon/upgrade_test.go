// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/api"
	"github.com/holdfast/holdfast/appliance/engine/fake"
	"github.com/holdfast/holdfast/appliance/firstboot"
	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/slot/slottest"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/upgrade"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/compose/stack"
)

// worldBox is a box of which all but the daemon is imagined: disks, firmware,
// rules of the network, the source of releases.
type worldBox struct {
	upgrade.Box
	root, data string
	next       *Found // the release that the source has
	mu         sync.Mutex
	did        []string
	closed     bool
	engine     *fake.Engine
	beside     map[string][]byte // carried.json of each volume
}

func (o *worldBox) do(format string, args ...any) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.did = append(o.did, fmt.Sprintf(format, args...))
	return nil
}

func (o *worldBox) target() upgrade.Target {
	return upgrade.Target{Name: "demo", Version: o.next.Release.Version, Digest: digestOf("2"), Size: 9, Channels: []string{"stable"}, Rollout: 100}
}

func digestOf(s string) string { return "sha256:" + strings.Repeat(s, 64) }

func (o *worldBox) Room(context.Context) (upgrade.Room, error) {
	const much = 1 << 40
	return upgrade.Room{Memory: much, CPUs: 1e6, Data: much, State: much, Pool: much, Slot: much, ESP: much}, nil
}

func (o *worldBox) Targets(context.Context, upgrade.Look) ([]upgrade.Target, time.Time, error) {
	return []upgrade.Target{o.target()}, time.Time{}, nil
}

func (o *worldBox) Describe(_ context.Context, ref string, t upgrade.Target) (upgrade.Candidate, error) {
	return upgrade.Candidate{Target: t, Description: *o.next.Description, Ref: ref}, nil
}

func (o *worldBox) Prepare(_ context.Context, _ upgrade.Candidate, letter string, report func(upgrade.Progress)) (upgrade.Prepared, error) {
	report(upgrade.Progress{Step: "the stack's images", Done: 5, Total: 10})
	return upgrade.Prepared{Fetched: 5, Reused: 5}, o.do("prepare %q", letter)
}

func (o *worldBox) CheckConfig(context.Context, upgrade.Candidate) ([]upgrade.Refused, error) {
	return nil, nil
}

func (o *worldBox) Free(context.Context, slot.Record, []string) error { return nil }

func (o *worldBox) Entries(context.Context) ([]upgrade.Entry, error) {
	return []upgrade.Entry{{Number: 1, Left: -1, Done: -1, RootHash: slottest.Hash}}, nil
}

func (o *worldBox) Bless(_ context.Context, n int) error { return o.do("bless %d", n) }
func (o *worldBox) Keep(_ context.Context, n int) error  { return o.do("keep %d", n) }
func (o *worldBox) UpdateLoader(context.Context, string) error {
	return nil
}

func (o *worldBox) SwitchData(_ context.Context, rec slot.Record) error {
	volume := rec.Committed.Data
	if t := rec.Trial; t != nil && t.Failed == "" {
		volume = t.Data
	}
	if all, _ := o.engine.Containers(context.Background(), "demo"); len(all) > 0 {
		return fmt.Errorf("%d containers use the data", len(all))
	}
	// What lies beside the data comes and goes with it; a snapshot begins as
	// its origin was.
	file := filepath.Join(o.data, "carried.json")
	now, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	mounted, err := o.MountedData(context.Background())
	if err != nil {
		return err
	}
	o.beside[mounted] = now
	if was, there := o.beside[volume]; there {
		if err := os.WriteFile(file, was, 0o600); err != nil {
			return err
		}
	}
	o.mount(volume)
	return o.do("mount %s", volume)
}

// mount makes a volume the one that the kernel shows.
func (o *worldBox) mount(volume string) {
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(o.root, name), []byte(text), 0o644); err != nil {
			panic(err)
		}
	}
	write("sys/dev/block/254:3/dm/name", "holdfast-"+strings.ReplaceAll(volume, "-", "--")+"\n")
	write(firstboot.DataFile, `{"place":"system-disk","group":"holdfast","volume":"`+volume+`","device":"/dev/vda5"}`)
}

func (o *worldBox) SettleData(context.Context, slot.Record) error { return nil }

func (o *worldBox) MountedData(context.Context) (string, error) {
	home, err := firstboot.ReadData(o.root)
	return home.Volume, err
}

func (o *worldBox) CloseIngress(context.Context) error {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	return o.do("close")
}

func (o *worldBox) OpenIngress(context.Context) error {
	o.mu.Lock()
	was := o.closed
	o.closed = false
	o.mu.Unlock()
	if was {
		return o.do("open")
	}
	return nil
}

func (o *worldBox) acts() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.did)
}

// version is the demo's stack of one service in a version of its own.
func version(t *testing.T, v string) *Found {
	t.Helper()
	dir := t.TempDir()
	text := "name: demo\nservices:\n  web:\n    image: x.test/web:1\n    environment: {V: \"" + v + "\"}\n    restart: always\n    depends_on: {migrate: {condition: service_completed_successfully}}\n    healthcheck: {test: [CMD, \"true\"], interval: 1s}\n" +
		"  migrate:\n    image: x.test/web:1\n    restart: \"no\"\n"
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	_, digest, _ := strings.Cut(pinned, "@")
	st, err := stack.Load(t.Context(), dir, stack.Options{Digests: map[string]string{"x.test/web:1": digest}})
	if err != nil {
		t.Fatal(err)
	}
	f := one(t)
	f.Stack, f.Release.Version, f.Source = st, v, source{text: pinned}
	f.Description = &release.Description{Format: 1, Name: "demo", Version: v, OS: release.OS{Version: "os", RootHash: slottest.Hash},
		Parts: &release.Parts{}, Verity: &release.Verity{}, Gate: release.Gate{Deadline: 5, Window: 1}, Update: release.Update{Source: "https://r.example/demo"}}
	return f
}

// world is a box with 1.0.0 whose source has 1.0.1.
func world(t *testing.T) (*worldBox, Config) {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	root := sealedBox(t, data)
	slottest.Put(t, root, "proc/sys/kernel/random/boot_id", "11111111-2222-3333-4444-555555555555\n")
	slottest.Put(t, root, "etc/machine-id", strings.Repeat("0a", 16)+"\n")
	e := fake.New()
	e.Behave("migrate", fake.Behaviour{ExitAfter: 10 * time.Millisecond})
	o := &worldBox{root: root, data: data, next: version(t, "1.0.1"), engine: e, beside: map[string][]byte{}}
	return o, Config{Root: root, Data: data, Engine: e, Find: found{f: version(t, "1.0.0")},
		Installed: func(digest string) Finder {
			if digest != o.target().Digest {
				return found{err: errors.New("no such release")}
			}
			return found{f: o.next}
		},
		Upgrades: &Upgrades{Wrap: func(b upgrade.Box) upgrade.Box { o.Box = b; return o }}}
}

// upgradable is that box, running.
func upgradable(t *testing.T) (*worldBox, *api.Client, *fake.Engine) {
	t.Helper()
	o, c := world(t)
	client, _, _ := start(t, c)
	await(t, client, "healthy")
	return o, client, o.engine
}

// ended waits for the end of an operation.
func ended(t *testing.T, c *api.Client, op status.Operation) status.Operation {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	end, err := c.Await(ctx, op.ID)
	if err != nil {
		t.Fatalf("waited for %s: %v", op.Verb, err)
	}
	return end
}

// awaitReport follows the reports until one is as wanted. Some of what is
// wanted is no report's: each is looked at more than once.
func awaitReport(t *testing.T, c *api.Client, what string, is func(status.Report) bool) (last status.Report) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		look, end := context.WithTimeout(ctx, 50*time.Millisecond)
		err := c.Watch(look, func(r status.Report) bool { last = r; return !is(r) })
		if err == nil {
			end()
			return last
		}
		<-look.Done() // also where the socket is not there yet
		end()
		if ctx.Err() != nil {
			t.Fatalf("waited for %s: %v; last %+v %+v", what, err, last, last.Upgrade)
		}
	}
}

// TestUpgradesTheStack: a release of the stack alone takes over in one run of
// the daemon: closed to the outside, on data of its own, without a container of
// the old generation.
func TestUpgradesTheStack(t *testing.T) {
	o, client, e := upgradable(t)
	old, _ := e.Get("web")
	op, err := client.Upgrade(t.Context(), upgrade.Ask{})
	if err != nil {
		t.Fatal(err)
	}
	end := ended(t, client, op)
	if end.State != "done" || end.Result == nil || end.Result.Result != "committed" || end.Result.To != "demo 1.0.1" {
		t.Fatalf("%+v %+v", end, end.Result)
	}
	r := awaitReport(t, client, "a report without a trial", func(r status.Report) bool { return r.Stack == "healthy" && r.Upgrade != nil && !r.Upgrade.Trial })
	if r.Generation != 2 || r.Release.Version != "1.0.1" || r.Upgrade.Kept != "demo 1.0.0" {
		t.Errorf("%d %+v %+v", r.Generation, r.Release, r.Upgrade)
	}
	if all := e.All("web"); len(all) != 1 || all[0].ID == old.ID || all[0].Labels["io.holdfast.generation"] != "2" {
		t.Errorf("containers %+v", all)
	}
	acts := strings.Join(o.acts(), ", ")
	if want := `prepare "", close, mount data-2, open`; !strings.Contains(acts, want) {
		t.Errorf("the box did %s, want %s", acts, want)
	}
	rec, err := slot.Load(o.root)
	if err != nil || rec.Committed.Number != 2 || rec.Kept == nil || rec.Kept.Number != 1 || rec.Trial != nil {
		t.Errorf("%+v, %v", rec, err)
	}
	list, err := client.History(t.Context())
	if err != nil || len(list) != 1 || list[0].Fetched != 5 {
		t.Errorf("%+v, %v", list, err)
	}
	// The one that runs is no upgrade.
	op, err = client.Upgrade(t.Context(), upgrade.Ask{})
	if err != nil || len(op.Notes) != 1 || !strings.Contains(op.Notes[0], "newest") {
		t.Errorf("again: %+v, %v", op, err)
	}
	if end := ended(t, client, op); end.State != "done" || end.Result != nil {
		t.Errorf("again: %+v", end)
	}
}

// TestRollsBackByHand: and forth again, each with its own data.
func TestRollsBackByHand(t *testing.T) {
	o, client, e := upgradable(t)
	op, err := client.Upgrade(t.Context(), upgrade.Ask{})
	if err != nil {
		t.Fatal(err)
	}
	if end := ended(t, client, op); end.State != "done" {
		t.Fatalf("%+v", end)
	}
	if _, err := client.CheckRollback(t.Context(), upgrade.Back{}); err != nil {
		t.Fatal(err)
	}
	if op, err = client.Rollback(t.Context(), upgrade.Back{}); err != nil {
		t.Fatal(err)
	}
	end := ended(t, client, op)
	if end.State != "done" || end.Result == nil || end.Result.Kind != "rollback" || end.Result.To != "demo 1.0.0" {
		t.Fatalf("%+v %+v", end, end.Result)
	}
	r := awaitReport(t, client, "a report without a trial", func(r status.Report) bool { return r.Stack == "healthy" && r.Upgrade != nil && !r.Upgrade.Trial })
	if r.Generation != 3 || r.Release.Version != "1.0.0" {
		t.Errorf("%d %+v", r.Generation, r.Release)
	}
	if all := e.All("web"); len(all) != 1 || all[0].Labels["io.holdfast.generation"] != "3" {
		t.Errorf("containers %+v", all)
	}
	rec, err := slot.Load(o.root)
	if err != nil || rec.Committed.Number != 3 || rec.Committed.Digest != "" || rec.Kept == nil || rec.Kept.Number != 2 {
		t.Errorf("%+v, %v", rec, err)
	}
	if acts := strings.Join(o.acts(), ", "); !strings.Contains(acts, "close, mount data-3, open") {
		t.Errorf("the box did %s", acts)
	}
}

func refusedAs(err error, code string) bool {
	var p *api.Problem
	return errors.As(err, &p) && p.Status == 422 && p.Code == code
}

// TestRollsBackTheStack: one whose web is never healthy goes away again by
// itself, is told of and not tried again.
func TestRollsBackTheStack(t *testing.T) {
	o, client, e := upgradable(t)
	e.Behave("web", fake.Behaviour{HealthyAfter: -1})
	op, err := client.Upgrade(t.Context(), upgrade.Ask{})
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	ctx, cancel := context.WithCancel(t.Context())
	go client.Watch(ctx, func(r status.Report) bool {
		if r.Upgrade != nil && r.Upgrade.State == "rolling-back" {
			once.Do(func() { e.Behave("web", fake.Behaviour{}) })
		}
		return true
	})
	end := ended(t, client, op)
	cancel()
	if end.State != "failed" || end.Result == nil || end.Result.Result != "rolled-back" || !strings.Contains(end.Result.Why, "web") {
		t.Fatalf("%+v %+v", end, end.Result)
	}
	r := awaitReport(t, client, "a report without a trial", func(r status.Report) bool { return r.Stack == "healthy" && r.Upgrade != nil && !r.Upgrade.Trial })
	if r.Generation != 1 || r.Release.Version != "1.0.0" {
		t.Errorf("%d %+v", r.Generation, r.Release)
	}
	if all := e.All("web"); len(all) != 1 || all[0].Labels["io.holdfast.generation"] != "1" {
		t.Errorf("containers %+v", all)
	}
	// What has run on this data before has not run again.
	if n := strings.Count(strings.Join(e.Log(), "\n"), "start migrate"); n != 2 {
		t.Errorf("the one-shot ran %d times, want once in each generation: %v", n, e.Log())
	}
	rec, err := slot.Load(o.root)
	if err != nil || rec.Committed.Number != 1 || rec.Trial != nil || !slices.Contains(rec.Quarantined, o.target().Digest) {
		t.Errorf("%+v, %v", rec, err)
	}
	y, err := client.Why(t.Context(), 0)
	if err != nil || !strings.Contains(y.Sentence, "web") || len(y.Result.Evidence) == 0 {
		t.Errorf("%+v, %v", y, err)
	}
	if _, err := client.Upgrade(t.Context(), upgrade.Ask{Version: "1.0.1"}); !refusedAs(err, upgrade.CodeQuarantined) {
		t.Errorf("again: %v", err)
	}
}

// TestDrills: the stack that runs is tried on a copy of its data, measured, and
// nothing is committed.
func TestDrills(t *testing.T) {
	o, client, _ := upgradable(t)
	op, err := client.Drill(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	end := ended(t, client, op)
	if end.State != "done" || end.Result == nil || end.Result.Result != "passed" {
		t.Fatalf("%+v %+v", end, end.Result)
	}
	r := awaitReport(t, client, "the stack as before", func(r status.Report) bool { return r.Stack == "healthy" && r.Upgrade != nil && !r.Upgrade.Trial })
	rec, err := slot.Load(o.root)
	if err != nil || r.Generation != 1 || rec.Committed.Number != 1 || rec.Trial != nil || len(rec.Quarantined) > 0 {
		t.Errorf("%d %+v, %v", r.Generation, rec, err)
	}
	if acts := strings.Join(o.acts(), ", "); !strings.Contains(acts, "close, mount data-2") || !strings.Contains(acts, "mount data-1, open") {
		t.Errorf("the box did %s", acts)
	}
}
