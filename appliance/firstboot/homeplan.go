// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/appliance/slot"
)

// use goes on with a disk that has our group, if it may.
func (v View) use(d Disk) (Plan, error) {
	g := *d.Group
	if same := slices.DeleteFunc(v.ours(), func(o Disk) bool { return o.Group.ID != g.ID }); len(same) > 1 {
		return Plan{}, twoDisks(same, "one is a copy of the other")
	}
	if g.Broken != "" {
		return Plan{}, hold("data-disk-damaged", "attach the disk to a machine where it can be mended, see vgs there",
			"the volume group on the data disk %s cannot be used: %s; %s", d, g.Broken, ofAdmin)
	}
	l, err := ParseLabel(g.Tags)
	switch {
	case errors.Is(err, ErrLabelFormat):
		return Plan{}, hold("data-newer", "use a newer release of what runs on this box", "the data disk %s was last used by a newer system: %v; %s", d, err, ofAdmin)
	case err != nil:
		return Plan{}, hold("data-disk-damaged", "restore the disk from a backup", "the volume group on the data disk %s is named like ours, but %v; %s", d, err, ofAdmin)
	case l.Box != v.Box && !v.adopts(d):
		return Plan{}, hold("data-foreign", adopt+"; or set data.adopt: true",
			"the data disk %s was last used by another box (machine id %s%s); %s", d, l.Box, lastRelease(l), ofAdmin)
	case d.ReadOnly:
		return Plan{}, hold("data-disk-unfit", "attach it so that it can be written, then reboot", "the data disk %s is read-only", d)
	case l.Generation == 0 && v.Record != nil:
		return Plan{}, hold("data-missing", "attach the disk that has the data, or "+reset,
			"the box has data of generation %d, and the data disk %s is empty; the stack is not started on empty volumes", v.Record.Committed.Number, d)
	}
	if l.Generation > 0 {
		if vol, ok := g.volume(l.Volume); !ok || !vol.Formatted {
			return Plan{}, gone(fmt.Sprintf("the data disk %s", d), l)
		}
	}
	home := Home{Group: g, Disk: &d, Label: l}
	switch {
	case l.Box != v.Box || v.older(l) && v.adopts(d):
		return v.adopt(home)
	case v.older(l):
		return Plan{}, hold("data-disk-older", "attach the newer disk; or, to go on from what is on this one, run holdfast data adopt",
			"the data disk %s has generation %d and this box is at %d: the disk was restored from a backup, or is not the one that was used last; %s",
			d, l.Generation, v.Record.Committed.Number, ofAdmin)
	case l.Generation == 0:
		return v.fill(home)
	}
	return v.settle(home)
}

func lastRelease(l Label) string {
	if l.Release == "" {
		return ""
	}
	return ", release " + l.Release + " " + l.Version
}

func gone(where string, l Label) error {
	return hold("data-missing", "restore the data from a backup, or "+reset,
		"%s should hold the data of generation %d on the volume %s, which is not there or was never finished; the stack is not started on empty volumes",
		where, l.Generation, l.Volume)
}

// adopts says whether a disk that is not this box's may be taken. The key in
// the configuration holds for a box without data, and for its own disk when
// it comes back from another; to leave one disk for another takes a person.
func (v View) adopts(d Disk) bool {
	home, err := v.System.home()
	return v.Asked || v.Wish.Adopt && err == nil && (home == "" || home == d.Group.ID)
}

// older says whether the box has been further than the label. A trial that
// was committed is not: the record is the commit point, the label follows.
func (v View) older(l Label) bool {
	return v.Record != nil && l.Generation > 0 && v.Record.Committed.Number > l.Generation && v.Record.Committed.Number != l.Trial
}

