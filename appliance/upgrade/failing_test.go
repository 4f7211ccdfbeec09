// SPDX-License-Identifier: Apache-2.0

package upgrade_test

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
	"github.com/holdfast/holdfast/appliance/upgrade"
	"github.com/holdfast/holdfast/appliance/upgrade/upgradetest"
)

// What fails before the trial runs costs nothing but the upgrade.
func TestCannotBegin(t *testing.T) {
	for _, c := range []struct{ call, version string }{
		{"Prepare", "1.1.0"}, {"PlaceTrial", "1.1.0"}, {"Reboot", "1.1.0"}, {"StopStack", "1.0.1"}, {"SwitchData", "1.0.1"}, {"CloseIngress", "1.0.1"}, {"StartStack", "1.0.1"},
	} {
		in(t, c.call, func(t *testing.T, w *upgradetest.World) {
			play(t, w, func(ctx context.Context, m *upgrade.Machine) error {
				w.Do(func() { w.Fail[c.call] = 1 })
				_, err := m.Upgrade(ctx, upgrade.Ask{Version: c.version})
				return err
			})
			if c.call == "Reboot" { // it is pressed
				rests(t, w, "1.1.0", upgrade.Committed)
				return
			}
			rests(t, w, "1.0.0", upgrade.Cancelled)
			if slices.Contains(w.Places, "before the services stop") != slices.Contains([]string{"StopStack", "SwitchData", "StartStack"}, c.call) {
				t.Error("the services were stopped for nothing, or never")
			}
			if row := w.Last(); !strings.Contains(row.Why, c.call+" fails") || len(w.Record().Quarantined) != 0 {
				t.Errorf("the row is %+v", row)
			}
		})
	}
}

// What fails after the commit is tried again, and says so meanwhile.
func TestUnsettled(t *testing.T) {
	for _, call := range []string{"Bless", "SettleData", "Free", "UpdateLoader", "OpenIngress"} {
		in(t, call, func(t *testing.T, w *upgradetest.World) {
			w.Fail[call] = 0
			play(t, w, func(ctx context.Context, m *upgrade.Machine) error {
				w.RebootWhen = func(u status.Upgrade) bool {
					if u.Trial {
						w.Do(func() { w.Fail[call] = 2 })
					}
					return false
				}
				_, err := m.Upgrade(ctx, upgrade.Ask{Version: "1.1.0"})
				return err
			})
			rests(t, w, "1.1.0", upgrade.Committed)
			if w.Fail[call] != 0 {
				t.Errorf("%s was not tried often enough", call)
			}
		})
	}
}

// Somebody else drops the kept generation between a read and a write of the
// record: nothing is lost, and the write is made anew.
func TestChangedMeanwhile(t *testing.T) {
	in(t, "it", func(t *testing.T, w *upgradetest.World) {
		play(t, w, upgradeTo("1.0.1"))
		dropped := false
		w.BeforeSave = func(rec *slot.Record) bool {
			if dropped || rec.Kept == nil || rec.Trial != nil {
				return false
			}
			rec.Kept, dropped = nil, true
			return true
		}
		play(t, w, upgradeTo("1.1.0"))
		if !dropped {
			t.Error("it was not dropped")
		}
		rests(t, w, "1.1.0", upgrade.Committed)
	})
}

// A full disk keeps nobody from going back, and from serving meanwhile.
func TestDiskIsFull(t *testing.T) {
	for name, version := range map[string]string{"stack": "1.0.2", "system": "1.1.1"} {
		for _, file := range []string{"history.json", "evidence.json", "request.json"} {
			in(t, name+", "+file, func(t *testing.T, w *upgradetest.World) {
				w.RebootWhen = func(u status.Upgrade) bool {
					if u.Trial {
						w.Do(func() { w.Fail["Write "+file] = cmp.Or(w.Fail["Write "+file], 4) })
					}
					return false
				}
				play(t, w, upgradeTo(version))
				for range 3 {
					w.RebootWhen = nil
					play(t, w, nil)
				}
				rests(t, w, "1.0.0", upgrade.RolledBack)
			})
		}
	}
}
