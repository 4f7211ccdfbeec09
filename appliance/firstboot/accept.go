// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"fmt"

	"github.com/holdfast/holdfast/compose/version"
)

// Release is what Accept has to know of the release that is to run.
type Release struct {
	Name, Version string
	// ReadableFrom is the oldest version of it that can read the data it
	// leaves behind.
	ReadableFrom string
}

// Judge says whether a release may run on labelled data. It is pure. The
// error is a *Held.
func Judge(l Label, r Release) error {
	switch {
	case l.Release == "":
		return nil
	case l.Release != r.Name:
		return hold("data-other-release", fmt.Sprintf("use an image of %s %s or newer on this box; or give this one an empty data disk", l.Release, l.ReadableFrom),
			"the data was last used by the release %s %s, and this is %s %s: another product", l.Release, l.Version, r.Name, r.Version)
	case version.Compare(r.Version, l.Version) >= 0, version.Compare(r.Version, l.ReadableFrom) >= 0:
		return nil
	}
	return hold("data-newer", fmt.Sprintf("install %s %s or newer", l.Release, l.ReadableFrom),
		"the data was last used by %s %s, and %s cannot read it: %s or newer is needed", l.Release, l.Version, r.Version, l.ReadableFrom)
}

// Ran is the label once a release has run on the data. What one version made
// unreadable for older ones stays so, whatever a later one says of its own.
func (l Label) Ran(r Release) Label {
	from := r.ReadableFrom
	if l.Release == r.Name && l.ReadableFrom != "" {
		from = version.Newest(l.ReadableFrom, from)
	}
	l.Release, l.Version, l.ReadableFrom = r.Name, r.Version, from
	return l
}

// Accept holds a release to the label of the data that Data has put in use,
// and writes it into the label. It is called before anything of the stack
// starts: a cut after it leaves a label of a release that never touched the
// data, which shuts out an older one that could have read it, for a start of
// the newer one to mend. The other way round data could change under a label
// that lets the older one in. During a trial the committed release stays in
// the label, as the box goes back to it; what is tried is noted on its own
// volume, and goes into the label with the commit.
func Accept(ctx context.Context, env Env, r Release) error {
	unlock, err := lockData(env)
	if err != nil {
		return err
	}
	defer unlock()
	d, err := ReadData(env.Root)
	if err != nil {
		return err
	}
	if d.Held != nil {
		return &Held{*d.Held}
	}
	// From the disk, not from what was written about it at boot.
	g := Group{Dev: d.Device, Name: d.Group}
	if g.Tags, err = readTags(ctx, env, d.Device, d.Group); err != nil {
		return err
	}
	l, err := ParseLabel(g.Tags)
	if err != nil {
		return hold("data-disk-damaged", "restore the disk from a backup", "volume group %s on %s: %v", d.Group, d.Device, err)
	}
	if box, err := readID(env.path(etcID)); err != nil {
		return err
	} else if l.Box != box {
		return hold("data-foreign", adopt, "the data on %s was taken by another box (machine id %s) while this one had it", d.Device, l.Box)
	}
	p := planner{g: g}
	if d.Volume != l.Volume {
		if err := observeVolumes(ctx, env, &p.g); err != nil {
			return err
		}
		vol, ok := p.g.volume(d.Volume)
		if !ok {
			return hold("data-missing", "reboot", "the data %s that is in use is not in volume group %s", d.Volume, d.Group)
		}
		tried := Label{Box: l.Box, Generation: l.Generation, Volume: l.Volume}.ran(vol)
		if err := Judge(tried, r); err != nil {
			return err
		}
		p.volumeTags(vol, releaseTags, tried.Ran(r).release())
	} else {
		if err := Judge(l, r); err != nil {
			return err
		}
		l = l.Ran(r)
		p.tags("", relabel(g.Tags, l))
	}
	if err := env.act(ctx, p.steps); err != nil {
		return fmt.Errorf("the data's label cannot be written: %w", err)
	}
	d.Label = l.describe()
	return writeDataFile(env, DataFile, d)
}
