// SPDX-License-Identifier: Apache-2.0

package upgrade_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/upgrade"
	"github.com/holdfast/holdfast/appliance/upgrade/upgradetest"
)

// in runs a test with its own clock.
func in(t *testing.T, name string, test func(t *testing.T, w *upgradetest.World)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := world()
			test(t, w)
			for _, s := range w.Wrong {
				t.Error(s)
			}
		})
	})
}

func play(t *testing.T, w *upgradetest.World, act ask) {
	t.Helper()
	if err := w.Play(act); err != nil {
		t.Fatal(err)
	}
}

// rests fails unless a release is committed and all is in order.
func rests(t *testing.T, w *upgradetest.World, version, result string) {
	t.Helper()
	if got := w.Committed(); got != "demo "+version {
		t.Errorf("%s is committed, want %s", got, version)
	}
	if wrong := w.Check(); len(wrong) > 0 {
		t.Error(strings.Join(wrong, "; "))
	}
	if row := w.Last(); row.Result != result {
		t.Errorf("the history says %+v, want %s", row, result)
	}
}

func TestOrderlyReboot(t *testing.T) {
	for name, version := range map[string]string{"system": "1.1.0", "stack": "1.0.1"} {
		in(t, name, func(t *testing.T, w *upgradetest.World) {
			times := 0
			w.RebootWhen = func(u status.Upgrade) bool {
				if u.Trial {
					times++
				}
				return u.Trial
			}
			play(t, w, upgradeTo(version))
			rests(t, w, version, upgrade.Committed)
			if boots := w.Last().Boots; times != 1 || len(boots) < 2 {
				t.Errorf("the boots are %v after %d reboots", boots, times)
			}
			if q := w.Record().Quarantined; len(q) != 0 {
				t.Errorf("quarantined are %v", q)
			}
		})
		// After one that started over, power is cut: that is a failed trial.
		in(t, name+" and then a cut", func(t *testing.T, w *upgradetest.World) {
			w.RebootWhen = func(u status.Upgrade) bool { return u.Trial }
			if again, err := w.PlayBoot(upgradeTo(version)); !again || err != nil {
				t.Fatal(again, err)
			}
			for w.RebootWhen != nil {
				if _, err := w.PlayBoot(nil); err != nil {
					t.Fatal(err)
				}
			}
			cut := false
			w.RebootWhen = func(u status.Upgrade) bool {
				if u.Trial && !cut {
					cut = true
					w.CutAt = len(w.Places) + 2
				}
				return false
			}
			play(t, w, nil)
			w.CutAt = 0
			rests(t, w, "1.0.0", upgrade.RolledBack)
		})
	}
}

func TestSupervisorThatNeverRuns(t *testing.T) {
	in(t, "it", func(t *testing.T, w *upgradetest.World) {
		w.Add("1.1.5", "two f", upgradetest.NoDaemon)
		play(t, w, upgradeTo("1.1.5"))
		rests(t, w, "1.0.0", upgrade.RolledBack)
		row := w.Last()
		if !strings.Contains(row.Why, "did not come up") || len(row.Boots) != 3 || len(row.Evidence) < 2 {
			t.Errorf("the row is %+v", row)
		}
	})
}

func TestWhy(t *testing.T) {
	in(t, "a failed gate", func(t *testing.T, w *upgradetest.World) {
		play(t, w, upgradeTo("1.1.1"))
		rests(t, w, "1.0.0", upgrade.RolledBack)
		play(t, w, func(ctx context.Context, m *upgrade.Machine) error {
			why, err := m.Why(0)
			if err != nil {
				return err
			}
			text := why.Text()
			for _, want := range []string{"the upgrade to demo 1.1.1 was rolled back at", "to demo 1.0.0", "service web is running and starting", "no such table", "boot-1", "boot-2", "boot-3", "panic"} {
				if !strings.Contains(text, want) {
					t.Errorf("%q is not in\n%s", want, text)
				}
			}
			if _, err := m.Why(99); err == nil {
				t.Error("generation 99 is explained")
			}
			if row := why.Result; row.Down == 0 || row.Armed.IsZero() || row.Fetched != 100 {
				t.Errorf("the row is %+v", row)
			}
			// Quarantined: not by itself, and not without force.
			if c, err := m.Check(ctx, upgrade.Ask{}); err != nil || c.Candidate == nil || c.Candidate.Version == "1.1.1" {
				t.Errorf("it would be tried again: %+v, %v", c, err)
			}
			_, err = m.Upgrade(ctx, upgrade.Ask{Version: "1.1.1"})
			var no *upgrade.Refused
			if !errors.As(err, &no) || no.Code != upgrade.CodeQuarantined {
				t.Errorf("asked for again: %v", err)
			}
			codes := map[string]bool{}
			for _, c := range m.Conditions() {
				codes[c.Code] = true
			}
			if !codes[upgrade.CondFailed] || !codes[upgrade.CondQuarantined] {
				t.Errorf("the conditions are %v", m.Conditions())
			}
			return nil
		})
	})
}

