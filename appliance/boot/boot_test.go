// SPDX-License-Identifier: Apache-2.0

package boot_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/boot"
	"github.com/holdfast/holdfast/appliance/boot/boottest"
)

const (
	loader   = "EFI/BOOT/BOOTX64.EFI"
	systemd  = "EFI/systemd/systemd-bootx64.efi"
	linuxDir = "EFI/Linux/"
	keptDir  = "EFI/holdfast/"
)

// box is an ESP with generation 1 committed.
func box() *boottest.Disk {
	d := &boottest.Disk{}
	d.Put0(loader, boottest.Program("one"))
	d.Put0(systemd, boottest.Program("one"))
	d.Put0(linuxDir+"holdfast-0000000001.efi", boottest.UKI(hash(1)))
	return d
}

func hash(n int) string { return fmt.Sprintf("%064x", n) }

func names(d *boottest.Disk, dir string) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(d.Files)) {
		if rest, ok := strings.CutPrefix(name, dir); ok {
			out = append(out, rest)
		}
	}
	return out
}

func TestParseName(t *testing.T) {
	for name, want := range map[string]boot.Entry{
		"holdfast-0000000001.efi":         {Number: 1, TriesLeft: -1, TriesDone: -1},
		"HOLDFAST-0000000012+1.EFI":       {Number: 12, TriesLeft: 1},
		"holdfast-0000000002+0-1.efi":     {Number: 2, TriesDone: 1},
		"holdfast-0000000002+3-2.efi":     {Number: 2, TriesLeft: 3, TriesDone: 2},
		"holdfast-000000001.efi":          {},
		"holdfast-0000000000.efi":         {},
		"holdfast-0000000001.efi.tmp":     {},
		"holdfast-0000000001+.efi":        {},
		"holdfast-0000000001+01.efi":      {},
		"holdfast-0000000001+1-0.efi":     {},
		"holdfast-0000000001+1-1-1.efi":   {},
		"holdfast-0000000001+9999999.efi": {},
		"xholdfast-0000000001.efi":        {},
		"holdfast-9999999999.efi":         {},
	} {
		got, ok := boot.ParseName(name)
		if ok != (want.Number > 0) || ok && got != want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, ok, want)
		}
	}
}

func FuzzParseName(f *testing.F) {
	f.Add("holdfast-0000000002+0-1.efi")
	f.Fuzz(func(t *testing.T, name string) {
		if e, ok := boot.ParseName(name); ok && !strings.EqualFold(e.Name(), name) {
			t.Errorf("%q is taken for %q", name, e.Name())
		}
	})
}

// upgrade is the life of a trial on the ESP, up to its end.
func upgrade(t *testing.T, d *boottest.Disk, commit bool) {
	t.Helper()
	e := boot.On(d)
	step := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v; %v", what, err, names(d, ""))
		}
	}
	step("place", e.PlaceTrial(2, bytes.NewReader(boottest.UKI(hash(2)))))
	b, err := boottest.Boot(d)
	step("boot", err)
	if b.RootHash != hash(2) || b.After != "holdfast-0000000002+0-1.efi" {
		t.Fatalf("the trial is not booted: %+v", b)
	}
	if !commit {
		b, err = boottest.Boot(d)
		step("boot", err)
		if b.RootHash != hash(1) {
			t.Fatalf("a spent trial is booted: %+v", b)
		}
		return
	}
	step("rearm", e.Rearm(2))
	if b, err = boottest.Boot(d); err != nil || b.RootHash != hash(2) {
		t.Fatalf("the trial is not started over: %+v, %v", b, err)
	}
	step("bless", e.Bless(2))
	step("bless again", e.Bless(2))
	if err := e.Rearm(2); err == nil {
		t.Error("a committed image was made a trial")
	}
	if err := e.PlaceTrial(2, bytes.NewReader(boottest.UKI(hash(3)))); err == nil {
		t.Error("a committed image was written over")
	}
	step("keep", e.Keep(1))
	step("keep again", e.Keep(1))
	for range 2 {
		if b, err = boottest.Boot(d); err != nil || b.RootHash != hash(2) {
			t.Fatalf("the committed image is not booted: %+v, %v", b, err)
		}
	}
}

func TestTrial(t *testing.T) {
	d := box()
	upgrade(t, d, false)
	list, err := boot.On(d).Entries()
	if err != nil || len(list) != 2 || list[1].RootHash != hash(2) || !list[1].Spent() || list[0].Counted() {
		t.Errorf("%+v, %v", list, err)
	}
	if err := boot.On(d).Remove(list[1]); err != nil || len(names(d, linuxDir)) != 1 {
		t.Errorf("%v, %v", err, names(d, linuxDir))
	}

	d = box()
	upgrade(t, d, true)
	e := boot.On(d)
	list, err = e.Entries()
	want := []boot.Entry{
		{Number: 1, Place: boot.Kept, TriesLeft: -1, TriesDone: -1, RootHash: hash(1)},
		{Number: 2, Place: boot.Linux, TriesLeft: -1, TriesDone: -1, RootHash: hash(2)},
	}
	for i := range list {
		list[i].Size = 0
	}
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("%+v, %v", list, err)
	}
	// A rollback by hand boots the kept image under a new number.
	if err := e.PlaceTrialFromKept(1, 3); err != nil {
		t.Fatal(err)
	}
	if b, err := boottest.Boot(d); err != nil || b.RootHash != hash(1) || b.Name != "holdfast-0000000003+1.efi" {
		t.Errorf("%+v, %v", b, err)
	}
	for what, err := range map[string]error{
		"kept that is not there": e.PlaceTrialFromKept(7, 8), "bless": e.Bless(9), "rearm": e.Rearm(9), "keep": e.Keep(9),
	} {
		if !errors.Is(err, boot.ErrNoImage) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := e.PlaceTrial(4, strings.NewReader("no kernel")); err == nil || slices.Contains(names(d, linuxDir), "holdfast-0000000004+1.efi") {
		t.Errorf("a file without a root hash: %v, %v", err, names(d, linuxDir))
	}
}

