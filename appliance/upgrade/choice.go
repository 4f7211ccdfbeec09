// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"slices"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/compose/version"
)

// defaultChannel is followed where nothing says another.
const defaultChannel = "stable"

// Chooser is what a release is chosen by.
type Chooser struct {
	// Name and Version of the release that runs, Digest its manifest's.
	Name, Version, Digest string
	Record                slot.Record
	MachineID             string
	Channel               string
	// Explicit is true where an admin named the source: the rollout is not
	// asked then.
	Explicit bool
	// Want is the version asked for, "" for the newest; Force takes a
	// quarantined one.
	Want  string
	Force bool
}

// Choose gives the newest release that is allowed, nil where the box has it. A
// version that was asked for is judged by what binds an admin too; the error
// is then a *Refused. It is pure.
func (c Chooser) Choose(list []Target) (*Target, error) {
	if c.Want != "" {
		return c.wanted(list)
	}
	var best *Target
	for i, t := range list {
		if c.Refuses(t) != nil || !c.offered(t, list) {
			continue
		}
		if best == nil || version.Compare(best.Version, t.Version) < 0 {
			best = &list[i]
		}
	}
	return best, nil
}

// offered says whether a release is meant for this box now.
func (c Chooser) offered(t Target, list []Target) bool {
	channel := c.Channel
	if channel == "" {
		channel = defaultChannel
	}
	// A disk or a file with one release on it: whoever plugs it in means it.
	only := c.Explicit && len(list) == 1
	if !only && !slices.Contains(t.Channels, channel) {
		return false
	}
	return c.Explicit || Percent(c.MachineID, t.Digest) < t.Rollout
}

func (c Chooser) wanted(list []Target) (*Target, error) {
	for i, t := range list {
		if t.Name == c.Name && t.Version == c.Want {
			if r := c.Refuses(t); r != nil {
				return nil, r
			}
			return &list[i], nil
		}
	}
	return nil, &Refused{CodeNotFound, fmt.Sprintf("the source has no release %s %s", c.Name, cut(c.Want, 100)), "holdfast forecast lists what it has"}
}

// Refuses says why a release may not follow the one that runs, nil where it
// may.
func (c Chooser) Refuses(t Target) *Refused {
	refuse := func(code, remedy, format string, args ...any) *Refused {
		return &Refused{code, fmt.Sprintf(format, args...), remedy}
	}
	switch {
	case t.Name != c.Name:
		return refuse(CodeName, "name a source of "+c.Name, "%s is another product's release, this box runs %s", t, c.Name)
	case !version.Valid(t.Version):
		return refuse(CodeNotFound, "tell the vendor", "%q is not a version", cut(t.Version, 100))
	case t.Digest == c.Digest && c.Digest != "":
		return refuse(CodeCurrent, "nothing needs to be done", "%s runs already", t)
	}
	if version.Valid(c.Version) {
		switch d := version.Compare(t.Version, c.Version); {
		case d == 0 && c.Digest == "" && t.Version == c.Version:
			// The factory's release has no manifest digest to compare.
			return refuse(CodeCurrent, "nothing needs to be done", "%s runs already", t)
		case d == 0:
			return refuse(CodeOlder, "ask the vendor for a release with a version of its own", "%s has the version that runs, and other content", t)
		case d < 0:
			return refuse(CodeOlder, "holdfast rollback goes back to the kept generation", "%s is older than %s, which runs", t, c.Version)
		}
	}
	switch {
	case t.Epoch < c.Record.Epoch:
		return refuse(CodeEpoch, "ask the vendor for a release of the present security epoch", "%s has security epoch %d, and this box has committed epoch %d", t, t.Epoch, c.Record.Epoch)
	case t.MinFrom != "" && (!version.Valid(t.MinFrom) || version.Valid(c.Version) && version.Compare(c.Version, t.MinFrom) < 0):
		return refuse(CodeMinFrom, fmt.Sprintf("upgrade to %s or later first", cut(t.MinFrom, 100)), "%s can be reached from %s on, and %s runs", t, cut(t.MinFrom, 100), c.Version)
	case !c.Force && slices.Contains(c.Record.Quarantined, t.Digest):
		return refuse(CodeQuarantined, fmt.Sprintf("holdfast why; holdfast upgrade --force with version %s tries it again", t.Version), "%s has failed on this box and is quarantined", t)
	}
	return nil
}