func TestSource(t *testing.T) {
	in(t, "away for a while", func(t *testing.T, w *upgradetest.World) {
		play(t, w, func(ctx context.Context, m *upgrade.Machine) error {
			if _, err := m.Upgrade(ctx, upgrade.Ask{Version: "1.0.1"}); err != nil {
				return err
			}
			w.Do(func() { w.Unreachable = true })
			time.AfterFunc(time.Hour, func() { w.Do(func() { w.Unreachable = false }) })
			return nil
		})
		rests(t, w, "1.0.1", upgrade.Committed)
	})
	in(t, "away for good", func(t *testing.T, w *upgradetest.World) {
		play(t, w, func(ctx context.Context, m *upgrade.Machine) error {
			w.Do(func() { w.Unreachable = true })
			_, err := m.Upgrade(ctx, upgrade.Ask{Version: "1.0.1"})
			var far *upgrade.Unreachable
			if !errors.As(err, &far) {
				t.Errorf("Upgrade: %v", err)
			}
			if c := m.Conditions(); len(c) != 1 || c[0].Code != upgrade.CondUnreachable {
				t.Errorf("the conditions are %v", c)
			}
			return nil
		})
	})
	in(t, "none", func(t *testing.T, w *upgradetest.World) {
		w.Set.Source = ""
		play(t, w, func(ctx context.Context, m *upgrade.Machine) error {
			_, err := m.Upgrade(ctx, upgrade.Ask{})
			var no *upgrade.Refused
			if !errors.As(err, &no) || no.Code != upgrade.CodeNoSource {
				t.Errorf("Upgrade: %v", err)
			}
			return nil
		})
	})
}

func TestWaits(t *testing.T) {
	in(t, "for a window", func(t *testing.T, w *upgradetest.World) {
		// The test's clock begins on Saturday, 2000-01-01 at 00:00 UTC.
		var at time.Time
		act := func(ctx context.Context, m *upgrade.Machine) error {
			_, err := m.Upgrade(ctx, upgrade.Ask{Version: "1.1.0", At: "Sun 02:00-04:00"})
			return err
		}
		play(t, w, act)
		if w.Committed() != "demo 1.0.0" {
			t.Fatal("it did not wait")
		}
		w.Set.Zone = time.UTC
		for w.Committed() == "demo 1.0.0" {
			upgradetest.Pass(time.Hour)
			play(t, w, nil)
			at = time.Now()
		}
		if at.Weekday() != time.Sunday || at.Hour() != 2 {
			t.Errorf("it was switched before %s", at)
		}
		rests(t, w, "1.1.0", upgrade.Committed)
	})
	in(t, "for a word", func(t *testing.T, w *upgradetest.World) {
		play(t, w, func(ctx context.Context, m *upgrade.Machine) error {
			_, err := m.Upgrade(ctx, upgrade.Ask{Version: "1.1.0", DownloadOnly: true})
			return err
		})
		if w.Committed() != "demo 1.0.0" {
			t.Fatal("it did not wait")
		}
		// A reboot later it is there still, and nothing is fetched again.
		play(t, w, func(ctx context.Context, m *upgrade.Machine) error {
			w.Do(func() { w.Fail["Prepare"] = 1 })
			if s := m.Status(); s.State != "ready" && s.Target != "demo 1.1.0" {
				t.Errorf("the status is %+v", s)
			}
			_, err := m.Upgrade(ctx, upgrade.Ask{Version: "1.1.0"})
			return err
		})
		rests(t, w, "1.1.0", upgrade.Committed)
	})
	in(t, "and is cancelled while it fetches", func(t *testing.T, w *upgradetest.World) {
		w.Slow = time.Hour
		play(t, w, func(ctx context.Context, m *upgrade.Machine) error {
			if _, err := m.Upgrade(ctx, upgrade.Ask{Version: "1.1.0"}); err != nil {
				return err
			}
			synctest.Wait()
			if s := m.Status(); s.State != "fetching" || s.Kind != slot.Upgrade || s.Target != "demo 1.1.0" || s.Done != 1 {
				t.Errorf("the status is %+v", s)
			}
			if _, err := m.Upgrade(ctx, upgrade.Ask{Version: "1.0.1"}); err == nil {
				t.Error("two at once")
			}
			began := time.Now()
			if err := m.Cancel(ctx); err != nil {
				return err
			}
			synctest.Wait()
			if _, err := m.Wait(ctx); err != nil || time.Since(began) > time.Minute {
				t.Errorf("Wait: %v after %s", err, time.Since(began))
			}
			return nil
		})
		rests(t, w, "1.0.0", upgrade.Cancelled)
	})
	in(t, "and a rollback goes before it", func(t *testing.T, w *upgradetest.World) {
		play(t, w, upgradeTo("1.0.1"))
		w.Slow, w.Back = time.Hour, 1
		play(t, w, func(ctx context.Context, m *upgrade.Machine) error {
			if _, err := m.Upgrade(ctx, upgrade.Ask{Version: "1.1.0"}); err != nil {
				return err
			}
			synctest.Wait()
			_, err := m.Rollback(ctx, upgrade.Back{})
			return err
		})
		rests(t, w, "1.0.0", upgrade.Committed)
	})
}

