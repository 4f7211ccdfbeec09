// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/slot/slottest"
)

// foreignDisk is a disk with something on it that is not ours.
func foreignDisk(serial, what string) *fakeDisk {
	d := newDisk(serial, 20*gib)
	d.foreign = what
	return d
}

// lvmDisk is a disk in a volume group that is not ours, or in none.
func lvmDisk(serial, group string) *fakeDisk {
	d := newDisk(serial, 20*gib)
	d.pv, d.known, d.group = "EEEEEE-0000-0000-0000-0000-0000-000001", d.bytes, group
	return d
}

// untouched gives what must not change of the disks of a box.
func untouched(f *fakeLVM) string {
	var out []string
	for kernel, d := range f.disks {
		out = append(out, kernel+" "+d.String())
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

// TestFirstDecision: a box that never ran, and all that may be attached to it.
func TestFirstDecision(t *testing.T) {
	small := newDisk("small", 512*mib)
	tiny := foreignDisk("tiny", "vfat")
	tiny.bytes = 8 * mib
	store, ssd, scsi := newDisk("store", 20*gib), newDisk("ssd", 20*gib), newDisk("scsi", 20*gib)
	store.model, ssd.model, scsi.model = "Amazon EC2 NVMe Instance Storage", "nvme_card", "EphemeralDisk"
	persistent := newDisk("pd", 20*gib)
	persistent.model = "nvme_card-pd"
	locked, noise := newDisk("locked", 20*gib), newDisk("noise", 20*gib)
	locked.readOnly, noise.noise = true, true
	unlabelled := lvmDisk("unlabelled", dataGroup)
	unlabelled.id = "FFFFFF-0000-0000-0000-0000-0000-000001"
	later := trial(t)
	later.tags = []string{"holdfast.format=2"}
	copied := trial(t)
	vol := func() *fakeDisk { return newDisk("vol", 20*gib) }
	named := Wish{Disk: "/dev/disk/by-id/virtio-vol"}
	refused := Wish{Refused: "user-data: line 3: hostnam: unknown key"}
	for _, c := range []struct {
		name  string
		wish  Wish
		disks []*fakeDisk
		// place the data gets, or code and text of why it gets none.
		place, code, text string
	}{
		{name: "nothing", place: onSystem},
		{name: "one empty", disks: []*fakeDisk{vol()}, place: onDisk},
		{name: "a cloud's own disk", disks: []*fakeDisk{persistent}, place: onDisk},
		{name: "an empty one and none wanted", disks: []*fakeDisk{vol()}, wish: Wish{Disk: wishNone}, place: onSystem},
		{name: "two empty", disks: []*fakeDisk{vol(), newDisk("vol2", 20*gib)}, code: "data-choice", text: "/dev/vdb (serial vol, 20 GiB), /dev/vdc (serial vol2, 20 GiB); none was taken"},
		{name: "two empty, one named", disks: []*fakeDisk{newDisk("vol2", 20*gib), vol()}, wish: named, place: onDisk},
		{name: "two empty, none wanted", disks: []*fakeDisk{vol(), newDisk("vol2", 20*gib)}, wish: Wish{Disk: wishNone}, place: onSystem},
		{name: "an empty one among others", disks: []*fakeDisk{foreignDisk("x", "ext4"), vol(), lvmDisk("y", "backup"), store, ssd, scsi, small}, place: onDisk},
		{name: "a file system", disks: []*fakeDisk{foreignDisk("x", "ext4")}, place: onSystem},
		{name: "a partition table", disks: []*fakeDisk{foreignDisk("x", "gpt")}, place: onSystem},
		{name: "data of no known kind", disks: []*fakeDisk{noise}, place: onSystem},
		{name: "somebody's group", disks: []*fakeDisk{lvmDisk("x", "backup")}, place: onSystem},
		{name: "a physical volume that nobody claims", disks: []*fakeDisk{lvmDisk("x", "")}, place: onSystem},
		{name: "a part of a group elsewhere", disks: []*fakeDisk{lvmDisk("x", "[unknown]")}, place: onSystem},
		{name: "another box's system disk", disks: []*fakeDisk{lvmDisk("x", group)}, place: onSystem},
		{name: "ephemeral disks", disks: []*fakeDisk{store, ssd, scsi}, place: onSystem},
		{name: "small", disks: []*fakeDisk{small, tiny}, place: onSystem},
		{name: "read-only", disks: []*fakeDisk{locked}, place: onSystem},
		{name: "named and not attached", wish: named, code: "data-disk-absent", text: "no such disk is attached"},
		{name: "named and in use", disks: []*fakeDisk{foreignDisk("vol", "ext4")}, wish: named, code: "data-disk-unfit", text: "it holds ext4; nothing on it was changed"},
		{name: "named and ephemeral", disks: []*fakeDisk{store}, wish: Wish{Disk: "/dev/disk/by-id/virtio-store"}, code: "data-disk-unfit", text: "loses its content"},
		{name: "named and too small", disks: []*fakeDisk{small}, wish: Wish{Disk: "/dev/disk/by-id/virtio-small"}, code: "data-disk-unfit", text: "at least 1024 MiB"},
		{name: "named and the system disk", wish: Wish{Disk: "/dev/vda"}, code: "data-disk-unfit", text: "vda: no disk that can hold data"},
		{name: "named and a partition", wish: Wish{Disk: "/dev/vda5"}, code: "data-disk-absent", text: "is a partition (vda5)"},
		{name: "another box's", disks: []*fakeDisk{trial(t)}, code: "data-foreign", text: boxA},
		{name: "another box's and an empty one", disks: []*fakeDisk{trial(t), vol()}, code: "data-foreign", text: boxA},
		{name: "another box's, an empty one named", disks: []*fakeDisk{trial(t), vol()}, wish: named, place: onDisk},
		{name: "another box's, named", disks: []*fakeDisk{trial(t), vol()}, wish: Wish{Disk: "/dev/disk/by-id/virtio-vol1"}, code: "data-foreign", text: boxA},
		{name: "another box's and none wanted", disks: []*fakeDisk{trial(t)}, wish: Wish{Disk: wishNone}, place: onSystem},
		{name: "two boxes'", disks: []*fakeDisk{trial(t), trial(t)}, code: "data-two-disks", text: "/dev/vdb (serial vol1, 20 GiB), /dev/vdc (serial vol1, 20 GiB)"},
		{name: "two boxes', adopting", disks: []*fakeDisk{trial(t), trial(t)}, wish: Wish{Adopt: true}, code: "data-two-disks"},
		{name: "a copy, one of the two named", disks: []*fakeDisk{copied, copied.clone("vol")}, wish: Wish{Disk: named.Disk, Adopt: true}, code: "data-two-disks", text: "one is a copy of the other"},
		{name: "our name without a label", disks: []*fakeDisk{unlabelled}, code: "data-disk-damaged", text: "carries no label"},
		{name: "a later system's", disks: []*fakeDisk{later}, code: "data-newer", text: "newer system"},
		{name: "refused configuration", wish: refused, place: onSystem},
		{name: "refused configuration and a disk", wish: refused, disks: []*fakeDisk{vol()}, code: "data-undecided", text: "line 3"},
		{name: "refused configuration and no disk that could be meant", wish: refused, disks: []*fakeDisk{store}, place: onSystem},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newBox(t, boxB, 4*gib)
			slottest.Put(t, f.root, "dev/vda5", "")
			for i, d := range c.disks {
				f.attach("vd"+string(rune('b'+i)), d)
			}
			before := untouched(f)
			err := f.boot(c.wish)
			if c.code != "" {
				held(t, f, err, c.code, c.text)
				if _, err := slot.Load(f.root); !slot.Missing(err) {
					t.Errorf("a held box has a record: %v", err)
				}
				if home, err := (Group{Tags: f.sys.tags}).home(); home != "" || err != nil {
					t.Errorf("a held box has decided for %q, %v", home, err)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if c.place != onDisk {
				if after := untouched(f); after != before {
					t.Errorf("a disk was touched:\n%s\nwas\n%s", after, before)
				}
			}
			if out, err := ReadData(f.root); err != nil || out.Place != c.place || c.place == onDisk && out.Disk.Serial != "vol" && out.Disk.Serial != "pd" {
				t.Errorf("%+v, %v", out, err)
			}
		})
	}
}

// TestLaterBoots: a box whose data has a home, and what may have become of it.
func TestLaterBoots(t *testing.T) {
	for _, c := range []struct {
		name string
		disk bool // the data lives on vdb
		wish Wish
		// change happens while the box is off.
		change     func(f *fakeLVM)
		code, text string
	}{
		{name: "nothing"},
		{name: "nothing, on a disk", disk: true},
		{name: "an empty disk turns up", change: func(f *fakeLVM) { f.attach("vdc", newDisk("late", 20*gib)) }},
		{name: "an empty disk is named late", change: func(f *fakeLVM) { f.attach("vdc", newDisk("late", 20*gib)) }, wish: Wish{Disk: "/dev/disk/by-id/virtio-late"}},
		{name: "another box's disk turns up", change: func(f *fakeLVM) { f.attach("vdc", trial(f.t)) }, wish: Wish{Adopt: true}},
		{name: "another box's disk turns up beside ours", disk: true, change: func(f *fakeLVM) { f.attach("vdc", trial(f.t)) }, wish: Wish{Adopt: true}},
		{name: "the local volume is gone", change: func(f *fakeLVM) { delete(f.sys.volumes, firstData) }, code: "data-missing", text: "volume data-1, which is not there"},
		{name: "the local volume lost its tag", change: func(f *fakeLVM) { f.sys.volumes[firstData].tag = false }, code: "data-missing", text: "data-1"},
		{name: "the local label is gone", change: func(f *fakeLVM) { f.sys.tags = []string{tag(tagHome, homeLocal)} }, code: "data-disk-damaged", text: "no label"},
		{name: "volume and tags are gone", change: func(f *fakeLVM) { f.sys.tags = nil; delete(f.sys.volumes, firstData) }, code: "data-missing", text: "generation 1"},
		{name: "volume and tags are gone, an empty disk is there", change: func(f *fakeLVM) {
			f.sys.tags = nil
			delete(f.sys.volumes, firstData)
			f.attach("vdb", newDisk("new", 20*gib))
		}, code: "data-missing", text: "was not taken in its place"},
		{name: "the disk is gone", disk: true, change: func(f *fakeLVM) { f.detach("vdb") }, code: "data-missing", text: "serial home"},
		{name: "the disk is gone, none is wanted", disk: true, change: func(f *fakeLVM) { f.detach("vdb") }, wish: Wish{Disk: wishNone}, code: "data-missing", text: "serial home"},
		{name: "the disk is replaced by an empty one", disk: true, change: func(f *fakeLVM) { f.detach("vdb"); f.attach("vdb", newDisk("new", 20*gib)) }, code: "data-missing", text: "serial home"},
		{name: "the disk is replaced by another box's", disk: true, change: func(f *fakeLVM) { f.detach("vdb"); f.attach("vdb", trial(f.t)) }, wish: Wish{Adopt: true}, code: "data-missing", text: "another data disk"},
		{name: "the disk was wiped", disk: true, change: func(f *fakeLVM) { f.disks["vdb"].foreign = "ext4" }, code: "data-missing"},
		{name: "its volume is gone", disk: true, change: func(f *fakeLVM) { delete(f.disks["vdb"].volumes, firstData) }, code: "data-missing", text: "volume data-1"},
		{name: "its label is gone", disk: true, change: func(f *fakeLVM) { f.disks["vdb"].tags = nil }, code: "data-disk-damaged", text: "no label"},
		{name: "an empty home of its own is attached", disk: true, change: func(f *fakeLVM) {
			f.sys.tags = nil
			f.disks["vdb"].tags = Label{Box: boxA}.Tags()
		}, code: "data-missing", text: "is empty; the stack is not started on empty volumes"},
		{name: "record and tags are lost, the data is of a later generation", change: func(f *fakeLVM) {
			f.sys.tags = nil
			f.sys.volumes["data-3"] = f.sys.volumes[firstData]
			delete(f.sys.volumes, firstData)
			slottest.NoRecord(t, f.root)
		}, code: "data-missing", text: "data on data-3"},
		{name: "it is read-only", disk: true, change: func(f *fakeLVM) { d := f.detach("vdb"); d.readOnly = true; f.attach("vdb", d) }, code: "data-disk-unfit", text: "read-only"},
		{name: "a copy is attached too", disk: true, change: func(f *fakeLVM) { f.attach("vdc", f.disks["vdb"].clone("copy")) }, code: "data-two-disks", text: "/dev/vdb (serial home, 20 GiB), /dev/vdc (serial copy, 20 GiB)"},
		{name: "it is a copy", disk: true, change: func(f *fakeLVM) { d := f.detach("vdb"); f.attach("vdc", d.clone("copy")) }},
		{name: "it is of another box by now", disk: true, change: func(f *fakeLVM) {
			l := Label{Box: boxB, Generation: 1, Volume: firstData}
			f.disks["vdb"].tags = l.Tags()
		}, code: "data-foreign", text: boxB},
		{name: "it is older", disk: true, change: func(f *fakeLVM) {
			slottest.Record(f.t, f.root, `{"format":1,"committed":{"number":3,"slot":"A","root_hash":"`+slottest.Hash+`","data":"data-3"}}`)
		}, code: "data-disk-older", text: "has generation 1 and this box is at 3"},
		{name: "the record is of a foreign root", change: func(f *fakeLVM) {
			slottest.Record(f.t, f.root, `{"format":1,"committed":{"number":1,"slot":"B","root_hash":"`+slottest.Hash+`","data":"data-1"}}`)
		}, code: "data-failed", text: "not the committed generation"},
		{name: "the record is lost", disk: true, change: func(f *fakeLVM) { slottest.NoRecord(t, f.root) }},
		{name: "the machine id is new", change: func(f *fakeLVM) { f.box = boxB; slottest.Put(f.t, f.root, "etc/machine-id", boxB+"\n") }},
		{name: "configuration names the disk", disk: true, wish: Wish{Disk: "/dev/disk/by-id/virtio-home"}},
		{name: "configuration is refused", disk: true, wish: Wish{Refused: "x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newLVM(t, 4*gib)
			if c.disk {
				f.attach("vdb", newDisk("home", 20*gib))
			}
			upWith(t, f, "entry")
			f.reboot()
			if c.change != nil {
				c.change(f)
			}
			before := untouched(f)
			err := f.boot(c.wish)
			if c.code == "data-failed" {
				if out, rerr := ReadData(f.root); err == nil || rerr != nil || out.Held == nil || !strings.Contains(out.Held.Text, c.text) {
					t.Errorf("%v; %+v, %v", err, out, rerr)
				}
				return
			}
			if c.code != "" {
				held(t, f, err, c.code, c.text)
				if after := untouched(f); after != before {
					t.Errorf("a disk was touched:\n%s\nwas\n%s", after, before)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, v := f.data(); v.content != "entry" {
				t.Errorf("content %q", v.content)
			}
			if d, ok := f.disks["vdc"]; ok && d.serial != "copy" && d.group != "" && d.volumes["data-3"].active {
				t.Error("another box's volume is active")
			}
		})
	}
}

// TestRestoredDisk: an earlier copy of the box's own disk is taken when a
// person says so, under a number that was never used.
func TestRestoredDisk(t *testing.T) {
	f := newLVM(t, 4*gib)
	f.attach("vdb", newDisk("home", 20*gib))
	upWith(t, f, "entry")
	slottest.Record(t, f.root, `{"format":1,"committed":{"number":3,"slot":"A","root_hash":"`+slottest.Hash+`","data":"data-3"}}`)
	held(t, f, f.power(Wish{}), "data-disk-older", "")
	if err := f.adopt(); err != nil {
		t.Fatal(err)
	}
	if err := f.boot(Wish{}); err != nil {
		t.Fatal(err)
	}
	rec, err := slot.Load(f.root)
	if _, v := f.data(); err != nil || v.content != "entry" || rec.Committed.Number != 4 || rec.Committed.Data != firstData {
		t.Errorf("content %q, record %+v, %v", v.content, rec, err)
	}
}

// TestHalfMadeDisk: where the disk that was being made is not to be found, no
// other home is chosen in silence.
func TestHalfMadeDisk(t *testing.T) {
	f := newLVM(t, 4*gib)
	f.attach("vdb", newDisk("home", 20*gib))
	if err := storage(t, f); err != nil {
		t.Fatal(err)
	}
	f.ran, f.cut = nil, 3 // after pvcreate
	if err := f.boot(Wish{}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	f.reboot()
	d := f.detach("vdb")
	held(t, f, f.power(Wish{}), "data-disk-absent", "power failed")
	// One that looks the same but is not.
	other := d.clone("other")
	other.pv = "EEEEEE-0000-0000-0000-0000-0000-000009"
	f.attach("vdb", other)
	held(t, f, f.power(Wish{}), "data-disk-absent", "power failed")
	f.attach("vdc", d)
	if err := f.power(Wish{}); err != nil {
		t.Fatal(err)
	}
	if home, _ := f.data(); home != d || other.group != "" {
		t.Errorf("the data lives on %s", home)
	}
}

// TestNothingToAdopt: a disk without what its label says is left as it is.
func TestNothingToAdopt(t *testing.T) {
	f := newBox(t, boxB, 4*gib)
	d := trial(t)
	delete(d.volumes, "data-3")
	f.attach("vdb", d)
	held(t, f, f.power(Wish{}), "data-foreign", "")
	before := untouched(f)
	if err := f.adopt(); err == nil || !strings.Contains(err.Error(), "volume data-3, which is not there") || untouched(f) != before {
		t.Errorf("%v\n%s", err, untouched(f))
	}
}

// TestTrialIsNotResized: snapshot and origin stay of one size.
func TestTrialIsNotResized(t *testing.T) {
	f := newLVM(t, 4*gib)
	f.attach("vdb", newDisk("home", 20*gib))
	d, v := upWith(t, f, "entry")
	d.volumes["data-2"] = &fakeVolume{bytes: v.bytes, xfs: v.xfs, tag: true}
	d.tags = append(d.tags, tag(tagTrial, "2"))
	was := v.bytes
	f.detach("vdb")
	d.bytes = 60 * gib
	f.attach("vdb", d)
	if err := f.power(Wish{}); err != nil {
		t.Fatal(err)
	}
	if v.bytes != was || d.volumes["data-2"].bytes != was || d.volumes["data-2"].active {
		t.Errorf("snapshot and origin differ, or both are active:\n%s", d)
	}
}

// TestDiskComesBack: the box goes on by itself when its disk is attached.
func TestDiskComesBack(t *testing.T) {
	f := newLVM(t, 4*gib)
	f.attach("vdb", newDisk("home", 20*gib))
	upWith(t, f, "entry")
	f.reboot()
	d := f.detach("vdb")
	held(t, f, f.power(Wish{}), "data-missing", "")
	if err := f.adopt(); err == nil || !strings.Contains(err.Error(), "not attached") {
		t.Errorf("adopting what is not there: %v", err)
	}
	f.attach("vdd", d)
	if err := f.boot(Wish{}); err != nil {
		t.Fatal(err)
	}
	if _, v := f.data(); v.content != "entry" || !slices.Contains(f.ran, "systemctl restart --no-block holdfast.service") {
		t.Errorf("content %q, ran %v", v.content, f.ran)
	}
}

// TestNotes: what is said of disks that are left alone.
func TestNotes(t *testing.T) {
	f := newLVM(t, 4*gib)
	upWith(t, f, "entry")
	store := newDisk("store", 20*gib)
	store.model = "Amazon EC2 NVMe Instance Storage"
	for kernel, d := range map[string]*fakeDisk{"vdb": newDisk("empty", 20*gib), "vdc": foreignDisk("backup", "ext4"), "vdd": trial(t), "vde": store} {
		f.attach(kernel, d)
	}
	if err := f.power(Wish{}); err != nil {
		t.Fatal(err)
	}
	out, err := ReadData(f.root)
	if err != nil || len(out.Others) != 4 {
		t.Fatalf("%+v, %v", out, err)
	}
	var got []string
	for _, c := range out.Conditions {
		if c.Code != "data-disk-unused" || c.Severity != "info" || c.Remedy == "" {
			t.Errorf("%+v", c)
		}
		got = append(got, c.Text)
	}
	want := []string{
		"disk /dev/vdb (serial empty, 20 GiB) is empty and is not used: the data lives on the system disk",
		"disk /dev/vdc (serial backup, 20 GiB) holds ext4 and is not touched",
		fmt.Sprintf("disk /dev/vdd (serial vol1, 20 GiB) holds the data of a box (machine id %s, release demo 1.0.0) and is not used: the data lives on the system disk", boxA),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := f.power(Wish{Disk: wishNone}); err != nil {
		t.Fatal(err)
	}
	if out, err := ReadData(f.root); err != nil || len(out.Conditions) != 0 || len(out.Others) != 4 {
		t.Errorf("none is wanted: %+v, %v", out, err)
	}
}
