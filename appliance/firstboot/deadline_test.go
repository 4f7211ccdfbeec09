// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/boot"
	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/slot/slottest"
)

func TestExpired(t *testing.T) {
	for _, c := range []struct {
		name  string
		trial slot.Trial
		clock Clock
		past  bool
	}{
		{"in time", slot.Trial{Kind: slot.Upgrade, Reboot: true, Deadline: 900}, Clock{Uptime: 900 * time.Second}, false},
		{"past", slot.Trial{Kind: slot.Upgrade, Reboot: true, Deadline: 900}, Clock{Uptime: 961 * time.Second}, true},
		{"no deadline noted", slot.Trial{Kind: slot.Upgrade, Reboot: true}, Clock{Uptime: 14 * time.Minute}, false},
		{"no deadline noted, past", slot.Trial{Kind: slot.Upgrade, Reboot: true}, Clock{Uptime: 17 * time.Minute}, true},
		{"drill", slot.Trial{Kind: slot.Drill, Reboot: true, Deadline: 60}, Clock{Uptime: 121 * time.Second}, true},
		{"failed, on its way", slot.Trial{Kind: slot.Upgrade, Reboot: true, Deadline: 60, Failed: "x"}, Clock{Uptime: 5 * time.Minute}, false},
		{"failed, and stays", slot.Trial{Kind: slot.Upgrade, Reboot: true, Deadline: 60, Failed: "x"}, Clock{Uptime: 8 * time.Minute}, true},
		{"crash loop", slot.Trial{Kind: slot.Upgrade, Reboot: true, Deadline: 900}, Clock{Uptime: time.Minute, Restarts: maxRestarts + 1}, true},
		{"rollback that has booted", slot.Trial{Kind: slot.Rollback, Reboot: true, Deadline: 60, Boot: "b"}, Clock{Uptime: time.Hour, Boot: "b", Restarts: 99}, false},
		{"rollback that has not", slot.Trial{Kind: slot.Rollback, Reboot: true, Deadline: 60}, Clock{Uptime: time.Hour, Boot: "b"}, true},
		{"stack alone, in time", slot.Trial{Kind: slot.Upgrade, Deadline: 60, Since: 3000, Boot: "b"}, Clock{Uptime: 3050 * time.Second, Boot: "b"}, false},
		{"stack alone, hangs", slot.Trial{Kind: slot.Upgrade, Deadline: 60, Since: 3000, Boot: "b"}, Clock{Uptime: 3500 * time.Second, Boot: "b"}, true},
		{"stack alone, back by hand", slot.Trial{Kind: slot.Rollback, Deadline: 60, Since: 3000, Boot: "b"}, Clock{Uptime: 9000 * time.Second, Boot: "b"}, false},
		{"stack alone, not switched yet", slot.Trial{Kind: slot.Upgrade, Deadline: 60, Boot: "b"}, Clock{Uptime: 9000 * time.Second, Boot: "b"}, false},
		{"stack alone, of another boot", slot.Trial{Kind: slot.Upgrade, Deadline: 60, Since: 3000, Boot: "a"}, Clock{Uptime: 9000 * time.Second, Boot: "b"}, false},
	} {
		c.trial.Number = 2
		if err := Expired(slot.Record{Trial: &c.trial}, c.clock); errors.Is(err, ErrDeadline) != c.past || (err != nil) != c.past {
			t.Errorf("%s: %v, want past %v", c.name, err, c.past)
		}
	}
}

func TestTrialOnly(t *testing.T) {
	entry := func(n int, hash string, left int) boot.Entry {
		return boot.Entry{Number: n, Place: boot.Linux, TriesLeft: left, RootHash: hash}
	}
	kept := boot.Entry{Number: 1, Place: boot.Kept, TriesLeft: -1, RootHash: "b"}
	for _, c := range []struct {
		name string
		list []boot.Entry
		want bool
	}{
		{"nothing", nil, false},
		{"committed", []boot.Entry{entry(1, "a", -1)}, false},
		{"trial", []boot.Entry{entry(1, "b", -1), entry(2, "a", 0)}, true},
		{"trial with nowhere to go", []boot.Entry{entry(2, "a", 0), kept}, false},
		{"goes back to nothing that boots", []boot.Entry{entry(1, "", -1), entry(2, "a", 0)}, false},
		{"another's trial", []boot.Entry{entry(1, "a", -1), entry(2, "b", 0)}, false},
		{"rearmed", []boot.Entry{entry(1, "b", -1), entry(2, "a", 1)}, false},
	} {
		if got := trialOnly(c.list, "a"); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestDeadlineOfABox(t *testing.T) {
	ctx := context.Background()
	uptime := func(f *fakeLVM, s int) { slottest.Put(t, f.root, "proc/uptime", fmt.Sprintf("%d.50 1.00\n", s)) }
	f := newLVM(t, 4*gib)
	upWith(t, f, "entry")
	uptime(f, 1<<20)
	if err := Deadline(ctx, f.env()); err != nil {
		t.Errorf("committed: %v", err)
	}
	f = armed(t, "")
	must(t, f.power(Wish{}))
	uptime(f, 100)
	if err := Deadline(ctx, f.env()); err != nil {
		t.Errorf("a trial in time: %v", err)
	}
	uptime(f, 2000)
	if err := Deadline(ctx, f.env()); !errors.Is(err, ErrDeadline) {
		t.Errorf("a trial past its deadline: %v", err)
	}
	// Neither the record nor the ESP, which is empty here, can be read.
	for _, end := range []string{".1", ".2"} {
		slottest.Put(t, f.root, slot.Path+end, "x")
	}
	uptime(f, 100)
	if err := Deadline(ctx, f.env()); err != nil {
		t.Errorf("no record yet: %v", err)
	}
	uptime(f, 1000)
	if err := Deadline(ctx, f.env()); !errors.Is(err, ErrDeadline) {
		t.Errorf("it cannot tell: %v", err)
	}
	slottest.Put(t, f.root, "proc/uptime", "x")
	if err := Deadline(ctx, f.env()); err == nil || errors.Is(err, ErrDeadline) {
		t.Errorf("no clock: %v", err)
	}
}
