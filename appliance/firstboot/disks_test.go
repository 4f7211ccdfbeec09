// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/slot/slottest"
)

// look observes the disks of a box.
func look(t *testing.T, f *fakeLVM) map[string]Disk {
	t.Helper()
	root, err := slot.Running(f.root)
	if err != nil {
		t.Fatal(err)
	}
	disks, err := observeDisks(context.Background(), f.env(), root)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]Disk{}
	for _, d := range disks {
		out[d.Kernel] = d
	}
	return out
}

func TestOnlyDisksAreLookedAt(t *testing.T) {
	f := newLVM(t, 4*gib)
	for _, kernel := range []string{"loop0", "ram0", "zram0", "dm-3", "md127", "sr0", "nbd0", "fd0", "mmcblk0", "nvme0c0n1", "vdb1", "vdbx9"} {
		slottest.Put(t, f.root, "sys/devices/pci0/block/"+kernel+"/size", "99999999\n")
		link(t, f.root, "sys/class/block/"+kernel, "../../devices/pci0/block/"+kernel)
	}
	slottest.Put(t, f.root, "sys/devices/pci0/block/vda/size", "99999999\n")
	for _, kernel := range []string{"vdb", "sdaa", "xvdf", "nvme12n3"} {
		f.attach(kernel, newDisk("serial-"+kernel, 20*gib))
	}
	got := look(t, f)
	if len(got) != 4 {
		t.Errorf("looked at %v", got)
	}
	for kernel, d := range got {
		if !d.empty() || d.ID != "/dev/disk/by-id/virtio-serial-"+kernel || d.Name != "/dev/"+kernel {
			t.Errorf("%+v", d)
		}
	}
}

// TestEmpty: each thing that makes a disk not empty, alone.
func TestEmpty(t *testing.T) {
	const dir = "sys/devices/pci0/block/vdb/"
	write := func(f *fakeLVM, at int64) {
		file, err := os.OpenFile(filepath.Join(f.root, "dev/vdb"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.WriteAt([]byte{1}, at); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, unfit, found string
		change             func(f *fakeLVM)
	}{
		{name: "empty", change: func(*fakeLVM) {}},
		{name: "one byte at the start", found: "nobody knows", change: func(f *fakeLVM) { write(f, 0) }},
		{name: "one byte at the end of the first MiB", found: "nobody knows", change: func(f *fakeLVM) { write(f, mib-1) }},
		{name: "one byte at the start of the last MiB", found: "nobody knows", change: func(f *fakeLVM) { write(f, 3*mib) }},
		{name: "one byte at the end", found: "nobody knows", change: func(f *fakeLVM) { write(f, 4*mib-1) }},
		{name: "cannot be read", found: "nobody knows", change: func(f *fakeLVM) { _ = os.Remove(filepath.Join(f.root, "dev/vdb")) }},
		{name: "a partition", found: "1 partitions", change: func(f *fakeLVM) { slottest.Put(t, f.root, dir+"vdb1/partition", "1\n") }},
		{name: "mounted", found: "mounted", change: func(f *fakeLVM) {
			slottest.Put(t, f.root, "proc/self/mountinfo", "22 1 254:0 / / ro - squashfs /dev/mapper/root ro\n40 22 252:16 / /mnt rw - ext4 /dev/vdb rw\n")
		}},
		{name: "under a device", found: "dm-7", change: func(f *fakeLVM) { slottest.Put(t, f.root, dir+"holders/dm-7", "") }},
		{name: "a file system", found: "xfs", change: func(f *fakeLVM) { f.disks["vdb"].foreign = "xfs" }},
		{name: "removable", unfit: "removable", change: func(f *fakeLVM) { slottest.Put(t, f.root, dir+"removable", "1\n") }},
		{name: "read-only", unfit: "read-only", change: func(f *fakeLVM) { slottest.Put(t, f.root, dir+"ro", "1\n") }},
		{name: "a tape", unfit: "type 1", change: func(f *fakeLVM) { slottest.Put(t, f.root, dir+"device/type", "1\n") }},
		{name: "no medium", unfit: "no medium", change: func(f *fakeLVM) { slottest.Put(t, f.root, dir+"size", "0\n") }},
		{name: "small", unfit: "at least 1024 MiB", change: func(f *fakeLVM) { slottest.Put(t, f.root, dir+"size", "2097151\n") }},
		{name: "instance store", unfit: "stopped", change: func(f *fakeLVM) {
			slottest.Put(t, f.root, dir+"device/model", "Amazon EC2 NVMe Instance Storage        \n")
		}},
		{name: "local SSD", unfit: "stopped", change: func(f *fakeLVM) { slottest.Put(t, f.root, dir+"device/model", "nvme_card3\n") }},
	} {
		f := newLVM(t, 4*gib)
		f.attach("vdb", newDisk("s", 20*gib))
		c.change(f)
		d := look(t, f)["vdb"]
		if d.empty() != (c.unfit == "" && c.found == "") || !strings.Contains(d.Unfit, c.unfit) || !strings.Contains(d.Found, c.found) {
			t.Errorf("%s: empty %v, unfit %q, found %q", c.name, d.empty(), d.Unfit, d.Found)
		}
	}
}

// TestUnreadableGroup: a disk that LVM cannot read is named, and stops nobody
// who does not need it.
func TestUnreadableGroup(t *testing.T) {
	f := newLVM(t, 4*gib)
	f.attach("vdb", lvmDisk("bad", "backup"))
	run := failing{f, "lvm pvs --devices /dev/vdb"}
	root, err := slot.Running(f.root)
	if err != nil {
		t.Fatal(err)
	}
	disks, err := observeDisks(context.Background(), Env{Root: f.root, Run: run}, root)
	if err != nil || len(disks) != 1 || disks[0].empty() || disks[0].Name != "/dev/vdb" || disks[0].Bytes != 20*gib || !strings.Contains(disks[0].Trouble, "checksum") {
		t.Errorf("%+v, %v", disks, err)
	}
	// At the first start it may be the disk that is meant; later it is not
	// asked.
	boot := func(wish Wish) error {
		env := Env{Root: f.root, Run: run, Wish: func() Wish { return wish }}
		f.reboot()
		if err := Storage(context.Background(), env); err != nil {
			t.Fatal(err)
		}
		return Data(context.Background(), env)
	}
	held(t, f, boot(Wish{}), "data-disk-damaged", "checksum")
	if err := boot(Wish{Disk: wishNone}); err != nil {
		t.Error(err)
	}
	if err := boot(Wish{}); err != nil {
		t.Error(err)
	}
}

type failing struct {
	f      *fakeLVM
	prefix string
}

func (r failing) Run(ctx context.Context, argv ...string) ([]byte, error) {
	if strings.HasPrefix(strings.Join(argv, " "), r.prefix) {
		return nil, &CommandError{Argv: argv, Code: 5, Text: "checksum error"}
	}
	return r.f.Run(ctx, argv...)
}

func TestNewPV(t *testing.T) {
	seen := map[string]bool{}
	for i := range 50 {
		id, err := newPV(bytes.NewReader(bytes.Repeat([]byte{byte(i), 250, 17, 61}, 64)))
		if err != nil || !pvShape.MatchString(id) || seen[id] {
			t.Errorf("%q, %v", id, err)
		}
		seen[id] = true
	}
	if _, err := newPV(bytes.NewReader(nil)); err == nil {
		t.Error("an id without chance")
	}
}
