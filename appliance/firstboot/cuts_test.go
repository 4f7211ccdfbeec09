// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot"
)

// scenario is a boot, or an adoption, that the power may cut.
type scenario struct {
	name string
	wish Wish
	// start makes the box as it is before.
	start func(t testing.TB) *fakeLVM
	// asked is true where a person adopts after the boot has held.
	asked bool
	// place and content are what must be there in the end.
	place, content string
	// trial is the generation that this boot tries, 0 for none.
	trial int
}

func scenarios() []scenario {
	empty := func(t testing.TB) *fakeLVM {
		f := newLVM(t, 4*gib)
		f.attach("vdb", newDisk("vol1", 20*gib))
		return f
	}
	grown := func(kernel string) func(t testing.TB) *fakeLVM {
		return func(t testing.TB) *fakeLVM {
			f := newLVM(t, 4*gib)
			f.sys.bytes = 8 * gib
			if kernel != "" {
				f.attach(kernel, newDisk("vol1", 20*gib))
			}
			upWith(t, f, "entry")
			f.sys.bytes = 40 * gib
			if kernel != "" {
				d := f.detach(kernel)
				d.bytes = 60 * gib
				f.attach(kernel, d)
			}
			return f
		}
	}
	foreign := func(t testing.TB) *fakeLVM {
		f := newBox(t, boxB, 4*gib)
		f.attach("vdb", trial(t))
		return f
	}
	return []scenario{
		{name: "first boot", start: func(t testing.TB) *fakeLVM { return newLVM(t, 4*gib) }, place: onSystem},
		{name: "empty disk", start: empty, place: onDisk},
		{name: "named disk", start: func(t testing.TB) *fakeLVM {
			f := empty(t)
			f.attach("vdc", newDisk("vol2", 20*gib))
			return f
		}, wish: Wish{Disk: "/dev/disk/by-id/virtio-vol2"}, place: onDisk},
		{name: "no disk wanted", start: empty, wish: Wish{Disk: wishNone}, place: onSystem},
		{name: "grown system disk", start: grown(""), place: onSystem, content: "entry"},
		{name: "grown data disk", start: grown("vdb"), place: onDisk, content: "entry"},
		{name: "adopted by configuration", start: foreign, wish: Wish{Adopt: true}, place: onDisk, content: "committed"},
		{name: "adopted by hand", start: foreign, asked: true, place: onDisk, content: "committed"},
		{name: "from before labels", start: func(t testing.TB) *fakeLVM {
			f := newLVM(t, 4*gib)
			upWith(t, f, "entry")
			f.sys.tags = nil
			return f
		}, place: onSystem, content: "entry"},
		{name: "the other disk by hand", start: func(t testing.TB) *fakeLVM {
			f := newBox(t, boxB, 4*gib)
			f.attach("vdb", newDisk("lost", 20*gib))
			upWith(t, f, "lost")
			f.detach("vdb")
			f.attach("vdb", trial(t))
			return f
		}, asked: true, place: onDisk, content: "committed"},
		{name: "commit without a label", start: func(t testing.TB) *fakeLVM {
			f := newLVM(t, 4*gib)
			d, v := upWith(t, f, "old")
			d.volumes["data-2"] = &fakeVolume{bytes: v.bytes, xfs: v.xfs, tag: true, content: "committed"}
			d.tags = append(d.tags, tag(tagTrial, "2"))
			rec, err := slot.Load(f.root)
			rec.Committed.Number, rec.Committed.Data = 2, "data-2"
			if err := errors.Join(err, slot.Save(f.root, rec)); err != nil {
				t.Fatal(err)
			}
			return f
		}, place: onSystem, content: "committed"},
		{name: "trial", start: func(t testing.TB) *fakeLVM { return armed(t, "") }, place: onSystem, content: "entry", trial: 2},
		{name: "trial on a data disk", start: func(t testing.TB) *fakeLVM { return armed(t, "vdb") }, place: onDisk, content: "entry", trial: 2},
		{name: "trial once more", start: func(t testing.TB) *fakeLVM {
			f := armed(t, "")
			_, v := upWith(t, f, "tried")
			if v != f.sys.volumes["data-2"] {
				t.Fatal("the trial did not run")
			}
			return f
		}, place: onSystem, content: "entry", trial: 2},
	}
}

