// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/slot/slottest"
	"github.com/holdfast/holdfast/appliance/status"
)

// boot is what the units of a boot do.
func (f *fakeLVM) boot(wish Wish) error {
	env := f.env()
	if err := Storage(context.Background(), env); err != nil {
		return err
	}
	f.mounted["/var"] = device(group, stateName)
	f.writeMounts()
	env.Wish = func() Wish { return wish }
	return Data(context.Background(), env)
}

// power is a cut and the boot after it.
func (f *fakeLVM) power(wish Wish) error {
	f.reboot()
	return f.boot(wish)
}

func (f *fakeLVM) adopt() error {
	_, err := Adopt(context.Background(), f.env())
	return err
}

// data is the volume that is mounted where services have their data.
func (f *fakeLVM) data() (*fakeDisk, *fakeVolume) {
	f.t.Helper()
	d, v, err := f.mapped(f.mounted[dataPlace])
	if err != nil || f.mounted[volumesPlace] != f.mounted[dataPlace] {
		f.t.Fatalf("no data is mounted: %v, %v", f.mounted, err)
	}
	return d, v
}

// held gives the condition that holds the data, and checks that it is told.
func held(t testing.TB, f *fakeLVM, err error, code, text string) status.Condition {
	t.Helper()
	h, ok := errors.AsType[*Held](err)
	if !ok || h.Code != code || !strings.Contains(h.Text, text) || h.Remedy == "" {
		t.Fatalf("got %v, want %s %q", err, code, text)
	}
	if f.mounted[dataPlace] != "" || f.mounted[volumesPlace] != "" {
		t.Errorf("%s, and mounted is %v", code, f.mounted)
	}
	if d, err := ReadData(f.root); err != nil || d.Held == nil || *d.Held != h.Condition || d.Place != "" {
		t.Errorf("%s: the file says %+v, %v", code, d, err)
	}
	return h.Condition
}

// upWith boots a box whose stack then writes something.
func upWith(t testing.TB, f *fakeLVM, content string) (*fakeDisk, *fakeVolume) {
	t.Helper()
	if err := f.power(Wish{}); err != nil {
		t.Fatal(err)
	}
	d, v := f.data()
	v.content = content
	return d, v
}