// adopt makes a disk this box's own.
func (v View) adopt(home Home) (Plan, error) {
	p, l := planner{g: home.Group}, home.Label
	// The trial's data first: nobody here knows what the trial was, and its
	// box had opened no port for it, so what was written since is nobody's. A
	// cut after it leaves a disk that is still the other box's, with a trial
	// that has no data; adopting it again skips this.
	if _, ok := home.Group.volume(slot.DataVolume(l.Trial)); ok && l.Trial > 0 {
		p.lvm(fmt.Sprintf("dropping the data of generation %d, which was being tried", l.Trial), "lvremove", "--yes", p.g.Name+"/"+slot.DataVolume(l.Trial))
	}
	// Now the label, all of it at once: it is the commit point. The number
	// grows beyond this box's own, so that what runs once in a generation
	// runs again; the record follows the label.
	next := l
	next.Box, next.Trial = v.Box, 0
	if v.Record != nil && l.Generation > 0 {
		next.Generation = max(l.Generation, v.Record.Committed.Number+1)
	}
	p.tags(fmt.Sprintf("adopting the data disk %s of box %s", home.Disk, l.Box), relabel(p.g.Tags, next))
	return Plan{Steps: p.steps}, nil
}

// settle brings a home whose label is ours into use.
func (v View) settle(home Home) (Plan, error) {
	l := home.Label
	where := "the system disk"
	if home.Disk != nil {
		where = fmt.Sprintf("the data disk %s", home.Disk)
	}
	p := planner{g: home.Group}
	if v.Record != nil && l.Trial > 0 && v.Record.Committed.Number == l.Trial {
		// The trial was committed and the power failed before the label said
		// so. Ports open after the label: no user's write is older than it.
		l = p.committed(l)
	}
	vol, ok := home.Group.volume(l.Volume)
	if !ok || !vol.Formatted {
		return Plan{}, gone(where, l)
	}
	rec, err := v.follow(l, where)
	if err != nil {
		return Plan{}, err
	}
	if v.Trial != nil {
		l.Trial = v.Trial.Number
	}
	p.tags("", relabel(p.g.Tags, l))
	// The system disk notes the home before the record and the first mount: a
	// cut in between leaves a home that was never mounted, never one that is
	// in use and that nobody would miss.
	sys := planner{g: v.System}
	sys.tags("", v.home(home))
	if p.steps = append(p.steps, sys.steps...); len(p.steps) > 0 {
		return Plan{Steps: p.steps}, nil
	}
	want, ready, err := p.share(home)
	if err != nil || !ready {
		return Plan{Steps: p.steps}, err
	}
	if home.Label, home.Volume = l, l.Volume; v.Trial != nil {
		home.Volume = v.Trial.Data
		err := p.try(l, *v.Trial, v.Boot, where)
		return Plan{Home: home, Steps: p.steps, Record: v.started()}, err
	}
	// While there is a snapshot nothing is resized: it and its origin must
	// stay of one size.
	full := p.g.Name + "/" + l.Volume
	if len(p.g.data()) == 1 {
		p.grow(vol, want.Data, full)
	}
	p.activate(vol, full)
	return Plan{Home: home, Steps: p.steps, Record: rec}, nil
}

// share gives the sizes; the pool of the system disk is Storage's business.
func (p *planner) share(home Home) (Sizes, bool, error) {
	if home.Disk != nil {
		return p.room(DataOnly, "the data disk")
	}
	want, err := Share(p.g.Total, p.g.Extent, Both)
	return want, err == nil, err
}

// home are the options that note a home in the system disk's group. The
// claim has done its work then.
func (v View) home(h Home) []string {
	where := homeLocal
	if h.Disk != nil {
		where = h.Group.ID
	}
	return retag(v.System.Tags, []string{tagHome, tagClaim}, []string{tag(tagHome, where)})
}

// follow is the record that goes with a label, nil where it is so already.
func (v View) follow(l Label, where string) (*slot.Record, error) {
	rec := slot.First(v.Running)
	if v.Record != nil {
		rec = *v.Record
		switch c := rec.Committed; {
		case c.Number == l.Generation && c.Data == l.Volume:
			return nil, nil
		case c.Number >= l.Generation:
			return nil, hold("data-disk-damaged", "restore the data from a backup, or "+reset,
				"%s says generation %d on volume %s, and the box's record %d on %s", where, l.Generation, l.Volume, c.Number, c.Data)
		}
	}
	rec.Committed.Number, rec.Committed.Data = l.Generation, l.Volume
	// What was kept or tried had data elsewhere.
	rec.Kept, rec.Trial = nil, nil
	return &rec, nil
}