// run goes through a scenario once; an error other than the cut fails it.
func (s scenario) run(t *testing.T, f *fakeLVM) error {
	t.Helper()
	err := f.boot(s.wish)
	if h, ok := errors.AsType[*Held](err); ok && s.asked && (h.Code == "data-foreign" || h.Code == "data-missing") {
		if err = f.adopt(); err == nil {
			err = f.boot(s.wish)
		}
	}
	if err != nil && !errors.Is(err, errCut) {
		t.Fatalf("%v\n%s%s", err, f.sys, slices.Collect(maps.Values(f.disks)))
	}
	return err
}

// TestDataPowerCuts cuts the power before and after every act of each
// scenario, and then again somewhere in the boot that follows. A boot that
// nothing cuts must come to the same end, with nothing lost. What must not
// happen on the way the model itself fails on.
func TestDataPowerCuts(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			full := s.start(t)
			full.reboot()
			if err := s.run(t, full); err != nil {
				t.Fatal(err)
			}
			s.check(t, full)
			acts := 2 * len(full.ran)
			for first := range acts {
				// The second falls somewhere else after each first.
				seconds := []int{-1}
				if first%3 == 0 {
					seconds = append(seconds, first*5%acts)
				}
				for _, second := range seconds {
					f := s.start(t)
					f.reboot()
					f.cut = first
					if err := s.run(t, f); !errors.Is(err, errCut) {
						t.Fatalf("cut %d: %v", first, err)
					}
					f.reboot()
					f.cut = second
					if err := s.run(t, f); err != nil {
						f.reboot()
						if err := s.run(t, f); err != nil {
							t.Fatal(err)
						}
					}
					if s.check(t, f); t.Failed() {
						t.Fatalf("after cuts %d and %d:\n%s\n%s", first, second, f.sys, strings.Join(f.ran, "\n"))
					}
				}
			}
		})
	}
}

func (s scenario) check(t *testing.T, f *fakeLVM) {
	t.Helper()
	d, v := f.data()
	l, err := d.label()
	if v.content != s.content || err != nil || l.Box != f.box || l.Trial != s.trial {
		t.Errorf("content %q, want %q; label %+v, %v", v.content, s.content, l, err)
	}
	use := Both
	if s.place == onDisk {
		use = DataOnly
	}
	want, err := Share(d.total(), fakeExtent, use)
	if err != nil || v.xfs != v.bytes || len(d.data()) == 1 && v.bytes != want.Data {
		t.Errorf("data has %d of %d, want %d, %v", v.xfs, v.bytes, want.Data, err)
	}
	rec, err := slot.Load(f.root)
	inUse := l.Volume
	if s.trial > 0 {
		inUse = slot.DataVolume(s.trial)
		if rec.Trial == nil || rec.Trial.Boot != f.bootNow() || rec.Trial.Starts < 1 || d.volumes[l.Volume].content != "entry" {
			t.Errorf("trial %+v\n%s", rec.Trial, d)
		}
	}
	if err != nil || rec.Committed.Number != l.Generation || rec.Committed.Data != l.Volume || device(d.group, inUse) != f.mounted[dataPlace] {
		t.Errorf("record %+v, %v; label %+v; mounted %v", rec, err, l, f.mounted)
	}
	if out, err := ReadData(f.root); err != nil || out.Place != s.place {
		t.Errorf("the data is on %q, want %q, %v", out.Place, s.place, err)
	}
}

// data are the volumes with data of one disk.
func (d *fakeDisk) data() (names []string) {
	for _, name := range d.names() {
		if strings.HasPrefix(name, dataStem) {
			names = append(names, name)
		}
	}
	return names
}
