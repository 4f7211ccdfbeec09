// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
)

// Wish is what the configuration says about the data disk.
type Wish struct {
	// Disk is "auto", "none" or a path below /dev/disk; "" means "auto".
	Disk string
	// Adopt takes a disk that another box used last.
	Adopt bool
	// Refused is why the configuration is not known to be what the admin
	// wants, "" where it is.
	Refused string
}

const (
	wishAuto = "auto"
	wishNone = "none"
)

// View is all that decides where the data of the services lives.
type View struct {
	Wish Wish
	// Asked is true for `holdfast data adopt`.
	Asked bool
	// Box is this box's machine id, Running the root that runs.
	Box     string
	Running slot.Root
	// Record is the generation record, nil on a box that never ran.
	Record *slot.Record
	// Trial is the record's, where this boot runs it; Boot the id of this
	// boot then.
	Trial *slot.Trial
	Boot  string
	// System is the group on the system disk; Disks are all other disks.
	System Group
	Disks  []Disk
	// Named is the kernel's name of the disk that Wish.Disk means, "" where
	// it is not attached; NamedError is why it means none.
	Named, NamedError string
	// NewPV is the id to give to a physical volume that is made.
	NewPV string
	// Last is where the data was when the box last ran, for texts only.
	Last *status.DataDisk
}

// Home is where the data lives.
type Home struct {
	Group Group
	// Disk is the data disk, nil for the system disk.
	Disk  *Disk
	Label Label
	// Volume is the one in use: the label's, or during a trial the trial's.
	Volume string
}

// Plan is what to do next. Home counts when Steps is empty.
type Plan struct {
	Home  Home
	Steps []Step
	// Record is to be saved when Steps is empty; nil means that it is as it
	// should be.
	Record *slot.Record
}

// Held is a reason to leave the data alone. Its condition says what to do.
type Held struct{ status.Condition }

func (h *Held) Error() string { return h.Text }

func hold(code, remedy, format string, args ...any) error {
	return &Held{status.Condition{Code: code, Severity: "critical", Text: fmt.Sprintf(format, args...), Remedy: remedy}}
}

const (
	reset   = "start over with a new system disk"
	retry   = "systemctl restart holdfast"
	adopt   = "make sure that no other machine uses the disk, then run holdfast data adopt"
	ofAdmin = "nothing on it was changed"
)

// PlanHome decides where the data lives and says what to do next to get it
// there. It is pure, and is asked again after each plan. An error is a *Held,
// or a device that cannot be used; nothing was changed then.
//
// What was decided once is kept as a tag of the group on the system disk: a
// box whose disk is gone must not start on empty volumes somewhere else.
func PlanHome(v View) (Plan, error) {
	home, err := v.System.home()
	switch {
	case err != nil:
		return Plan{}, hold("data-disk-damaged", "remove one of the tags from a rescue system", "volume group %s of the system disk: %v", group, err)
	case home == homeLocal:
		return v.local()
	case home == "":
		return v.undecided()
	case !groupID(home):
		return Plan{}, hold("data-disk-damaged", "send the output of lvm vgs -o tags to the vendor", "volume group %s of the system disk says that the data lives on %q", group, home)
	}
	return v.recorded(home)
}

// ours are the disks that carry a group of our name.
func (v View) ours() []Disk {
	var out []Disk
	for _, d := range v.Disks {
		if d.Group != nil {
			out = append(out, d)
		}
	}
	return out
}

func (v View) disk(kernel string) (Disk, bool) {
	i := slices.IndexFunc(v.Disks, func(d Disk) bool { return d.Kernel == kernel })
	if i < 0 {
		return Disk{}, false
	}
	return v.Disks[i], true
}

// local is a box whose data lives on the system disk.
func (v View) local() (Plan, error) {
	l, err := ParseLabel(v.System.Tags)
	if err == nil && l.Generation == 0 {
		err = errors.New("its label names no generation")
	}
	if err != nil {
		return Plan{}, hold("data-disk-damaged", reset, "volume group %s of the system disk: %v, but data of services lives there", group, err)
	}
	if v.Asked {
		return Plan{}, hold("data-not-adopted", "to use what is on a data disk, give the disk to a box that was never started",
			"the data of this box lives on its system disk, so it takes no other")
	}
	// The system disk goes with the box: a machine id that changed is the
	// same box, made to forget who it was.
	l.Box = v.Box
	return v.settle(Home{Group: v.System, Label: l})
}

// recorded is a box whose data lives on a data disk with the group id.
func (v View) recorded(id string) (Plan, error) {
	var found, others []Disk
	for _, d := range v.ours() {
		if d.Group.ID == id {
			found = append(found, d)
		} else {
			others = append(others, d)
		}
	}
	switch {
	case len(found) > 0:
		return v.use(found[0])
	case v.Asked && len(others) > 1:
		return Plan{}, twoDisks(others, "any of them may be meant")
	case v.Asked && len(others) == 1:
		return v.use(others[0])
	}
	text := "the data lives on a data disk that is not attached"
	if l := v.Last; l != nil && l.Disk != nil {
		text = fmt.Sprintf("the data lives on the data disk %s, which is not attached", lastName(*l.Disk))
	}
	remedy := "attach the disk; the box goes on by itself. If it is lost, attach one that was restored from a backup, or " + reset
	for _, d := range others {
		text += fmt.Sprintf("; %s is another data disk", d)
		remedy = "attach the right disk; the box goes on by itself. To go on with the data of the other one, run holdfast data adopt"
	}
	for _, d := range v.Disks {
		if d.Trouble != "" {
			text += fmt.Sprintf("; %s cannot be read: %s", d, d.Trouble)
		}
	}
	return Plan{}, hold("data-missing", remedy, "%s; the stack is not started on empty volumes", text)
}