// TestForeignFiles: what is not ours is neither listed nor in the way.
func TestForeignFiles(t *testing.T) {
	d := box()
	d.Put0(linuxDir+"someone.efi", []byte("x"))
	d.Put0(linuxDir+"holdfast-0000000005.efi.tmp", []byte("x"))
	d.Put0(linuxDir+"holdfast-0000000004.efi", []byte("no kernel"))
	list, err := boot.On(d).Entries()
	if err != nil || len(list) != 2 || list[1].RootHash != "" {
		t.Errorf("%+v, %v", list, err)
	}
	if b, err := boottest.Boot(d); err != nil || b.RootHash != hash(1) {
		t.Errorf("%+v, %v", b, err)
	}
}

// TestPowerCuts cuts each change of the ESP, before and after. Whatever was
// going on, the box boots, and doing it again ends where it would have.
func TestPowerCuts(t *testing.T) {
	spent := box()
	spent.Put0(linuxDir+"holdfast-0000000002+0-1.efi", boottest.UKI(hash(2)))
	done := box()
	done.Put0(linuxDir+"holdfast-0000000002.efi", boottest.UKI(hash(2)))
	kept := done.Clone()
	kept.Put0(keptDir+"holdfast-0000000001.efi", boottest.UKI(hash(1)))
	for _, c := range []struct {
		name  string
		start *boottest.Disk
		do    func(e *boot.ESP) error
		boots []int
	}{
		{"place", box(), func(e *boot.ESP) error { return e.PlaceTrial(2, bytes.NewReader(boottest.UKI(hash(2)))) }, []int{1, 2}},
		{"place anew", spent, func(e *boot.ESP) error { return e.PlaceTrial(2, bytes.NewReader(boottest.UKI(hash(2)))) }, []int{1, 2}},
		{"rearm", spent, func(e *boot.ESP) error { return e.Rearm(2) }, []int{1, 2}},
		{"bless", spent, func(e *boot.ESP) error { return e.Bless(2) }, []int{1, 2}},
		{"keep", done, func(e *boot.ESP) error { return e.Keep(1) }, []int{2}},
		{"from kept", kept, func(e *boot.ESP) error { return e.PlaceTrialFromKept(1, 3) }, []int{2, 1}},
		{"loader", box(), func(e *boot.ESP) error { _, err := e.UpdateLoader(boottest.Program("two")); return err }, []int{1}},
	} {
		full := c.start.Clone()
		if err := c.do(boot.On(full)); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if len(full.Changes) == 0 {
			t.Fatalf("%s changes nothing", c.name)
		}
		for cut := range 2 * len(full.Changes) {
			d := c.start.Clone()
			d.Armed, d.Cut = true, cut
			if err := c.do(boot.On(d)); !errors.Is(err, boottest.ErrCut) {
				t.Fatalf("%s, cut %d: %v", c.name, cut, err)
			}
			d.Power()
			b, err := boottest.Boot(d.Clone())
			if err != nil || !slices.ContainsFunc(c.boots, func(n int) bool { return b.RootHash == hash(n) }) {
				t.Errorf("%s, cut %d: %+v, %v", c.name, cut, b, err)
			}
			if err := c.do(boot.On(d)); err != nil {
				t.Errorf("%s, cut %d, again: %v", c.name, cut, err)
			}
			if !maps.EqualFunc(d.Files, full.Files, bytes.Equal) {
				t.Errorf("%s, cut %d: %v, want %v", c.name, cut, names(d, ""), names(full, ""))
			}
		}
	}
}

// TestLoader: never both copies of systemd-boot are new and unread.
func TestLoader(t *testing.T) {
	d := box()
	if changed, err := boot.On(d).UpdateLoader(boottest.Program("one")); err != nil || changed || len(d.Changes) > 0 {
		t.Errorf("the same again: %v, %v, %v", changed, err, d.Changes)
	}
	if changed, err := boot.On(d).UpdateLoader(boottest.Program("two")); err != nil || !changed || len(d.Changes) != 2 {
		t.Errorf("%v, %v, %v", changed, err, d.Changes)
	}
	if _, err := boot.On(d).UpdateLoader([]byte("no program")); err == nil || len(d.Changes) != 2 {
		t.Errorf("not a program: %v, %v", err, d.Changes)
	}
	d.Room = 1
	if _, err := boot.On(d).UpdateLoader(boottest.Program("three")); err == nil || !bytes.Equal(d.Files[loader], boottest.Program("two")) {
		t.Errorf("no room: %v", err)
	}
}
