// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"errors"
	"fmt"
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
mount -t xfs -o prjquota,nodev,nosuid,nouuid /dev/mapper/holdfast-data--1 /var/lib/holdfast/data
ln --symbolic --force --no-dereference /var/lib/docker/volumes.db /var/lib/holdfast/data/volumes/metadata.db
mount --make-private --bind /var/lib/holdfast/engines/default/docker /var/lib/docker
mount --make-private --bind /var/lib/holdfast/engines/default/containerd /var/lib/containerd
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
lvcreate --yes --type thin-pool --name pool --size 21277704192b --poolmetadatasize 41943040b --chunksize 131072b --poolmetadataspare y holdfast-data
lvcreate --yes --type thin --name data-1 --virtualsize 17024679936b --wipesignatures y --thinpool pool holdfast-data
mkfs.xfs -q -f -K -L data-1 /dev/mapper/holdfast--data-data--1
lvchange --yes --addtag holdfast.formatted holdfast-data/data-1
vgchange --addtag holdfast.generation=1 --addtag holdfast.volume=data-1 holdfast-data
mount -t xfs -o prjquota,nodev,nosuid,nouuid /dev/mapper/holdfast--data-data--1 /var/lib/holdfast/data
xfs_growfs -d /var
ln --symbolic --force --no-dereference /var/lib/docker/volumes.db /var/lib/holdfast/data/volumes/metadata.db
mount --make-private --bind /var/lib/holdfast/engines/default/docker /var/lib/docker
mount --make-private --bind /var/lib/holdfast/engines/default/containerd /var/lib/containerd
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
	b.reboot()
	was := disk.String()
	held(t, b, b.power(Wish{}), "data-foreign", "machine id "+boxA)
	if disk.String() != was || strings.Contains(strings.Join(b.ran, "\n"), "/dev/vdc") {
		t.Errorf("a foreign disk was touched:\n%s%s", disk, strings.Join(b.ran, "\n"))
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
	upWith(t, b, "written on b")

	// Back again: another box was there, so it takes a word, and what runs
	// once in a generation runs again.
	b.detach("vdc")
	a.attach("vdb", disk)
	held(t, a, a.power(Wish{}), "data-foreign", "machine id "+boxB)
	if err := a.power(Wish{Adopt: true}); err != nil {
		t.Fatal(err)
	}
	if _, v := a.data(); v.content != "written on b" {
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
	d := newDisk("vol1", 20*gib)
	d.pv, d.known, d.group = fmt.Sprintf("CCCCCC-0000-0000-0000-0000-0000-%06d", uuids.Add(1)), d.bytes, dataGroup
	d.id = "D" + d.pv[1:]
	d.tags = Label{Box: boxA, Generation: 3, Volume: "data-3", Release: "demo", Version: "1.0.0", ReadableFrom: "1.0.0", Trial: 4}.Tags()
	want, err := Share(d.total(), fakeExtent, DataOnly)
	if err != nil {
		t.Fatal(err)
	}
	d.volumes[pool] = &fakeVolume{bytes: want.Pool, metadata: want.Metadata}
	d.volumes["data-3"] = &fakeVolume{bytes: want.Data, xfs: want.Data, tag: true, content: "committed"}
	d.volumes["data-4"] = &fakeVolume{bytes: want.Data, xfs: want.Data, tag: true, content: "tried"}
	return d
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
