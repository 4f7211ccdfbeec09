// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/slot/slottest"
	"github.com/holdfast/holdfast/appliance/status"
)

var otherHash = strings.Repeat("cd", 32)

// trialOf is a trial of generation n on data of an origin, as upgrade arms it.
func trialOf(n int, origin string, reboot bool) *slot.Trial {
	return &slot.Trial{
		Generation: slot.Generation{Number: n, Slot: "A", RootHash: slottest.Hash, Data: slot.DataVolume(n)},
		Kind:       slot.Upgrade, Origin: origin, Reboot: reboot, Deadline: 900, Window: 10,
	}
}

func (f *fakeLVM) record() slot.Record {
	f.t.Helper()
	rec, err := slot.Load(f.root)
	if err != nil {
		f.t.Fatal(err)
	}
	return rec
}

// note changes the record as the machine of upgrades would.
func (f *fakeLVM) note(change func(rec *slot.Record)) slot.Record {
	f.t.Helper()
	rec := f.record()
	change(&rec)
	if err := slot.Save(f.root, rec); err != nil {
		f.t.Fatal(err)
	}
	return rec
}

// armed is a box that was committed on the other root, and whose root is a
// trial's.
func armed(t testing.TB, kernel string) *fakeLVM {
	f := newLVM(t, 4*gib)
	if kernel != "" {
		f.attach(kernel, newDisk("vol1", 20*gib))
	}
	upWith(t, f, "entry")
	f.note(func(rec *slot.Record) {
		rec.Committed.Slot, rec.Committed.RootHash = "B", otherHash
		rec.Trial = trialOf(2, "data-1", true)
	})
	return f
}

// bootNow is the id of the boot that f is in.
func (f *fakeLVM) bootNow() string {
	id, err := bootID(f.env())
	if err != nil {
		f.t.Fatal(err)
	}
	return id
}

func TestTrialBoot(t *testing.T) {
	for _, kernel := range []string{"", "vdb"} {
		f := armed(t, kernel)
		if err := f.power(Wish{}); err != nil {
			t.Fatal(err)
		}
		d, v := f.data()
		l, err := d.label()
		if v != d.volumes["data-2"] || v.content != "entry" || err != nil || l.Trial != 2 || l.Generation != 1 || d.volumes["data-1"].active {
			t.Fatalf("%+v, %v\n%s", l, err, d)
		}
		rec := f.record()
		if tr := rec.Trial; tr.Boot != f.bootNow() || tr.Starts != 1 || tr.Again {
			t.Errorf("trial %+v", tr)
		}
		if err := CheckData(f.root, mustData(t, f), rec.Trial.Generation, dataPlace); err != nil {
			t.Error(err)
		}
		if name, err := Mounted(f.env()); err != nil || name != "data-2" {
			t.Errorf("mounted %q, %v", name, err)
		}
		// The unit runs again in the same boot: what the trial wrote stays.
		v.content = "tried"
		if err := f.boot(Wish{}); err != nil {
			t.Fatal(err)
		}
		if _, v := f.data(); v.content != "tried" || f.record().Trial.Starts != 1 {
			t.Errorf("the same boot began anew: %q, %+v", v.content, f.record().Trial)
		}
		// The next boot of it starts over.
		f.note(func(rec *slot.Record) { rec.Trial.Again = true })
		if err := f.power(Wish{}); err != nil {
			t.Fatal(err)
		}
		if _, v := f.data(); v.content != "entry" || f.record().Trial.Starts != 2 || f.record().Trial.Again {
			t.Errorf("not started over: %q, %+v", v.content, f.record().Trial)
		}
		// A boot of the committed root has the committed data.
		f.note(func(rec *slot.Record) {
			rec.Committed.Slot, rec.Committed.RootHash = "A", slottest.Hash
			rec.Trial.Slot, rec.Trial.RootHash = "B", otherHash
		})
		if err := f.power(Wish{}); err != nil {
			t.Fatal(err)
		}
		if _, v := f.data(); v != d.volumes["data-1"] || v.content != "entry" {
			t.Errorf("after going back\n%s", d)
		}
		if err := Settle(context.Background(), f.env(), f.record()); err == nil || !strings.Contains(err.Error(), "being tried") {
			t.Errorf("settled with a trial: %v", err)
		}
		rec = f.note(func(rec *slot.Record) { rec.Trial = nil })
		if err := Settle(context.Background(), f.env(), rec); err != nil {
			t.Fatal(err)
		}
		if l, err := d.label(); err != nil || l.Trial != 0 || !slices.Equal(d.data(), []string{"data-1"}) {
			t.Errorf("after settling: %+v, %v\n%s", l, err, d)
		}
	}
}