func lastName(d status.DiskID) string {
	return fmt.Sprintf("%s (serial %s, %s)", cmp.Or(d.ID, d.Device), cmp.Or(d.Serial, "unknown"), size(d.Bytes))
}

func twoDisks(found []Disk, why string) error {
	text := fmt.Sprintf("%d disks hold volumes of Holdfast: ", len(found))
	for i, d := range found {
		if i > 0 {
			text += ", "
		}
		text += d.String()
	}
	return hold("data-two-disks", "power off, detach all but the right one, and start again", "%s; %s; none was touched", text, why)
}

// undecided is a box that has no data yet, or that was cut before it could
// write down where.
func (v View) undecided() (Plan, error) {
	wish := cmp.Or(v.Wish.Disk, wishAuto)
	if v.Asked && len(v.ours()) == 0 {
		return Plan{}, hold("data-not-adopted", "attach the disk, then run holdfast data adopt again", "no disk with volumes of Holdfast is attached")
	}
	fit := slices.IndexFunc(v.Disks, func(d Disk) bool { return d.Unfit == "" })
	if v.Wish.Refused != "" && fit >= 0 && v.Record == nil && !v.Asked {
		// What is decided now is decided for good, and by what the box was
		// told: it waits for an answer that it can read.
		return Plan{}, hold("data-undecided", "mend the configuration, then reboot",
			"the configuration is refused (%s), so it is not known whether the data shall live on %s", v.Wish.Refused, v.Disks[fit])
	}
	switch wish {
	case wishNone:
		if v.Asked {
			return Plan{}, hold("data-not-adopted", "remove data.disk from the configuration, then reboot", "data.disk is none: this box uses no data disk")
		}
		return v.makeLocal()
	case wishAuto:
		return v.auto()
	}
	if v.NamedError != "" {
		return Plan{}, hold("data-disk-absent", "correct data.disk, then reboot", "data.disk: %s", v.NamedError)
	}
	d, ok := v.disk(v.Named)
	switch {
	case v.Named == "":
		return Plan{}, hold("data-disk-absent", "attach the disk, and the box goes on by itself; or correct data.disk, then reboot",
			"data.disk is %s, and no such disk is attached", wish)
	case !ok:
		return Plan{}, hold("data-disk-unfit", "correct data.disk, then reboot", "data.disk is %s, which is %s: no disk that can hold data", wish, v.Named)
	case d.Group != nil:
		return v.use(d)
	case v.Asked:
		return Plan{}, hold("data-not-adopted", "correct data.disk, then reboot", "data.disk is %s, and no volumes of Holdfast are on that disk", wish)
	case d.empty() || v.claimed(d):
		return v.makeDisk(d)
	}
	return Plan{}, hold("data-disk-unfit", "name another disk in data.disk, or clear this one (dd if=/dev/zero over its first and its last MiB) on another machine, then reboot",
		"data.disk is %s, and that disk cannot be taken: %s; %s", wish, why(d), ofAdmin)
}

// why says why a disk is not taken for an empty one.
func why(d Disk) string {
	if d.Unfit != "" {
		return d.Unfit
	}
	return "it holds " + d.Found
}

// auto takes the one disk that can be meant.
func (v View) auto() (Plan, error) {
	ours := v.ours()
	switch {
	case len(ours) > 1:
		return Plan{}, twoDisks(ours, "any of them may be meant")
	case len(ours) == 1:
		return v.use(ours[0])
	}
	var empty []Disk
	for _, d := range v.Disks {
		if d.Trouble != "" && d.Unfit == "" {
			// It may be the very disk with the data.
			return Plan{}, hold("data-disk-damaged", "detach it, or name the right one in data.disk (none for the system disk), then reboot",
				"disk %s holds %s (%s), so it is not known whether the data is on it", d, d.Found, d.Trouble)
		}
		if v.claimed(d) {
			// This very disk was being made when the power failed.
			return v.makeDisk(d)
		}
		if d.empty() {
			empty = append(empty, d)
		}
	}
	switch {
	case len(empty) > 1:
		text, keys := "", ""
		for i, d := range empty {
			if i > 0 {
				text, keys = text+", ", keys+" or "
			}
			text, keys = text+d.String(), keys+d.key()
		}
		return Plan{}, hold("data-choice", "set data.disk to "+keys+", or to none for the system disk, then reboot",
			"%d disks are empty, and one of them may be meant for the data: %s; none was taken", len(empty), text)
	case len(empty) == 1:
		return v.makeDisk(empty[0])
	case v.claim() != "":
		return Plan{}, hold("data-disk-absent", "attach the disk, and the box goes on by itself; if it is attached, clear it on another machine; or set data.disk: none, then reboot",
			"power failed while an empty disk was being made the home of the data, and that disk is not there or cannot be recognised")
	}
	return v.makeLocal()
}

// claim is the id of the physical volume that was about to be made.
func (v View) claim() string {
	found, err := values(v.System.Tags)
	if err != nil || !pvShape.MatchString(found[tagClaim]) {
		return ""
	}
	return found[tagClaim]
}

// claimed says whether a disk is the physical volume that this box was making
// when the power failed. Any other without a group is somebody's: its group
// may have its metadata elsewhere.
func (v View) claimed(d Disk) bool {
	return d.PV != "" && d.PV == v.claim() && d.Owner == "" && d.Unfit == ""
}