// own is the part of what ran that changes the disk of a kernel name.
func own(f *fakeLVM, dev string) string {
	var out []string
	for _, line := range f.ran {
		if rest, ok := strings.CutPrefix(line, "lvm "); ok {
			verb, rest, _ := strings.Cut(rest, " ")
			if rest, ok = strings.CutPrefix(rest, "--devices "+dev+" "); ok {
				out = append(out, verb+" "+rest)
			}
			continue
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func TestDataOnTheSystemDisk(t *testing.T) {
	f := newLVM(t, 4*gib)
	if err := storage(t, f); err != nil {
		t.Fatal(err)
	}
	f.ran = nil
	if err := f.boot(Wish{}); err != nil {
		t.Fatal(err)
	}
	want := `lvcreate --yes --type thin --name data-1 --virtualsize 1698693120b --wipesignatures y --thinpool pool holdfast
mkfs.xfs -q -f -K -L data-1 /dev/mapper/holdfast-data--1
lvchange --yes --addtag holdfast.formatted holdfast/data-1
vgchange --addtag holdfast.format=1 --addtag holdfast.box=` + boxA + ` --addtag holdfast.generation=1 --addtag holdfast.volume=data-1 --addtag holdfast.home=local holdfast
mount -t xfs -o prjquota,nodev,nosuid /dev/mapper/holdfast-data--1 /var/lib/holdfast/data
mount --bind /var/lib/holdfast/data/volumes /var/lib/docker/volumes`
	if got := own(f, "/dev/vda5"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	rec, err := slot.Load(f.root)
	if err != nil || rec.Committed.Number != 1 || rec.Committed.Slot != "A" || rec.Committed.RootHash != slottest.Hash || rec.Committed.Data != firstData {
		t.Errorf("record %+v, %v", rec, err)
	}
	if info, err := os.Stat(filepath.Join(f.root, dataPlace, "secrets")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("secrets: %v, %v", info, err)
	}
	d, err := ReadData(f.root)
	if err != nil || d.Place != onSystem || d.Mapper != "holdfast-data--1" || d.Device != "/dev/vda5" || d.Held != nil || len(d.Others) != 0 {
		t.Errorf("%+v, %v", d, err)
	}
	if err := f.power(Wish{}); err != nil {
		t.Fatal(err)
	}
	if got := own(f, "/dev/vda5"); !strings.HasPrefix(got, "lvchange --yes --activate y --ignoreactivationskip holdfast/state\nlvchange --yes --activate y --ignoreactivationskip holdfast/data-1\nmount -t xfs") {
		t.Errorf("the next boot ran\n%s", got)
	}
}

func TestAnEmptyDiskBecomesHome(t *testing.T) {
	f := newLVM(t, 4*gib)
	if err := storage(t, f); err != nil {
		t.Fatal(err)
	}
	f.attach("vdb", newDisk("vol1", 20*gib))
	f.ran = nil
	if err := f.boot(Wish{}); err != nil {
		t.Fatal(err)
	}
	d := f.disks["vdb"]
	want := `pvcreate --uuid ` + d.pv + ` --norestorefile /dev/vdb
vgcreate --addtag holdfast.format=1 --addtag holdfast.box=` + boxA + ` holdfast-data /dev/vdb
lvcreate --yes --type thin-pool --name pool --size 21273509888b --poolmetadatasize 41943040b --chunksize 131072b --poolmetadataspare y holdfast-data
lvcreate --yes --type thin --name data-1 --virtualsize 17020485632b --wipesignatures y --thinpool pool holdfast-data
mkfs.xfs -q -f -K -L data-1 /dev/mapper/holdfast--data-data--1
lvchange --yes --addtag holdfast.formatted holdfast-data/data-1
vgchange --addtag holdfast.generation=1 --addtag holdfast.volume=data-1 holdfast-data
mount -t xfs -o prjquota,nodev,nosuid /dev/mapper/holdfast--data-data--1 /var/lib/holdfast/data
xfs_growfs -d /var
mount --bind /var/lib/holdfast/data/volumes /var/lib/docker/volumes`
	if got := own(f, "/dev/vdb"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	sys := own(f, "/dev/vda5")
	if claim, home := strings.Index(sys, "vgchange --addtag holdfast.claim="+d.pv+" holdfast"),
		strings.Index(sys, "vgchange --deltag holdfast.claim="+d.pv+" --addtag holdfast.home="+d.id+" holdfast"); claim != 0 || home < 0 || home > strings.Index(sys, "mount") {
		t.Errorf("the system disk's group:\n%s", sys)
	}
	out, err := ReadData(f.root)
	if err != nil || out.Place != onDisk || out.Disk == nil || out.Disk.Serial != "vol1" || out.Disk.ID != "/dev/disk/by-id/virtio-vol1" || out.Mapper != "holdfast--data-data--1" || out.Device != "/dev/vdb" {
		t.Errorf("%+v, %v", out, err)
	}
	_, v := f.data()
	v.content = "entry"
	// A larger disk, under another name.
	f.detach("vdb")
	d.bytes = 60 * gib
	f.attach("vdc", d)
	if err := f.power(Wish{}); err != nil {
		t.Fatal(err)
	}
	if d, v := f.data(); v.content != "entry" || v.xfs != v.bytes || v.bytes < 40*gib || d.volumes[pool].bytes < 50*gib {
		t.Errorf("after growing\n%s", d)
	}
	f.ran = nil
	if err := f.power(Wish{}); err != nil || strings.Contains(strings.Join(f.ran, "\n"), "growfs") {
		t.Errorf("grows again: %v, %v", f.ran, err)
	}
}

// TestMovedDisk takes a data disk from box to box and back.
func TestMovedDisk(t *testing.T) {
	a := newLVM(t, 4*gib)
	a.attach("vdb", newDisk("vol1", 20*gib))
	upWith(t, a, "written on a")
	disk := a.detach("vdb")
	held(t, a, a.power(Wish{}), "data-missing", "virtio-vol1 (serial vol1, 20 GiB), which is not attached")

	b := newBox(t, boxB, 4*gib)
	b.attach("vdc", disk)
	was := disk.String()
	held(t, b, b.power(Wish{}), "data-foreign", "machine id "+boxA)
	if disk.String() != was || own(b, "/dev/vdc") != own(b, "/dev/none") {
		t.Errorf("a foreign disk was touched:\n%s%s", disk, own(b, "/dev/vdc"))
	}
	if err := b.adopt(); err != nil {
		t.Fatal(err)
	}
	b.ran = nil
	if err := b.boot(Wish{}); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(b.ran, "systemctl restart --no-block holdfast.service") {
		t.Errorf("the supervisor that holds was not told: %v", b.ran)
	}
	if _, v := b.data(); v.content != "written on a" {
		t.Errorf("content %q", v.content)
	}
	if err := b.adopt(); err == nil || !strings.Contains(err.Error(), "nothing is to be adopted") {
		t.Errorf("adopting twice: %v", err)
	}
	if rec, err := slot.Load(b.root); err != nil || rec.Committed.Number != 1 || rec.Committed.Data != firstData {
		t.Errorf("record %+v, %v", rec, err)
	}
	_, v := upWith(t, b, "written on b")

	// Back again: another box was there, so it takes a word, and what runs
	// once in a generation runs again.
	b.detach("vdc")
	a.attach("vdb", disk)
	held(t, a, a.power(Wish{}), "data-foreign", "machine id "+boxB)
	if err := a.power(Wish{Adopt: true}); err != nil {
		t.Fatal(err)
	}
	if _, v = a.data(); v.content != "written on b" {
		t.Errorf("content %q", v.content)
	}
	if rec, err := slot.Load(a.root); err != nil || rec.Committed.Number != 2 || rec.Committed.Data != firstData {
		t.Errorf("record %+v, %v", rec, err)
	}
	if err := a.power(Wish{}); err != nil {
		t.Errorf("its own disk again: %v", err)
	}
}

// trial is a disk of another box that was pulled in the middle of an upgrade.
func trial(t testing.TB) *fakeDisk {
	a := newLVM(t, 4*gib)
	a.attach("vdb", newDisk("vol1", 20*gib))
	_, v := upWith(t, a, "committed")
	disk := a.detach("vdb")
	l := Label{Box: boxA, Generation: 3, Volume: "data-3", Release: "demo", Version: "1.0.0", ReadableFrom: "1.0.0", Trial: 4}
	disk.tags = l.Tags()
	slices.Sort(disk.tags)
	disk.volumes["data-3"], disk.volumes["data-4"] = v, &fakeVolume{bytes: v.bytes, xfs: v.xfs, tag: true, content: "tried"}
	delete(disk.volumes, firstData)
	v.active = false
	return disk
}

func TestTrialGoesBack(t *testing.T) {
	b := newBox(t, boxB, 4*gib)
	disk := trial(t)
	b.attach("vdb", disk)
	held(t, b, b.power(Wish{}), "data-foreign", "release demo 1.0.0")
	if err := b.adopt(); err != nil {
		t.Fatal(err)
	}
	if err := b.boot(Wish{}); err != nil {
		t.Fatal(err)
	}
	_, v := b.data()
	l, err := disk.label()
	if v.content != "committed" || disk.volumes["data-4"] != nil || err != nil || l.Trial != 0 || l.Generation != 3 || l.Box != boxB {
		t.Errorf("label %+v, %v\n%s", l, err, disk)
	}
	if rec, err := slot.Load(b.root); err != nil || rec.Committed.Number != 3 || rec.Committed.Data != "data-3" {
		t.Errorf("record %+v, %v", rec, err)
	}
}

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
			full := s.start(t)
			full.reboot()
			if err := s.run(t, full); err != nil {
				t.Fatal(err)
			}
			s.check(t, full)
			acts := 2 * len(full.ran)
			for first := range acts {
				// The second falls somewhere else after each first.
				for _, second := range []int{-1, first * 5 % acts} {
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
	if v.content != s.content || err != nil || l.Box != f.box || l.Trial != 0 {
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
	if err != nil || rec.Committed.Number != l.Generation || rec.Committed.Data != l.Volume || device(d.group, l.Volume) != f.mounted[dataPlace] {
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
