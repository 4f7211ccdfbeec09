// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"fmt"
	"slices"
	"strings"
)

const (
	group     = "holdfast"
	pool      = "pool"
	stateName = "state"
	firstData = "data-1"
	dataStem  = "data-"

	// formatted is the tag that a volume gets once its file system is whole.
	// Without it a volume was never mounted and may be formatted (again).
	formatted = "holdfast.formatted"
)

// Disk is the state partition as it is found.
type Disk struct {
	// Name is the partition's device, "/dev/vda5"; Bytes its size.
	Name  string
	Bytes int64
	// Holds is blkid's word for what is on it, "" when nothing is.
	Holds string
	// Group is the volume group it belongs to, "" for none.
	Group string
	// Known is the partition's size as LVM last took it, in bytes.
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
	// Metadata is the pool's metadata size in bytes, 0 for others.
	Metadata int64
}

func (d Disk) volume(name string) (Volume, bool) {
	i := slices.IndexFunc(d.Volumes, func(v Volume) bool { return v.Name == name })
	if i < 0 {
		return Volume{}, false
	}
	return d.Volumes[i], true
}

func (d Disk) data() []Volume {
	var out []Volume
	for _, v := range d.Volumes {
		if strings.HasPrefix(v.Name, dataStem) {
			out = append(out, v)
		}
	}
	return out
}

// PlanStorage says what to do next to a disk; no steps means it is as it
// should be. It plans only as far as sizes are known: the caller observes
// again after each plan. It is pure.
func PlanStorage(d Disk) ([]Step, error) {
	if err := refuse(d); err != nil {
		return nil, err
	}
	p := planner{d: d}
	if d.Group == "" {
		return p.claim(), nil
	}
	return p.fill()
}

// refuse keeps everything that is not ours.
func refuse(d Disk) error {
	switch {
	case d.Holds == "" || d.Holds == "LVM2_member" && (d.Group == "" || d.Group == group):
		return nil
	case d.Holds == "LVM2_member":
		return fmt.Errorf("partition %s (state) belongs to the volume group %q, which Holdfast did not make; nothing was changed. If it is to be given up, run wipefs -a %s from a rescue system", d.Name, d.Group, d.Name)
	}
	return fmt.Errorf("partition %s (state) holds %s, which Holdfast did not make; nothing was changed. If it is to be given up, run wipefs -a %s from a rescue system", d.Name, d.Holds, d.Name)
}

type planner struct {
	d     Disk
	steps []Step
}

// lvm restricts each command to our partition: a second disk with a group of
// the same name can't be mistaken for it.
func (p *planner) lvm(text, verb string, args ...string) {
	argv := append([]string{"lvm", verb, "--devices", p.d.Name, "--yes"}, args...)
	p.steps = append(p.steps, Step{Text: text, Argv: argv})
}

func (p *planner) claim() []Step {
	if p.d.Holds == "" {
		p.lvm(fmt.Sprintf("making state on %s (%s)", p.d.Name, size(p.d.Bytes)), "pvcreate", p.d.Name)
	}
	// A cut before this one leaves a physical volume without a group, which
	// holds nothing by definition: the next boot takes it from there.
	p.lvm("", "vgcreate", group, p.d.Name)
	return p.steps
}

func (p *planner) fill() ([]Step, error) {
	d := p.d
	// A partition that systemd-repart has grown: LVM has to be told before
	// the shares are worked out. A cut after it only leaves free room.
	if d.Bytes-d.Known >= d.Extent {
		p.lvm(fmt.Sprintf("growing state to %s", size(d.Bytes)), "pvresize", d.Name)
		return p.steps, nil
	}
	want, err := Share(d.Total, d.Extent)
	if err != nil {
		return nil, err
	}
	thin, ok := d.volume(pool)
	if !ok {
		p.lvm("", "lvcreate", "--type", "thin-pool", "--name", pool, "--size", inBytes(want.Pool), "--poolmetadatasize", inBytes(want.Metadata),
			"--chunksize", inBytes(chunk), "--poolmetadataspare", "y", group)
		return p.steps, nil
	}
	p.growPool(thin, want)
	p.volumes(want)
	return p.steps, nil
}

func (p *planner) growPool(thin Volume, want Sizes) {
	// Metadata before room: a cut between them leaves more metadata than is
	// needed, the other way round the pool could not map what it has.
	if thin.Metadata < want.Metadata {
		p.lvm("", "lvextend", "--poolmetadatasize", inBytes(want.Metadata), group+"/"+pool)
	}
	if thin.Bytes < want.Pool {
		p.lvm("", "lvextend", "--size", inBytes(want.Pool), group+"/"+pool)
	}
}

func (p *planner) volumes(want Sizes) {
	p.volume(stateName, want.State, fmt.Sprintf("volume state (%s) for the system", size(want.State)))
	switch data := p.d.data(); len(data) {
	case 0:
		// Only a box that never ran has no data volume. One that was cut
		// before this step never mounted state, so it still counts as new.
		p.volume(firstData, want.Data, fmt.Sprintf("volume data (%s) for the services, %s kept for a snapshot", size(want.Data), size(want.Snapshot)))
	case 1:
		p.volume(data[0].Name, want.Data, "")
	default:
		// During a trial nothing is resized: the snapshot and its origin
		// must stay of one size.
		for _, v := range data {
			p.volume(v.Name, v.Bytes, "")
		}
	}
}

// volume makes, grows, activates and formats one thin volume. The tag comes
// last: a cut anywhere before it leaves a volume without the tag, which holds
// nothing anyone has seen, and is formatted anew.
func (p *planner) volume(name string, want int64, text string) {
	v, ok := p.d.volume(name)
	full := group + "/" + name
	if !ok {
		p.lvm(text, "lvcreate", "--type", "thin", "--name", name, "--virtualsize", inBytes(want), "--wipesignatures", "y", "--thinpool", pool, group)
		v = Volume{Bytes: want, Active: true}
	}
	if v.Bytes < want {
		p.lvm("", "lvextend", "--size", inBytes(want), full)
	}
	if !v.Active {
		p.lvm("", "lvchange", "--activate", "y", full)
	}
	if !v.Formatted {
		p.steps = append(p.steps, Step{Argv: []string{"mkfs.xfs", "-q", "-f", "-K", "-L", name, device(name)}})
		p.lvm("", "lvchange", "--addtag", formatted, full)
	}
}

// device is the device-mapper name of a volume: dashes are doubled.
func device(volume string) string {
	return "/dev/mapper/" + group + "-" + strings.ReplaceAll(volume, "-", "--")
}

func inBytes(n int64) string { return fmt.Sprintf("%db", n) }
