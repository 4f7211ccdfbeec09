// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/slot/slottest"
)

// option gives the value after a flag, options all of them.
func option(argv []string, flag string) string {
	if all := options(argv, flag); len(all) > 0 {
		return all[0]
	}
	return ""
}

func options(argv []string, flag string) (all []string) {
	for i, a := range argv {
		if a == flag && i+1 < len(argv) {
			all = append(all, argv[i+1])
		}
	}
	return all
}

func inNumber(s string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSuffix(s, "b"), 10, 64)
	return n
}

// change runs a command that changes something.
func (f *fakeLVM) change(argv []string) error {
	last := argv[len(argv)-1]
	switch argv[0] {
	case "lvm":
		return f.lvm(f.all()[argv[3]], argv, last)
	case "mkfs.xfs":
		d, v, err := f.mapped(last)
		if err != nil {
			return err
		}
		if v.tag || v.content != "" {
			f.t.Errorf("a file system is made over data: %v\n%s", argv, d)
		}
		v.xfs = v.bytes
		f.node(d, last)
	case "mount":
		return f.mount(argv, last)
	case "xfs_growfs":
		_, v, err := f.mapped(f.mounted[last])
		if err != nil {
			return err
		}
		v.xfs = v.bytes
	case "ln":
	case "umount":
		if f.mounted[last] == "" {
			return errors.New("not mounted")
		}
		if last == dataPlace && f.mounted[volumesPlace] != "" {
			return errors.New("target is busy")
		}
		delete(f.mounted, last)
		f.writeMounts()
	case "systemctl":
		f.systemctl(argv)
	default:
		return fmt.Errorf("unknown command %v", argv)
	}
	return nil
}

func (f *fakeLVM) mount(argv []string, last string) error {
	if slices.Contains(argv, "--bind") {
		f.mounted[last] = f.mounted[dataPlace]
		if last != volumesPlace {
			f.mounted[last] = f.mounted["/var"]
		}
		f.writeMounts()
		return nil
	}
	dev := argv[len(argv)-2]
	d, v, err := f.mapped(dev)
	if err != nil {
		return err
	}
	l, err := d.label()
	want := l.Volume
	if rec, rerr := slot.Load(f.root); rerr == nil && rec.Trial != nil && dev == device(d.group, rec.Trial.Data) && l.Trial == rec.Trial.Number {
		want = rec.Trial.Data
		if origin := f.mountedAs(device(d.group, rec.Trial.Origin)); origin != "" {
			f.t.Errorf("%s is mounted, and its origin is at %s", dev, origin)
		}
	}
	if err != nil || l.Box != f.box || l.Generation == 0 || device(d.group, want) != dev || !v.tag {
		f.t.Errorf("%s is mounted, and the label says %+v, %v", dev, l, err)
	}
	if !strings.Contains(option(argv, "-o"), "nouuid") {
		f.t.Errorf("%v: a snapshot has the id of its origin", argv)
	}
	if home, _ := values(f.sys.tags); home[tagHome] != homeLocal && home[tagHome] != d.id || home[tagHome] == "" {
		f.t.Errorf("%s is mounted, and the system disk says that data lives on %q", dev, home[tagHome])
	}
	if v.xfs == 0 {
		return errors.New("no file system")
	}
	f.mounted[last] = dev
	f.writeMounts()
	return nil
}

// mapped is the volume behind a device of /dev/mapper.
func (f *fakeLVM) mapped(dev string) (*fakeDisk, *fakeVolume, error) {
	for _, d := range f.all() {
		for name, v := range d.volumes {
			if v.active && device(d.group, name) == dev {
				return d, v, nil
			}
		}
	}
	return nil, nil, fmt.Errorf("no device %q", dev)
}

// node puts the volume where the program reads its superblock.
func (f *fakeLVM) node(d *fakeDisk, dev string) {
	_, v, err := f.mapped(dev)
	if err != nil {
		return
	}
	text := ""
	if v.xfs > 0 {
		text = superblock(v.xfs)
	}
	slottest.Put(f.t, f.root, dev, text)
	if err := os.Truncate(filepath.Join(f.root, dev), v.bytes); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fakeLVM) lvm(d *fakeDisk, argv []string, last string) error {
	name := strings.TrimPrefix(last, d.group+"/")
	switch argv[1] {
	case "pvcreate":
		if d.pv != "" || d.foreign != "" || d.noise || d.readOnly {
			f.t.Errorf("%v on a disk that is not empty:\n%s", argv, d)
		}
		d.pv, d.known = fmt.Sprintf("AAAAAA-0000-0000-0000-0000-0000-%06d", uuids.Add(1)), d.bytes
		if id := option(argv, "--uuid"); id != "" {
			if !pvShape.MatchString(id) {
				return fmt.Errorf("%q is no id", id)
			}
			d.pv = id
		}
	case "vgcreate":
		if d.pv == "" || d.group != "" {
			return errors.New("no blank physical volume")
		}
		d.group, d.id, d.tags = argv[len(argv)-2], fmt.Sprintf("BBBBBB-0000-0000-0000-0000-0000-%06d", uuids.Add(1)), options(argv, "--addtag")
	case "vgchange":
		if last != d.group {
			return fmt.Errorf("no group %s", last)
		}
		d.tags = slices.DeleteFunc(d.tags, func(t string) bool { return slices.Contains(options(argv, "--deltag"), t) })
		d.tags = append(d.tags, options(argv, "--addtag")...)
		slices.Sort(d.tags)
	case "pvresize":
		d.known = d.bytes
	case "lvcreate":
		return f.create(d, argv)
	case "lvextend":
		return f.extend(d, argv, name)
	case "lvremove":
		if v := d.volumes[name]; v == nil {
			return fmt.Errorf("no volume %q", name)
		}
		f.remove(d, argv, name)
	case "lvchange":
		return f.lvchange(d, argv, name)
	default:
		return fmt.Errorf("unknown command %v", argv)
	}
	return nil
}

