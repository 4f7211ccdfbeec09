// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"fmt"
	"slices"
	"strings"
)

const (
	group     = "holdfast"
	dataGroup = "holdfast-data"
	pool      = "pool"
	stateName = "state"
	firstData = "data-1"
	dataStem  = "data-"

	// formatted is the tag that a volume gets once its file system is whole.
	// Without it a volume was never mounted and may be formatted (again).
	formatted = "holdfast.formatted"
)

// Device is a partition or a disk as it is found.
type Device struct {
	// Name is the device, "/dev/vda5"; Bytes its size.
	Name  string
	Bytes int64
	// Holds is blkid's word for what is on it, "" when nothing is.
	Holds string
	// PV is the id of the physical volume that it is, "" for none; Owner the
	// name of the volume group that one belongs to, "" for none.
	PV, Owner string
	// Group is that group, where it is the one that was looked for.
	Group *Group
}

// Group is a volume group that lies on one device.
type Group struct {
	// Dev is the only device that LVM is shown, Bytes its size.
	Dev   string
	Bytes int64
	// Name and ID of the group.
	Name, ID string
	Tags     []string
	// Broken is why it cannot be used as it is: parts of it lie elsewhere,
	// or it was exported. "" for a group that is whole.
	Broken string
	// Known is the device's size as LVM last took it, in bytes.
	Known int64
	// Total, Free and Extent of the group, in bytes.
	Total, Free, Extent int64
	Volumes             []Volume
}

// Volume is one logical volume.
type Volume struct {
	Name   string
	Bytes  int64
	Active bool
	// Formatted is true when it carries the tag.
	Formatted bool
	// Tags are all of them.
	Tags []string
	// Metadata is the pool's metadata size in bytes, 0 for others.
	Metadata int64
}

func (g Group) volume(name string) (Volume, bool) {
	i := slices.IndexFunc(g.Volumes, func(v Volume) bool { return v.Name == name })
	if i < 0 {
		return Volume{}, false
	}
	return g.Volumes[i], true
}

func (g Group) data() []Volume {
	var out []Volume
	for _, v := range g.Volumes {
		if strings.HasPrefix(v.Name, dataStem) {
			out = append(out, v)
		}
	}
	return out
}

// home is where the data lives, as the system disk's group says: "" while
// that is not decided, homeLocal, or the id of the data disk's group.
func (g Group) home() (string, error) {
	v, err := values(g.Tags)
	return v[tagHome], err
}

// PlanStorage says what to do next to the state partition; no steps means it
// is as it should be. It plans only as far as sizes are known: the caller
// observes again after each plan. It is pure. Data is not its business: where
// that lives is decided later, when the box has its configuration.
func PlanStorage(d Device) ([]Step, error) {
	if err := refuse(d); err != nil {
		return nil, err
	}
	if d.Group == nil {
		return claim(d), nil
	}
	home, err := d.Group.home()
	if err != nil {
		return nil, fmt.Errorf("partition %s (state): %w; remove one of them from a rescue system", d.Name, err)
	}
	use := StateOnly
	if home == "" || home == homeLocal {
		use = Both
	}
	p := planner{g: *d.Group}
	want, ready, err := p.room(use, "state")
	if err != nil || !ready {
		return p.steps, err
	}
	p.volume(stateName, want.State, fmt.Sprintf("volume state (%s) for the system", size(want.State)))
	return p.steps, nil
}

// refuse keeps everything that is not ours.
func refuse(d Device) error {
	switch {
	case d.Holds == "" || d.Holds == lvmMember && (d.Owner == "" || d.Owner == group):
		return nil
	case d.Holds == lvmMember:
		return fmt.Errorf("partition %s (state) belongs to the volume group %q, which Holdfast did not make; nothing was changed. If it is to be given up, run wipefs -a %s from a rescue system", d.Name, d.Owner, d.Name)
	}
	return fmt.Errorf("partition %s (state) holds %s, which Holdfast did not make; nothing was changed. If it is to be given up, run wipefs -a %s from a rescue system", d.Name, d.Holds, d.Name)
}

func claim(d Device) []Step {
	p := planner{g: Group{Dev: d.Name}}
	if d.Holds == "" {
		p.lvm(fmt.Sprintf("making state on %s (%s)", d.Name, size(d.Bytes)), "pvcreate", "--yes", d.Name)
	}
	// A cut before this one leaves a physical volume without a group, which
	// holds nothing by definition: the next boot takes it from there.
	p.lvm("", "vgcreate", "--yes", group, d.Name)
	return p.steps
}