// makeLocal makes the data volume on the system disk, on a box that has none.
func (v View) makeLocal() (Plan, error) {
	g := v.System
	l, err := ParseLabel(g.Tags)
	switch {
	case err == nil && l.Generation > 0:
		return v.local() // somebody removed the one tag that says so
	case err != nil && !errors.Is(err, ErrNoLabel):
		return Plan{}, hold("data-disk-damaged", reset, "volume group %s of the system disk: %v", group, err)
	}
	l = Label{Box: v.Box, Generation: 1, Volume: firstData}
	if v.Record != nil {
		l.Generation, l.Volume = v.Record.Committed.Number, v.Record.Committed.Data
	}
	vol, ok := g.volume(l.Volume)
	var strays []string
	for _, d := range g.data() {
		if d.Formatted && d.Name != l.Volume {
			strays = append(strays, d.Name)
		}
	}
	switch {
	case v.Record != nil && (!ok || !vol.Formatted):
		return Plan{}, gone("the system disk", l)
	case len(strays) > 0 && (!ok || !vol.Formatted):
		return Plan{}, hold("data-missing", "send the output of lvm lvs to the vendor; or "+reset,
			"the system disk has data on %s, and nothing says what it is; the stack is not started on empty volumes", strings.Join(strays, ", "))
	}
	p := planner{g: g}
	if ok && vol.Formatted {
		// Label and home in one command: from here on the volume is missed
		// when it is gone. A cut before it leaves a volume that was never
		// mounted and may be left for another home.
		p.tags("", slices.Concat(relabel(g.Tags, l), v.home(Home{})))
		return Plan{Steps: p.steps}, nil
	}
	want, err := Share(g.Total, g.Extent, Both)
	if err != nil {
		return Plan{}, err
	}
	p.volume(firstData, want.Data, fmt.Sprintf("volume data (%s) for the services, %s kept for a snapshot", size(want.Data), size(want.Snapshot)))
	return Plan{Steps: p.steps}, nil
}

// makeDisk begins to make an empty disk the home of data.
func (v View) makeDisk(d Disk) (Plan, error) {
	if v.Record != nil {
		return Plan{}, hold("data-missing", "attach the disk that has the data, or "+reset,
			"the box has a record of generation %d, and its data is nowhere; the empty disk %s was not taken in its place", v.Record.Committed.Number, d)
	}
	p := planner{g: Group{Dev: d.Name}}
	if d.PV == "" {
		// The claim comes first, on the system disk: a cut after pvcreate
		// leaves a physical volume without a group, and only the claim says
		// that it is not somebody else's. No --yes here: should anything have
		// turned up on the disk since it was looked at, LVM asks, is not
		// answered, and stops.
		claim := v.claim()
		if claim == "" {
			claim = v.NewPV
		}
		sys := planner{g: v.System}
		sys.tags("", retag(v.System.Tags, []string{tagClaim}, []string{tag(tagClaim, claim)}))
		p.steps = append(p.steps, sys.steps...)
		p.lvm(fmt.Sprintf("making the empty disk %s the home of the data", d), "pvcreate", "--uuid", claim, "--norestorefile", d.Name)
	}
	// The group is born with our label, in one write: there is never one of
	// our name that says nothing.
	args := []string{}
	for _, t := range (Label{Box: v.Box}).Tags() {
		args = append(args, "--addtag", t)
	}
	p.lvm("", "vgcreate", append(args, dataGroup, d.Name)...)
	return Plan{Steps: p.steps}, nil
}

// fill makes what belongs into a group that was just made.
func (v View) fill(home Home) (Plan, error) {
	p := planner{g: home.Group}
	want, ready, err := p.room(DataOnly, "the data disk")
	if err != nil || !ready {
		return Plan{Steps: p.steps}, err
	}
	if vol, ok := p.g.volume(firstData); ok && vol.Formatted {
		// Last, the generation: from here on the volume is missed when it is
		// gone. A cut before it leaves a volume that was never mounted.
		l := home.Label
		l.Generation, l.Volume = 1, firstData
		p.tags("", relabel(p.g.Tags, l))
		return Plan{Steps: p.steps}, nil
	}
	p.volume(firstData, want.Data, fmt.Sprintf("volume data (%s) for the services, %s kept for a snapshot", size(want.Data), size(want.Snapshot)))
	return Plan{Steps: p.steps}, nil
}
