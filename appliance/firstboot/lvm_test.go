// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var errCut = errors.New("the power failed")

// fakeLVM is a model of one partition under LVM and blkid. It does to itself
// what the real tools were seen to do, and fails where they would.
type fakeLVM struct {
	t       testing.TB
	bytes   int64 // of the partition
	foreign string
	pv      bool
	known   int64
	group   string
	volumes map[string]*fakeVolume
	// ran are the acts since the last boot, without what only looks.
	ran []string
	// cut stops before (even) or after (odd) the act number cut/2; -1 never.
	cut int
}

type fakeVolume struct {
	bytes, metadata  int64
	active, tag, xfs bool
}

const fakeExtent = 4 * mib

func newLVM(t testing.TB, bytes int64) *fakeLVM {
	return &fakeLVM{t: t, bytes: bytes, volumes: map[string]*fakeVolume{}, cut: -1}
}

func (f *fakeLVM) total() int64 { return (f.known - mib) / fakeExtent * fakeExtent }

func (f *fakeLVM) free() int64 {
	n := f.total()
	if v, ok := f.volumes[pool]; ok {
		n -= v.bytes + 2*v.metadata
	}
	return n
}

func (f *fakeLVM) Run(_ context.Context, argv ...string) ([]byte, error) {
	out, seen := f.look(argv)
	if seen {
		return out, nil
	}
	if argv[0] == "blkid" {
		return nil, &CommandError{Argv: argv, Code: 2}
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

func (f *fakeLVM) look(argv []string) ([]byte, bool) {
	row := func(kind string, rows ...string) ([]byte, bool) {
		return fmt.Appendf(nil, `{"report":[{%q:[%s]}],"log":[]}`, kind, strings.Join(rows, ",")), true
	}
	switch {
	case argv[0] == "blkid" && f.foreign != "":
		return []byte("DEVNAME=/dev/vda5\nTYPE=" + f.foreign + "\nPART_ENTRY_NAME=state\n"), true
	case argv[0] == "blkid" && f.pv:
		return []byte("DEVNAME=/dev/vda5\nTYPE=LVM2_member\nPART_ENTRY_NAME=state\n"), true
	case argv[0] == "blkid":
		return []byte("DEVNAME=/dev/vda5\nPART_ENTRY_NAME=state\n"), true
	case argv[0] != "lvm":
		return nil, false
	}
	if argv[2] != "--devices" || argv[3] != "/dev/vda5" {
		f.t.Errorf("%v is not confined to the state partition", argv)
	}
	switch argv[1] {
	case "pvs":
		return row("pv", fmt.Sprintf(`{"vg_name":%q,"pv_size":"%d","dev_size":"%d","pe_start":"%d"}`, f.group, f.total(), f.bytes, mib))
	case "vgs":
		return row("vg", fmt.Sprintf(`{"vg_size":"%d","vg_free":"%d","vg_extent_size":"%d"}`, f.total(), f.free(), fakeExtent))
	case "lvs":
		var rows []string
		for _, name := range f.names() {
			v := f.volumes[name]
			metadata, active, tag := "", "", ""
			if v.metadata > 0 {
				metadata = strconv.FormatInt(v.metadata, 10)
			}
			if v.active {
				active = "active"
			}
			if v.tag {
				tag = "other," + formatted
			}
			rows = append(rows, fmt.Sprintf(`{"lv_name":%q,"lv_size":"%d","lv_tags":%q,"lv_active":%q,"lv_metadata_size":%q}`, name, v.bytes, tag, active, metadata))
		}
		return row("lv", rows...)
	}
	return nil, false
}

func (f *fakeLVM) names() []string {
	var names []string
	for name := range f.volumes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// option gives the value after a flag.
func option(argv []string, flag string) string {
	i := slices.Index(argv, flag)
	if i < 0 || i+1 >= len(argv) {
		return ""
	}
	return argv[i+1]
}

func inNumber(s string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSuffix(s, "b"), 10, 64)
	return n
}

func (f *fakeLVM) change(argv []string) error {
	last := argv[len(argv)-1]
	name := strings.TrimPrefix(last, group+"/")
	switch argv[0] + " " + argv[1] {
	case "lvm pvcreate":
		if f.pv || f.foreign != "" {
			return errors.New("not blank")
		}
		f.pv, f.known = true, f.bytes
	case "lvm vgcreate":
		if !f.pv || f.group != "" {
			return errors.New("no blank physical volume")
		}
		f.group = group
	case "lvm pvresize":
		f.known = f.bytes
	case "lvm lvcreate":
		return f.create(argv)
	case "lvm lvextend":
		return f.extend(argv, name)
	case "lvm lvchange":
		v := f.volumes[name]
		if v == nil {
			return fmt.Errorf("no volume %q", name)
		}
		if option(argv, "--addtag") != "" {
			v.tag = true
		}
		if option(argv, "--activate") == "y" {
			v.active = true
			f.volumes[pool].active = true
		}
	case "mkfs.xfs -q":
		for n, v := range f.volumes {
			if device(n) == last {
				if v.tag {
					return fmt.Errorf("%s was in use", n)
				}
				v.xfs = true
				return nil
			}
		}
		return fmt.Errorf("no device %s", last)
	default:
		return fmt.Errorf("unknown command %v", argv)
	}
	return nil
}

func (f *fakeLVM) create(argv []string) error {
	name := option(argv, "--name")
	if f.volumes[name] != nil {
		return fmt.Errorf("%s already exists", name)
	}
	v := &fakeVolume{active: true, bytes: inNumber(option(argv, "--virtualsize"))}
	if name == pool {
		v.bytes, v.metadata = inNumber(option(argv, "--size")), inNumber(option(argv, "--poolmetadatasize"))
	}
	if v.bytes <= 0 || v.bytes%fakeExtent != 0 || v.metadata%fakeExtent != 0 {
		return fmt.Errorf("bad size %d", v.bytes)
	}
	f.volumes[name] = v
	if f.free() < 0 {
		return errors.New("no room")
	}
	return nil
}

func (f *fakeLVM) extend(argv []string, name string) error {
	v := f.volumes[name]
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
	if f.free() < 0 {
		return errors.New("no room")
	}
	return nil
}

// reboot is what a power cut leaves: everything on disk, nothing active.
func (f *fakeLVM) reboot() {
	f.cut = -1
	f.ran = nil
	for _, v := range f.volumes {
		v.active = false
	}
}

func (f *fakeLVM) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "group %q of %d\n", f.group, f.total()>>20)
	for _, name := range f.names() {
		v := f.volumes[name]
		fmt.Fprintf(&b, "%s %d+%d MiB active=%v xfs=%v tag=%v\n", name, v.bytes>>20, v.metadata>>20, v.active, v.xfs, v.tag)
	}
	return b.String()
}