func mustData(t testing.TB, f *fakeLVM) (d status.DataDisk) {
	d, err := ReadData(f.root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTrialBootRefuses(t *testing.T) {
	f := armed(t, "")
	delete(f.sys.volumes, "data-1")
	if err := f.power(Wish{}); err == nil || f.mounted[dataPlace] != "" {
		t.Errorf("no origin: %v, %v", err, f.mounted)
	}
	f = armed(t, "")
	f.note(func(rec *slot.Record) { rec.Trial.Failed = "it failed" })
	if err := f.power(Wish{}); !errors.Is(err, slot.ErrForeignRoot) || f.mounted[dataPlace] != "" {
		t.Errorf("a trial that has failed: %v, %v", err, f.mounted)
	}
}

// stackTrial is a box that is up, with a trial that needs no boot.
func stackTrial(t testing.TB, kernel string) (*fakeLVM, *fakeDisk) {
	f := newLVM(t, 4*gib)
	if kernel != "" {
		f.attach(kernel, newDisk("vol1", 20*gib))
	}
	d, _ := upWith(t, f, "entry")
	f.note(func(rec *slot.Record) { rec.Trial = trialOf(2, "data-1", false) })
	return f, d
}

func TestSwitchThereAndBack(t *testing.T) {
	for _, kernel := range []string{"", "vdb"} {
		f, d := stackTrial(t, kernel)
		f.ran = nil
		for range 2 { // the second has nothing to do
			if err := Switch(context.Background(), f.env(), f.record()); err != nil {
				t.Fatal(err)
			}
		}
		_, v := f.data()
		if l, err := d.label(); v != d.volumes["data-2"] || v.content != "entry" || err != nil || l.Trial != 2 {
			t.Fatalf("%+v, %v\n%s", l, err, d)
		}
		if stop, umount, snap, mount := index(f, "systemctl stop"), index(f, "umount "+dataPlace), index(f, "lvcreate --devices"), index(f, "mount -t xfs"); !(stop < 0 && 0 < umount && umount < snap && snap < mount) {
			t.Errorf("ran\n%s", strings.Join(f.ran, "\n"))
		}
		v.content = "tried"
		f.note(func(rec *slot.Record) { rec.Trial.Failed = "it failed" })
		f.ran = nil
		if err := Switch(context.Background(), f.env(), f.record()); err != nil {
			t.Fatal(err)
		}
		if stop, umount, mount, start := index(f, "systemctl stop"), index(f, "umount"), index(f, "mount -t xfs"), index(f, "systemctl start"); !(0 <= stop && stop < umount && umount < mount && mount < start) {
			t.Errorf("the engine knows of the trial's volumes:\n%s", strings.Join(f.ran, "\n"))
		}
		if out := mustData(t, f); out.Volume != "data-1" || out.Label.Trial != 0 {
			t.Errorf("%+v", out)
		}
		if _, v := f.data(); v != d.volumes["data-1"] || v.content != "entry" {
			t.Errorf("after going back\n%s", d)
		}
		rec := f.note(func(rec *slot.Record) { rec.Trial = nil })
		if err := Settle(context.Background(), f.env(), rec); err != nil || !slices.Equal(d.data(), []string{"data-1"}) {
			t.Errorf("%v\n%s", err, d)
		}
	}
}

func index(f *fakeLVM, part string) int {
	return slices.IndexFunc(f.ran, func(s string) bool { return strings.Contains(s, part) })
}

// TestSwitchCuts cuts the power before and after each act of a switch, of the
// way back, of settling after a commit and after going back. The boot that
// follows has the committed data, and the act can be done again.
func TestSwitchCuts(t *testing.T) {
	ctx := context.Background()
	forth := func(f *fakeLVM) error { return Switch(ctx, f.env(), f.record()) }
	settle := func(f *fakeLVM) error { return Settle(ctx, f.env(), f.record()) }
	for _, c := range []struct {
		name    string
		prepare func(f *fakeLVM)
		do      func(f *fakeLVM) error
		want    string   // content after the next boot
		left    []string // volumes after doing it again
	}{
		{"there", func(f *fakeLVM) {}, forth, "entry", []string{"data-1", "data-2"}},
		{"back", func(f *fakeLVM) {
			must(t, forth(f))
			f.note(func(rec *slot.Record) { rec.Trial.Failed = "it failed" })
		}, forth, "entry", []string{"data-1", "data-2"}},
		{"settled after the commit", func(f *fakeLVM) {
			must(t, forth(f))
			_, v := f.data()
			v.content = "committed"
			f.note(commit)
		}, settle, "committed", []string{"data-1", "data-2"}},
		{"settled after going back", func(f *fakeLVM) {
			must(t, forth(f))
			f.note(func(rec *slot.Record) { rec.Trial.Failed = "it failed" })
			must(t, forth(f))
			f.note(func(rec *slot.Record) { rec.Trial = nil })
		}, settle, "entry", []string{"data-1"}},
	} {
		for _, kernel := range []string{"", "vdb"} {
			full, d := stackTrial(t, kernel)
			c.prepare(full)
			full.ran = nil
			if err := c.do(full); err != nil {
				t.Fatal(c.name, err)
			}
			if got := d.data(); !slices.Equal(got, c.left) {
				t.Errorf("%s: %v, want %v", c.name, got, c.left)
			}
			for cut := range 2 * len(full.ran) {
				if kernel != "" && cut%3 > 0 {
					continue // the same code, on another group
				}
				f, d := stackTrial(t, kernel)
				c.prepare(f)
				f.ran, f.cut = nil, cut
				if err := c.do(f); !errors.Is(err, errCut) {
					t.Fatalf("%s, cut %d: %v", c.name, cut, err)
				}
				if err := f.power(Wish{}); err != nil {
					t.Fatalf("%s, cut %d, next boot: %v\n%s", c.name, cut, err, d)
				}
				if _, v := f.data(); v.content != c.want {
					t.Errorf("%s, cut %d: content %q, want %q\n%s", c.name, cut, v.content, c.want, d)
				}
				if err := c.do(f); err != nil || !slices.Equal(d.data(), c.left) {
					t.Errorf("%s, cut %d, again: %v\n%s", c.name, cut, err, d)
				}
				l, err := d.label()
				if err != nil || l.Generation != f.record().Committed.Number || l.Volume != f.record().Committed.Data {
					t.Errorf("%s, cut %d: label %+v, %v", c.name, cut, l, err)
				}
			}
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func commit(rec *slot.Record) {
	kept := rec.Committed
	rec.Kept, rec.Committed, rec.Trial = &kept, rec.Trial.Generation, nil
}

// TestReleaseOfVolumes takes what the label says of the release through an
// upgrade and a rollback by hand: it is always that of the data in use.
func TestReleaseOfVolumes(t *testing.T) {
	ctx := context.Background()
	one, two := Release{"demo", "1.0.0", "1.0.0"}, Release{"demo", "1.1.0", "1.1.0"}
	f, d := stackTrial(t, "")
	label := func() Label {
		l, err := d.label()
		must(t, err)
		return l
	}
	must(t, Accept(ctx, f.env(), one))
	must(t, Switch(ctx, f.env(), f.record()))
	must(t, Accept(ctx, f.env(), two))
	if l := label(); l.Version != "1.0.0" || l.ReadableFrom != "1.0.0" || l.Trial != 2 {
		t.Errorf("during the trial: %+v", l)
	}
	rec := f.note(commit)
	must(t, Settle(ctx, f.env(), rec))
	if l := label(); l.Version != "1.1.0" || l.ReadableFrom != "1.1.0" || l.Generation != 2 || l.Trial != 0 {
		t.Errorf("after the commit: %+v", l)
	}
	if h, ok := errors.AsType[*Held](Accept(ctx, f.env(), one)); !ok || h.Code != "data-newer" {
		t.Errorf("the older release on newer data: %v", h)
	}
	// Back by hand, to the data that the older release left.
	f.note(func(rec *slot.Record) { rec.Trial = trialOf(3, "data-1", false); rec.Trial.Kind = slot.Rollback })
	must(t, Switch(ctx, f.env(), f.record()))
	must(t, Accept(ctx, f.env(), one))
	if _, v := f.data(); v.content != "entry" {
		t.Errorf("content %q", v.content)
	}
	rec = f.note(commit)
	must(t, Settle(ctx, f.env(), rec))
	if l := label(); l.Version != "1.0.0" || l.ReadableFrom != "1.0.0" || l.Generation != 3 {
		t.Errorf("after the rollback: %+v", l)
	}
	if got := d.data(); !slices.Equal(got, []string{"data-2", "data-3"}) {
		t.Errorf("volumes %v", got)
	}
	// Back with the newer data: the older release may not.
	f.note(func(rec *slot.Record) { rec.Trial = trialOf(4, "data-2", false); rec.Trial.Kind = slot.Rollback })
	must(t, Switch(ctx, f.env(), f.record()))
	if h, ok := errors.AsType[*Held](Accept(ctx, f.env(), one)); !ok || h.Code != "data-newer" {
		t.Errorf("the older release on a copy of newer data: %v", h)
	}
}

// FuzzPlanSettle: whatever the tags of a group say, what a generation needs
// and what is mounted is not dropped.
func FuzzPlanSettle(f *testing.F) {
	f.Add("holdfast.format=1,holdfast.box="+boxA+",holdfast.generation=1,holdfast.volume=data-1", "data-1,data-2,data-3", "data-3")
	f.Fuzz(func(t *testing.T, tags, volumes, mounted string) {
		g := Group{Dev: "/dev/x", Name: group, Tags: splitTags(tags)}
		for _, name := range splitTags(volumes) {
			g.Volumes = append(g.Volumes, Volume{Name: name, Formatted: true, Active: true})
		}
		rec := slot.First(slot.Root{Letter: "A", Hash: slottest.Hash})
		rec.Committed.Number = 2
		rec.Committed.Data = "data-2"
		rec.Kept = &slot.Generation{Number: 1, Data: "data-1"}
		steps, err := PlanSettle(g, rec, mounted, "there")
		if err != nil {
			return
		}
		for _, s := range steps {
			for _, name := range []string{"data-1", "data-2", mounted} {
				if s.Argv[1] == "lvremove" && s.Argv[len(s.Argv)-1] == fmt.Sprintf("%s/%s", group, name) {
					t.Errorf("drops %s: %s", name, s)
				}
			}
		}
	})
}
