// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot/slottest"
)

var errCut = errors.New("the power failed")

const fakeExtent = 4 * mib

// fakeDisk is a model of one disk or partition under LVM and blkid. It
// outlives the boxes it is attached to.
type fakeDisk struct {
	serial, model string
	bytes         int64
	foreign       string // what blkid finds there that is not LVM's
	noise         bool   // data that blkid does not know
	readOnly      bool
	pv            string
	known         int64
	group, id     string
	tags          []string
	volumes       map[string]*fakeVolume
}

type fakeVolume struct {
	bytes, metadata, xfs int64
	active, tag          bool
	// tags are those besides the one that tag stands for; skip is how thin
	// snapshots are made.
	tags []string
	skip bool
	// used is how much of it is mapped, in percent.
	used int
	// content is what a stack wrote there, "" for a new file system.
	content string
}

func newDisk(serial string, bytes int64) *fakeDisk {
	return &fakeDisk{serial: serial, bytes: bytes, volumes: map[string]*fakeVolume{}}
}

// clone is what a copy of a cloud's volume is: the same but for the serial.
func (d *fakeDisk) clone(serial string) *fakeDisk {
	c := *d
	c.serial, c.tags, c.volumes = serial, slices.Clone(d.tags), map[string]*fakeVolume{}
	for name, v := range d.volumes {
		w := *v
		w.active, w.tags = false, slices.Clone(v.tags)
		c.volumes[name] = &w
	}
	return &c
}

func (d *fakeDisk) total() int64 { return (d.known - mib) / fakeExtent * fakeExtent }

func (d *fakeDisk) free() int64 {
	n := d.total()
	if v, ok := d.volumes[pool]; ok {
		n -= v.bytes + 2*v.metadata
	}
	return n
}

func (d *fakeDisk) label() (Label, error) { return ParseLabel(d.tags) }

func (d *fakeDisk) names() []string {
	var names []string
	for name := range d.volumes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (d *fakeDisk) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: pv %q, group %q of %d MiB, tags %q\n", d.serial, d.pv, d.group, d.total()>>20, d.tags)
	for _, name := range d.names() {
		v := d.volumes[name]
		fmt.Fprintf(&b, "  %s %d+%d MiB active=%v xfs=%d tag=%v %q content=%q\n", name, v.bytes>>20, v.metadata>>20, v.active, v.xfs>>20, v.tag, v.tags, v.content)
	}
	return b.String()
}

// fakeLVM is a model of one box: its commands do to its disks what the real
// ones were seen to do, and fail where they would. Beyond that it fails the
// test where a command would do harm: activate, mount or remove what is not
// this box's, or make a file system over data.
type fakeLVM struct {
	t    testing.TB
	root string
	box  string // machine id
	sys  *fakeDisk
	// disks are the other ones, by kernel name.
	disks   map[string]*fakeDisk
	mounted map[string]string
	// ran are the acts since the last boot, without what only looks.
	ran []string
	// cut stops before (even) or after (odd) the act number cut/2; -1 never.
	cut int
}

func newLVM(t testing.TB, bytes int64) *fakeLVM { return newBox(t, boxA, bytes) }

var uuids atomic.Int64

// newBox is a box that was never started.
func newBox(t testing.TB, id string, bytes int64) *fakeLVM {
	f := &fakeLVM{t: t, box: id, sys: newDisk("system", bytes), disks: map[string]*fakeDisk{}, cut: -1}
	f.root = slottest.Box(t, "root-a", "esp", "root-a", "root-b", "factory", "state")
	slottest.Put(t, f.root, "etc/machine-id", id+"\n")
	f.reboot()
	return f
}

func (f *fakeLVM) env() Env { return Env{Root: f.root, Run: f} }

// attach plugs a disk in, and every name that the kernel has for it.
func (f *fakeLVM) attach(kernel string, d *fakeDisk) {
	f.disks[kernel] = d
	dir := "sys/devices/pci0/block/" + kernel
	slottest.Put(f.t, f.root, dir+"/dev", fmt.Sprintf("252:%d\n", 16*int(kernel[2]-'a')))
	slottest.Put(f.t, f.root, dir+"/size", fmt.Sprintln(d.bytes/512))
	slottest.Put(f.t, f.root, dir+"/serial", d.serial)
	slottest.Put(f.t, f.root, dir+"/device/model", d.model+"   \n")
	slottest.Put(f.t, f.root, dir+"/ro", map[bool]string{false: "0\n", true: "1\n"}[d.readOnly])
	link(f.t, f.root, "sys/class/block/"+kernel, "../../devices/pci0/block/"+kernel)
	link(f.t, f.root, "dev/disk/by-id/virtio-"+d.serial, "../../"+kernel)
	slottest.Put(f.t, f.root, "dev/"+kernel, map[bool]string{false: "", true: "noise"}[d.noise])
	if err := os.Truncate(filepath.Join(f.root, "dev", kernel), 4*mib); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fakeLVM) detach(kernel string) *fakeDisk {
	d := f.disks[kernel]
	delete(f.disks, kernel)
	for _, name := range []string{"sys/class/block/" + kernel, "sys/devices/pci0/block/" + kernel, "dev/" + kernel, "dev/disk/by-id/virtio-" + d.serial} {
		if err := os.RemoveAll(filepath.Join(f.root, name)); err != nil {
			f.t.Fatal(err)
		}
	}
	return d
}