// planner collects the steps for one group.
type planner struct {
	g     Group
	steps []Step
}

// lvm restricts each command to the group's own device: a second disk with a
// group of the same name can't be mistaken for it.
func (p *planner) lvm(text, verb string, args ...string) {
	argv := append([]string{"lvm", verb, "--devices", p.g.Dev}, args...)
	p.steps = append(p.steps, Step{Text: text, Argv: argv})
}

// tags changes tags of the group, in one command.
func (p *planner) tags(text string, options []string) {
	if len(options) > 0 {
		p.lvm(text, "vgchange", append(slices.Clone(options), p.g.Name)...)
	}
}

// room makes and grows the pool. It is ready when the sizes of the volumes
// are known and there is a pool to make them in.
func (p *planner) room(use Use, what string) (want Sizes, ready bool, err error) {
	g := p.g
	// A device that has grown: LVM has to be told before the shares are
	// worked out. A cut after it only leaves free room.
	if g.Bytes-g.Known >= g.Extent {
		p.lvm(fmt.Sprintf("growing %s to %s", what, size(g.Bytes)), "pvresize", "--yes", g.Dev)
		return Sizes{}, false, nil
	}
	if want, err = Share(g.Total, g.Extent, use); err != nil {
		return Sizes{}, false, err
	}
	thin, ok := g.volume(pool)
	if !ok {
		p.lvm("", "lvcreate", "--yes", "--type", "thin-pool", "--name", pool, "--size", inBytes(want.Pool), "--poolmetadatasize", inBytes(want.Metadata),
			"--chunksize", inBytes(chunk), "--poolmetadataspare", "y", g.Name)
		return Sizes{}, false, nil
	}
	p.growPool(thin, want)
	return want, true, nil
}

func (p *planner) growPool(thin Volume, want Sizes) {
	full := p.g.Name + "/" + pool
	// Metadata before room: a cut between them leaves more metadata than is
	// needed, the other way round the pool could not map what it has.
	if thin.Metadata < want.Metadata {
		p.lvm("", "lvextend", "--yes", "--poolmetadatasize", inBytes(want.Metadata), full)
	}
	if thin.Bytes < want.Pool {
		p.lvm("", "lvextend", "--yes", "--size", inBytes(want.Pool), full)
	}
}

// volume makes, grows, activates and formats one thin volume. The tag comes
// last: a cut anywhere before it leaves a volume without the tag, which holds
// nothing anyone has seen, and is formatted anew.
func (p *planner) volume(name string, want int64, text string) {
	v, ok := p.g.volume(name)
	full := p.g.Name + "/" + name
	if !ok {
		p.lvm(text, "lvcreate", "--yes", "--type", "thin", "--name", name, "--virtualsize", inBytes(want), "--wipesignatures", "y", "--thinpool", pool, p.g.Name)
		v = Volume{Bytes: want, Active: true}
	}
	p.grow(v, want, full)
	p.activate(v, full)
	if !v.Formatted {
		p.steps = append(p.steps, Step{Argv: []string{"mkfs.xfs", "-q", "-f", "-K", "-L", name, device(p.g.Name, name)}})
		p.lvm("", "lvchange", "--yes", "--addtag", formatted, full)
	}
}

func (p *planner) grow(v Volume, want int64, full string) {
	if v.Bytes < want {
		p.lvm("", "lvextend", "--yes", "--size", inBytes(want), full)
	}
}

// activate makes the device of a volume. Thin snapshots are made so that they
// are skipped (lvmthin(7)); data that was one once is meant all the same.
func (p *planner) activate(v Volume, full string) {
	if !v.Active {
		p.lvm("", "lvchange", "--yes", "--activate", "y", "--ignoreactivationskip", full)
	}
}

// device is the device-mapper name of a volume: dashes are doubled.
func device(group, volume string) string { return "/dev/mapper/" + mapperName(group, volume) }

func mapperName(group, volume string) string {
	double := func(s string) string { return strings.ReplaceAll(s, "-", "--") }
	return double(group) + "-" + double(volume)
}

func inBytes(n int64) string { return fmt.Sprintf("%db", n) }
