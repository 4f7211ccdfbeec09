// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// dataDisk is the size of data disks under test.
const dataDisk = 4 << 30

// TestDataDisk is the life of one data disk, on two clouds, which configure
// their boxes: an empty one becomes the home of a box's data on EC2, the box is
// thrown away, a second one on Google Cloud finds the disk and holds
// until it is told to adopt it, and goes on with what was written. Started
// without the disk it holds again, and goes on by itself once it is plugged
// in. A third disk, with somebody's file system on it, is named and left alone.
func TestDataDisk(t *testing.T) {
	if !soak {
		t.Skip("left out: only in `make soak`; appliance/firstboot tries each step and each cut of it in a model")
	}
	dir := t.TempDir()
	home, err := NewDisk(t.Context(), tree, dir, "home", dataDisk)
	if err != nil {
		t.Fatal(err)
	}
	theirs := somebodys(t, dir)
	first := newBox(t, "")
	imds := onEC2(t, first)
	first.opts.Disks = []ExtraDisk{{Path: home, Serial: "home-0001", NVMe: true}}
	first.start()
	first.complete(0, 1)
	checkHealthy(first)
	d := first.data()
	if d.Place != "data-disk" || d.Disk == nil || d.Disk.Serial != "home-0001" || d.Disk.Bytes != dataDisk || d.Held != nil {
		t.Fatalf("%+v", d)
	}
	if d.Label.Release != image.Manifest.Name || d.Label.Version != image.Manifest.Version || d.Label.Box != first.report().MachineID {
		t.Errorf("label %+v", d.Label)
	}
	for _, place := range []string{"/var/lib/holdfast/data", "/var/lib/docker/volumes"} {
		if got := first.run("findmnt -no SOURCE " + place); !strings.HasPrefix(got, "/dev/mapper/holdfast--data-data--1") {
			t.Errorf("%s is %s", place, got)
		}
	}
	if got := first.run("lvm lvs --noheadings -o vg_name,lv_name"); strings.Contains(got, "holdfast      data-1") {
		t.Errorf("the system disk has data too:\n%s", got)
	}
	secret := first.run("cd /var/lib/holdfast/data/secrets && sha256sum *")
	signBook(first)
	checkEC2(first, imds)
	first.off()

	second := newBox(t, "")
	metadata := onGoogle(t, second) // its disk controller takes a disk while it runs
	second.opts.Disks = []ExtraDisk{{Path: theirs, Serial: "theirs", NVMe: true}, {Path: home, Serial: "home-0001"}}
	second.start()
	second.said(0, `holdfast: the stack is held: the data disk .* was last used by another box`)
	if _, err := second.Shell.Ready(second.within(bootTime, "a boot"), 1); err != nil {
		t.Fatal(err)
	}
	r := second.report()
	if r.Stack != "held" || !slices.ContainsFunc(r.Conditions, func(c status.Condition) bool { return c.Code == "data-foreign" }) {
		t.Errorf("stack %s, conditions %+v", r.Stack, r.Conditions)
	}
	if got := second.run("dmsetup ls"); strings.Contains(got, "holdfast--data") {
		t.Errorf("volumes of the other box are active:\n%s", got)
	}
	if out, code := second.try("timeout 60 docker ps"); code == 0 || code == 124 {
		t.Errorf("the engine runs without data: %s", out)
	}
	t.Log(second.run("holdfast data"))
	t.Log(second.run("holdfast data adopt"))
	if out, code := second.try(fmt.Sprintf("holdfast wait-healthy --timeout %s", bootTime)); code != 0 {
		t.Fatalf("the adopted stack is not healthy: %s\n%s", out, second.diagnose())
	}
	checkBook(second)
	if got := second.run("cd /var/lib/holdfast/data/secrets && sha256sum *"); got != secret {
		t.Errorf("secrets are\n%s\nand were\n%s", got, secret)
	}
	second.off()

	// The same box without its disk, which is then plugged in.
	second.opts.Disks = second.opts.Disks[:1]
	second.start()
	second.said(0, `holdfast: the stack is held: the data lives on the data disk .*home-0001.* not attached`)
	if _, err := second.Shell.Ready(second.within(bootTime, "a boot"), 1); err != nil {
		t.Fatal(err)
	}
	mark := second.Console.Mark()
	for _, c := range []string{"drive_add 0 if=none,id=late,format=qcow2,cache=writeback,file=" + home, "device_add scsi-hd,id=late0,bus=scsi0.0,drive=late,serial=home-0001"} {
		if out, err := second.QMP.Monitor(t.Context(), c); err != nil {
			t.Fatalf("%s: %v %s", c, err, out)
		}
	}
	second.complete(mark, 1)
	checkHealthy(second)
	checkBook(second)
	if d = second.data(); d.Place != "data-disk" || d.Label.Box != second.report().MachineID || len(d.Others) != 1 || d.Others[0].Holds != "ext4" {
		t.Errorf("%+v", d)
	}
	if !slices.ContainsFunc(second.report().Conditions, func(c status.Condition) bool {
		return c.Code == "data-disk-unused" && strings.Contains(c.Text, "holds ext4 and is not touched")
	}) {
		t.Errorf("nothing is said of the third disk: %+v", second.report().Conditions)
	}
	t.Log(second.run("holdfast data"))
	checkGoogle(second, metadata)
	second.off()
	if out, err := tree.run(t.Context(), "qemu-img", "compare", "-s", theirs, theirs+".copy"); err != nil {
		t.Errorf("the third disk was changed: %s", out)
	}
}

// data is `holdfast data --json`, read strictly.
func (b *box) data() status.DataDisk {
	b.t.Helper()
	var d status.DataDisk
	dec := json.NewDecoder(strings.NewReader(b.run("holdfast data --json")))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		b.t.Fatal(err)
	}
	return d
}

// somebodys is a disk with what blkid knows an ext4 by: magic, revision, a
// journal and extents in the superblock at byte 1024 (ext4's layout in the
// kernel's documentation). A copy lies beside it.
func somebodys(t *testing.T, dir string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	disk, err := NewDisk(ctx, tree, dir, "theirs", dataDisk)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-f", "qcow2"}
	for _, b := range []struct{ at, value int }{{0x38, 0x53}, {0x39, 0xef}, {0x4c, 1}, {0x5c, 4}, {0x60, 0x40}} {
		args = append(args, "-c", fmt.Sprintf("write -P %d %d 1", b.value, 1024+b.at))
	}
	if _, err := tree.run(ctx, "qemu-io", append(args, disk)...); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(disk)+".copy"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return disk
}