func link(t testing.TB, root, name, target string) {
	t.Helper()
	name = filepath.Join(root, name)
	_ = os.Remove(name) // none there is as good
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

// reboot is what a power cut leaves: everything on disk, nothing active or
// mounted, and nothing in /run.
func (f *fakeLVM) reboot() {
	f.cut, f.ran, f.mounted = -1, nil, map[string]string{}
	slottest.Put(f.t, f.root, "proc/sys/kernel/random/boot_id", fmt.Sprintf("00000000-0000-4000-8000-%012d\n", uuids.Add(1)))
	slottest.Put(f.t, f.root, "sys/devices/pci0/block/vda/vda5/size", fmt.Sprintln(f.sys.bytes/512))
	for _, name := range []string{"run", "dev/mapper"} {
		if err := os.RemoveAll(filepath.Join(f.root, name)); err != nil {
			f.t.Fatal(err)
		}
	}
	for _, d := range f.all() {
		for _, v := range d.volumes {
			v.active = false
		}
	}
	f.writeMounts()
}

func (f *fakeLVM) all() map[string]*fakeDisk {
	all := map[string]*fakeDisk{"/dev/vda5": f.sys}
	for kernel, d := range f.disks {
		all["/dev/"+kernel] = d
	}
	return all
}

func (f *fakeLVM) writeMounts() {
	var b strings.Builder
	b.WriteString("22 1 254:0 / / ro,relatime - squashfs /dev/mapper/root ro\n")
	minor := 9
	for place, what := range f.mounted {
		minor++
		dir := "/"
		if place == volumesPlace {
			dir = "/volumes"
		}
		fmt.Fprintf(&b, "31 22 254:%d %s %s rw - xfs %s rw\n", minor, dir, place, what)
		slottest.Put(f.t, f.root, fmt.Sprintf("sys/dev/block/254:%d/dm/name", minor), filepath.Base(what)+"\n")
	}
	slottest.Put(f.t, f.root, "proc/self/mountinfo", b.String())
}

func (f *fakeLVM) Run(_ context.Context, argv ...string) ([]byte, error) {
	if argv[0] == "lvm" && (argv[2] != "--devices" || f.all()[argv[3]] == nil) {
		f.t.Errorf("%v is not confined to one disk", argv)
		return nil, errors.New("not confined")
	}
	if out, seen, err := f.look(argv); seen {
		return out, err
	}
	n := len(f.ran)
	if f.cut == 2*n {
		return nil, errCut
	}
	f.ran = append(f.ran, strings.Join(argv, " "))
	if err := f.change(argv); err != nil {
		return nil, &CommandError{Argv: argv, Code: 5, Text: err.Error()}
	}
	if f.cut == 2*n+1 {
		return nil, errCut
	}
	return nil, nil
}

func (f *fakeLVM) look(argv []string) (out []byte, seen bool, err error) {
	row := func(kind string, rows ...string) ([]byte, bool, error) {
		return fmt.Appendf(nil, `{"report":[{%q:[%s]}],"log":[]}`, kind, strings.Join(rows, ",")), true, nil
	}
	last := argv[len(argv)-1]
	switch argv[0] {
	case "udevadm":
		for kernel, d := range f.disks {
			if last == "--name=/dev/"+kernel {
				return fmt.Appendf(nil, "DEVNAME=/dev/%s\nDEVLINKS=/dev/disk/by-path/pci-%s /dev/disk/by-id/lvm-pv-uuid-x /dev/disk/by-id/virtio-%s\n", kernel, kernel, d.serial), true, nil
			}
		}
		return nil, true, nil
	case "blkid":
		d := f.all()[last]
		switch {
		case d.foreign != "":
			return []byte("DEVNAME=" + last + "\nTYPE=" + d.foreign + "\n"), true, nil
		case d.pv != "":
			return []byte("DEVNAME=" + last + "\nTYPE=LVM2_member\n"), true, nil
		}
		return nil, true, &CommandError{Argv: argv, Code: 2}
	case "lvm":
	default:
		return nil, false, nil
	}
	d := f.all()[argv[3]]
	switch argv[1] {
	case "pvs":
		return row("pv", fmt.Sprintf(`{"vg_name":%q,"pv_uuid":%q,"pv_in_use":"","pv_size":"%d","dev_size":"%d","pe_start":"%d"}`, d.group, d.pv, d.total(), d.bytes, mib))
	case "vgs":
		return row("vg", fmt.Sprintf(`{"vg_uuid":%q,"vg_tags":%q,"vg_exported":"","vg_missing_pv_count":"0","pv_count":"1","vg_size":"%d","vg_free":"%d","vg_extent_size":"%d"}`,
			d.id, strings.Join(d.tags, ","), d.total(), d.free(), fakeExtent))
	case "lvs":
		var rows []string
		for _, name := range d.names() {
			v := d.volumes[name]
			metadata, active, tag := "", "", strings.Join(v.tags, ",")
			if v.metadata > 0 {
				metadata = strconv.FormatInt(v.metadata, 10)
			}
			if v.active {
				active = "active"
			}
			if v.tag {
				tag = strings.Join(append([]string{"other", formatted}, v.tags...), ",")
			}
			rows = append(rows, fmt.Sprintf(`{"lv_name":%q,"lv_size":"%d","lv_tags":%q,"lv_active":%q,"lv_metadata_size":%q,"data_percent":"%d.00","metadata_percent":""}`, name, v.bytes, tag, active, metadata, v.used))
		}
		return row("lv", rows...)
	}
	return nil, false, nil
}
