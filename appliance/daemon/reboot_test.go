// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/engine/fake"
	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/slot/slottest"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/status/facts"
	"github.com/holdfast/holdfast/appliance/upgrade"
	"github.com/holdfast/holdfast/compose/release"
)

func (o *worldBox) PlaceTrial(_ context.Context, t slot.Trial) error {
	return o.do("place %d", t.Number)
}

func (o *worldBox) Reboot(_ context.Context, _ string, force bool) error {
	all, _ := o.engine.Containers(context.Background(), "demo")
	return o.do("reboot, %d containers, forced %v", len(all), force)
}

// TestUpgradeReboots: where the system is another one all is armed and stopped
// in order, and the box reboots once.
func TestUpgradeReboots(t *testing.T) {
	o, client, _ := upgradable(t)
	o.next.Description.OS.RootHash = strings.Repeat("cd", 32)
	if _, err := client.Upgrade(t.Context(), upgrade.Ask{}); err != nil {
		t.Fatal(err)
	}
	awaitReport(t, client, "the reboot", func(r status.Report) bool {
		return r.Upgrade != nil && r.Upgrade.State == "switching" && strings.Contains(strings.Join(o.acts(), ", "), "reboot")
	})
	acts := strings.Join(o.acts(), ", ")
	if want := `prepare "B", place 2, reboot, 0 containers, forced false`; !strings.HasSuffix(acts, want) {
		t.Errorf("the box did %s, want %s", acts, want)
	}
	rec, err := slot.Load(o.root)
	if err != nil || rec.Committed.Number != 1 || rec.Trial == nil || !rec.Trial.Reboot || rec.Trial.Slot != "B" || rec.Trial.Boot != "" {
		t.Errorf("%+v %+v %v", rec, rec.Trial, err)
	}
}

// TestTrialBoot: the daemon finds itself in a trial that was booted, runs its
// release, commits it, and only then lets anybody in.
func TestTrialBoot(t *testing.T) {
	o, c := trialBoot(t)
	client, _, _ := start(t, c)
	r := awaitReport(t, client, "the commit", func(r status.Report) bool {
		return r.Stack == "healthy" && r.Generation == 2 && r.Upgrade != nil && !r.Upgrade.Trial
	})
	if r.Release.Version != "1.0.1" {
		t.Errorf("%+v", r.Release)
	}
	awaitReport(t, client, "an open box", func(status.Report) bool { return strings.Contains(strings.Join(o.acts(), ", "), "open") })
	rec, err := slot.Load(o.root)
	if err != nil || rec.Committed.Number != 2 || rec.Kept == nil || rec.Trial != nil {
		t.Errorf("%+v, %v", rec, err)
	}
}

// TestTrialFails: one that does not get healthy is noted as failed before the
// box reboots, with what explains it.
func TestTrialFails(t *testing.T) {
	o, c := trialBoot(t)
	o.engine.Behave("web", fake.Behaviour{HealthyAfter: -1})
	client, _, _ := start(t, c)
	awaitReport(t, client, "the way back", func(status.Report) bool { return strings.Contains(strings.Join(o.acts(), ", "), "reboot") })
	rec, err := slot.Load(o.root)
	if err != nil || rec.Committed.Number != 1 || rec.Trial == nil || !strings.Contains(rec.Trial.Failed, "web") {
		t.Errorf("%+v %+v %v", rec, rec.Trial, err)
	}
	if acts := strings.Join(o.acts(), ", "); strings.Contains(acts, "open") {
		t.Errorf("it was opened: %s", acts)
	}
}

// TestShutdownInTrial: an orderly shutdown is no failed try.
func TestShutdownInTrial(t *testing.T) {
	o, c := trialBoot(t)
	o.engine.Behave("web", fake.Behaviour{HealthyAfter: -1})
	c.Commands = going{}
	client, _, _ := start(t, c)
	awaitReport(t, client, "the trial", func(r status.Report) bool { return r.Upgrade != nil && r.Upgrade.Trial && len(r.Services) > 0 })
	if _, err := client.StopStack(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, client, "stopped")
	rec, err := slot.Load(o.root)
	if err != nil || rec.Trial == nil || !rec.Trial.Again || rec.Trial.Failed != "" {
		t.Errorf("%+v %+v %v", rec, rec.Trial, err)
	}
	if acts := strings.Join(o.acts(), ", "); !strings.Contains(acts, "rearm 2") {
		t.Errorf("the box did %s", acts)
	}
}

// going is a system that shuts down.
type going struct{}

func (going) Run(_ context.Context, argv ...string) ([]byte, error) {
	if strings.Join(argv, " ") == "systemctl is-system-running" {
		return []byte("stopping\n"), nil
	}
	return nil, nil
}

func (o *worldBox) Rearm(_ context.Context, n int) error { return o.do("rearm %d", n) }

// trialBoot is a box that has booted generation 2 for a trial.
func trialBoot(t *testing.T) (*worldBox, Config) {
	t.Helper()
	o, c := world(t)
	slottest.Put(t, o.root, "proc/sys/kernel/random/boot_id", "99999999-2222-3333-4444-555555555555\n")
	running, err := slot.Running(o.root)
	if err != nil {
		t.Fatal(err)
	}
	rec := slot.First(running)
	old := rec.Committed
	old.Slot, old.RootHash = "B", strings.Repeat("cd", 32)
	rec.Committed = old
	rec.Trial = &slot.Trial{Generation: slot.Generation{Number: 2, Slot: running.Letter, RootHash: running.Hash, Data: "data-2", Release: "demo 1.0.1", Digest: o.target().Digest},
		Kind: slot.Upgrade, Origin: "data-1", Reboot: true, Armed: time.Now(), ArmedBoot: "before", Boot: "99999999-2222-3333-4444-555555555555", Deadline: 5, Window: 1, Starts: 1}
	// The deadline counts from the boot, and that is this machine's.
	rec.Trial.Deadline += int64(facts.Uptime())
	if err := slot.Save(o.root, rec); err != nil {
		t.Fatal(err)
	}
	o.mount("data-2")
	o.next.Description.OS = release.OS{Version: "os", RootHash: running.Hash}
	return o, c
}
