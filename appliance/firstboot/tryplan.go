// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"fmt"
	"slices"

	"github.com/holdfast/holdfast/appliance/slot"
)

// tagBoot is a tag of a trial's volume: the boot that it was made in. A volume
// of another boot is the rest of a start that is over, and is made anew.
const tagBoot = "boot"

// releaseTags are those that a volume carries which is not the label's: the
// release that ran on it last. They have the names that the label's have.
var releaseTags = []string{tagRelease, tagVersion, tagReadable}

// ran is a label with the release that a volume's own tags name; that of the
// label where they name none.
func (l Label) ran(vol Volume) Label {
	v, err := values(vol.Tags)
	if err != nil || v[tagRelease] == "" {
		return l
	}
	next := l
	next.Release, next.Version, next.ReadableFrom = v[tagRelease], v[tagVersion], v[tagReadable]
	if next.check() != nil {
		return l
	}
	return next
}

// release is the part of a label that names one, as tags.
func (l Label) release() []string {
	if l.Release == "" {
		return nil
	}
	return []string{tag(tagRelease, l.Release), tag(tagVersion, l.Version), tag(tagReadable, l.ReadableFrom)}
}

// committed is the label once the trial in it was committed. What ran on the
// volume that it leaves is noted there first: a cut after that has noted the
// truth, and the label says the same until it is changed, all at once.
func (p *planner) committed(l Label) Label {
	if old, ok := p.g.volume(l.Volume); ok {
		p.volumeTags(old, releaseTags, l.release())
	}
	now, _ := p.g.volume(slot.DataVolume(l.Trial))
	next := l.ran(now)
	next.Generation, next.Volume, next.Trial = l.Trial, slot.DataVolume(l.Trial), 0
	return next
}

// volumeTags replaces tags of a volume, in one command.
func (p *planner) volumeTags(v Volume, names, want []string) {
	if options := retag(v.Tags, names, want); len(options) > 0 {
		p.lvm("", "lvchange", append(append([]string{"--yes"}, options...), p.g.Name+"/"+v.Name)...)
	}
}

// try makes the data of a trial that this boot starts: a snapshot of its
// origin, which itself is never mounted meanwhile. The label says before it
// that a trial is on. A snapshot of this very boot is left as it is.
func (p *planner) try(l Label, t slot.Trial, boot, where string) error {
	origin, ok := p.g.volume(t.Origin)
	if !ok || !origin.Formatted {
		return hold("data-missing", "reboot: the committed generation comes back",
			"%s should hold the data %s that generation %d begins with, which is not there or was never finished", where, t.Origin, t.Number)
	}
	full := p.g.Name + "/" + t.Data
	vol, ok := p.g.volume(t.Data)
	if ok && vol.Formatted && slices.Contains(vol.Tags, tag(tagBoot, boot)) {
		p.activate(vol, full)
		return nil
	}
	if ok {
		p.lvm(fmt.Sprintf("dropping what an earlier start of generation %d left", t.Number), "lvremove", "--yes", full)
	}
	args := []string{"--yes", "--snapshot", "--name", t.Data}
	tags := []string{formatted, tag(tagBoot, boot)}
	from := l
	if t.Origin != l.Volume {
		from = Label{Box: l.Box, Generation: l.Generation, Volume: l.Volume}.ran(origin)
	}
	for _, t := range append(tags, from.release()...) {
		args = append(args, "--addtag", t)
	}
	p.lvm(fmt.Sprintf("generation %d is tried on a copy of %s", t.Number, t.Origin), "lvcreate", append(args, p.g.Name+"/"+t.Origin)...)
	return nil
}

// started is the record once the trial of this boot has its data; nil where
// it says so already.
func (v View) started() *slot.Record {
	if v.Trial.Boot == v.Boot {
		return nil
	}
	rec, t := *v.Record, *v.Trial
	t.Boot, t.Again = v.Boot, false
	t.Starts++
	rec.Trial = &t
	return &rec
}

// PlanSwitch says what to do next, without a boot, to the volumes of the home
// of the data, so that the trial may run on its own, or with none, the
// committed generation on its own. It is pure, and is asked again after each
// plan; vol is the one to mount when there are no steps left.
func PlanSwitch(g Group, committed slot.Generation, t *slot.Trial, boot, where string) (steps []Step, vol string, err error) {
	l, err := ParseLabel(g.Tags)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", where, err)
	}
	p := planner{g: g}
	if l.Trial > 0 && l.Trial == committed.Number {
		l = p.committed(l)
	}
	if l.Trial = 0; t != nil {
		l.Trial = t.Number
	}
	if l.Generation != committed.Number || l.Volume != committed.Data {
		return nil, "", fmt.Errorf("%s says generation %d on volume %s, and the box's record %d on %s", where, l.Generation, l.Volume, committed.Number, committed.Data)
	}
	if p.tags("", relabel(g.Tags, l)); len(p.steps) > 0 {
		return p.steps, "", nil
	}
	if t != nil {
		err := p.try(l, *t, boot, where)
		return p.steps, t.Data, err
	}
	v, ok := g.volume(l.Volume)
	if !ok || !v.Formatted {
		return nil, "", gone(where, l)
	}
	p.activate(v, g.Name+"/"+v.Name)
	return p.steps, v.Name, nil
}

// PlanSettle says what to do next so that the label is that of the committed
// generation and no data is left that the record does not name. It is pure,
// and is asked again after each plan. What is mounted is never dropped.
func PlanSettle(g Group, rec slot.Record, mounted, where string) ([]Step, error) {
	if rec.Trial != nil {
		return nil, fmt.Errorf("generation %d is being tried; nothing is dropped meanwhile", rec.Trial.Number)
	}
	steps, _, err := PlanSwitch(g, rec.Committed, nil, "", where)
	if err != nil || len(steps) > 0 {
		return steps, err
	}
	p := planner{g: g}
	for _, v := range g.data() {
		if v.Name == rec.Committed.Data || rec.Kept != nil && v.Name == rec.Kept.Data || v.Name == mounted {
			continue
		}
		p.lvm("dropping the data "+v.Name+", which no generation needs", "lvremove", "--yes", g.Name+"/"+v.Name)
	}
	return p.steps, nil
}