func TestHeldRollback(t *testing.T) {
	in(t, "it", func(t *testing.T, w *upgradetest.World) {
		play(t, w, upgradeTo("1.0.1"))
		sick := w.Source["1.0.0"]
		sick.Behaviour = upgradetest.Sick
		w.Source["1.0.0"] = sick
		w.Back = 1
		play(t, w, rollback(false))
		rec := w.Record()
		if rec.Trial == nil || rec.Trial.Failed != "" || rec.Committed.Release != "demo 1.0.1" {
			t.Fatalf("the record is %+v", rec)
		}
		// It gets well, after a reboot that somebody tried meanwhile.
		sick.Behaviour = upgradetest.Good
		w.Source["1.0.0"] = sick
		w.RebootWhen = func(u status.Upgrade) bool { return u.Trial }
		play(t, w, nil)
		if w.Committed() == "demo 1.0.1" {
			play(t, w, nil)
		}
		rests(t, w, "1.0.0", upgrade.Committed)
	})
}

func TestRollbackGivenUp(t *testing.T) {
	for name, version := range map[string]string{"stack": "1.0.1", "system": "1.1.0"} {
		in(t, name, func(t *testing.T, w *upgradetest.World) {
			play(t, w, upgradeTo(version))
			sick := w.Source["1.0.0"]
			sick.Behaviour = upgradetest.Sick
			w.Source["1.0.0"] = sick
			w.OnHeld = func(ctx context.Context, m *upgrade.Machine) error { return m.Cancel(ctx) }
			play(t, w, rollback(false))
			rests(t, w, version, upgrade.RolledBack)
			if row := w.Last(); !strings.Contains(row.Why, "an admin gave it up: service web") || len(w.Record().Quarantined) != 0 || w.Record().Kept == nil {
				t.Errorf("the row is %+v", row)
			}
		})
	}
}

func TestAuto(t *testing.T) {
	in(t, "it", func(t *testing.T, w *upgradetest.World) {
		start := time.Now()
		for _, v := range []string{"1.9.0", "1.2.0", "1.1.1", "1.1.2", "1.1.3", "1.1.4"} {
			delete(w.Source, v)
		}
		r := w.Source["1.1.0"]
		r.Rollout = 0
		w.Source["1.1.0"] = r
		w.Set.Auto = true
		window, err := upgrade.ParseWindow("daily 02:00-04:00")
		if err != nil {
			t.Fatal(err)
		}
		w.Set.Windows = []upgrade.Window{window}
		w.Source["1.0.2"] = upgradetest.Release{} // not a release
		for w.Stay = time.Hour; time.Since(start) < 60*time.Hour; {
			play(t, w, nil)
		}
		if got := w.Committed(); got != "demo 1.0.1" {
			t.Fatalf("%s is committed; a release with a rollout of 0 is none for anybody", got)
		}
		r.Rollout = 100
		w.Source["1.1.0"] = r
		for time.Since(start) < 120*time.Hour {
			play(t, w, nil)
		}
		rests(t, w, "1.1.0", upgrade.Committed)
		if h := w.Last().Quiesced.Hour(); h != 2 && h != 3 {
			t.Errorf("it was switched at %s", w.Last().Quiesced)
		}
	})
}

func TestKeep(t *testing.T) {
	keep := func(version string, want string) ask {
		return func(ctx context.Context, m *upgrade.Machine) error {
			_, err := m.Upgrade(ctx, upgrade.Ask{Version: version, Keep: true})
			var no *upgrade.Refused
			if errors.As(err, &no) && no.Code == want {
				return nil
			}
			return err
		}
	}
	in(t, "it", func(t *testing.T, w *upgradetest.World) {
		play(t, w, upgradeTo("1.0.1"))
		// The system of both is in slot A, so that B is free.
		play(t, w, keep("1.1.0", ""))
		rests(t, w, "1.1.0", upgrade.Committed)
		if k := w.Record().Kept; k == nil || k.Release != "demo 1.0.0" {
			t.Errorf("kept is %+v", k)
		}
		// Now A is needed.
		play(t, w, keep("1.2.0", upgrade.CodeKeep))
		if got := w.Committed(); got != "demo 1.1.0" {
			t.Errorf("%s is committed", got)
		}
		w.Back = 1
		play(t, w, rollback(false))
		rests(t, w, "1.0.0", upgrade.Committed)
	})
}