func (f *fakeLVM) lvchange(d *fakeDisk, argv []string, name string) error {
	v := d.volumes[name]
	if v == nil {
		return fmt.Errorf("no volume %q", name)
	}
	for _, gone := range options(argv, "--deltag") {
		v.tags = slices.DeleteFunc(v.tags, func(t string) bool { return t == gone })
	}
	v.addTags(options(argv, "--addtag"))
	if option(argv, "--activate") == "y" {
		if l, err := d.label(); d != f.sys && (err != nil || l.Box != f.box) {
			f.t.Errorf("%v activates what is not this box's: %+v, %v", argv, l, err)
		}
		if v.skip && !slices.Contains(argv, "--ignoreactivationskip") {
			return nil
		}
		v.active = true
		d.volumes[pool].active = true
		f.node(d, device(d.group, name))
	}
	return nil
}

func (v *fakeVolume) addTags(tags []string) {
	for _, t := range tags {
		if t == formatted {
			v.tag = true
		} else if !slices.Contains(v.tags, t) {
			v.tags = append(v.tags, t)
		}
	}
}

// mountedAs is where a device is mounted, "" for nowhere.
func (f *fakeLVM) mountedAs(dev string) string {
	for place, what := range f.mounted {
		if what == dev {
			return place
		}
	}
	return ""
}

// remove drops a volume. Data goes only where no generation of this box needs
// it: that of another box's trial, or what the record does not name.
func (f *fakeLVM) remove(d *fakeDisk, argv []string, name string) {
	l, err := d.label()
	if err != nil || name == l.Volume || f.mountedAs(device(d.group, name)) != "" {
		f.t.Errorf("%v, and the label says %+v, %v, mounted are %v", argv, l, err, f.mounted)
	}
	if rec, err := slot.Load(f.root); err == nil && l.Box == f.box && (name == rec.Committed.Data || rec.Kept != nil && name == rec.Kept.Data) {
		f.t.Errorf("%v, and the record is %+v", argv, rec)
	}
	delete(d.volumes, name)
}

// snapshot copies a volume as it is at that moment.
func (f *fakeLVM) snapshot(d *fakeDisk, argv []string) error {
	name := option(argv, "--name")
	origin := d.volumes[strings.TrimPrefix(argv[len(argv)-1], d.group+"/")]
	if origin == nil || d.volumes[name] != nil {
		return fmt.Errorf("no origin, or %s is there", name)
	}
	v := &fakeVolume{bytes: origin.bytes, xfs: origin.xfs, content: origin.content, skip: true}
	v.addTags(options(argv, "--addtag"))
	d.volumes[name] = v
	return nil
}

// systemctl starts and stops the engine, which has a file of the volumes open.
func (f *fakeLVM) systemctl(argv []string) {
	if argv[1] == "start" && slices.Contains(argv, "docker.service") && f.mounted[volumesPlace] == "" {
		f.t.Errorf("%v without volumes: %v", argv, f.mounted)
	}
}

func (f *fakeLVM) create(d *fakeDisk, argv []string) error {
	name := option(argv, "--name")
	if slices.Contains(argv, "--snapshot") {
		return f.snapshot(d, argv)
	}
	if d.volumes[name] != nil {
		return fmt.Errorf("%s already exists", name)
	}
	v := &fakeVolume{active: true, bytes: inNumber(option(argv, "--virtualsize"))}
	if name == pool {
		v.bytes, v.metadata = inNumber(option(argv, "--size")), inNumber(option(argv, "--poolmetadatasize"))
	}
	if v.bytes <= 0 || v.bytes%fakeExtent != 0 || v.metadata%fakeExtent != 0 {
		return fmt.Errorf("bad size %d", v.bytes)
	}
	d.volumes[name] = v
	if d.free() < 0 {
		return errors.New("no room")
	}
	f.node(d, device(d.group, name))
	return nil
}

func (f *fakeLVM) extend(d *fakeDisk, argv []string, name string) error {
	v := d.volumes[name]
	if v == nil {
		return fmt.Errorf("no volume %q", name)
	}
	if s := option(argv, "--poolmetadatasize"); s != "" {
		v.metadata = inNumber(s)
	} else if n := inNumber(option(argv, "--size")); n > v.bytes {
		v.bytes = n
	} else {
		return errors.New("matches existing size")
	}
	if d.free() < 0 {
		return errors.New("no room")
	}
	f.node(d, device(d.group, name))
	return nil
}
