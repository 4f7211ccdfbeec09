// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/compose/version"
)

// Label says whose data a volume group holds and who can read it. It lies in
// the group's own metadata, as tags: LVM writes all of it as a whole with a
// checksum, so a label is old or new whenever the power fails, and it cannot
// part from the volumes it speaks of.
type Label struct {
	// Box is the machine id of the box that used the data last.
	Box string
	// Generation is the number of the committed generation and Volume its
	// data's logical volume, "data-N" with N of at most Generation. 0 and ""
	// while the volume is being made for the first time: nothing was ever
	// mounted then.
	Generation int
	Volume     string
	// Release, Version and ReadableFrom are name and version of the release
	// that ran last, and the oldest version of it that can read the data.
	// Empty before the first.
	Release, Version, ReadableFrom string
	// Trial is the generation that was being tried, with its data on
	// "data-TRIAL"; 0 for none.
	Trial int
}

const (
	tagPrefix = "holdfast."

	tagFormat     = "format"
	tagBox        = "box"
	tagGeneration = "generation"
	tagVolume     = "volume"
	tagRelease    = "release"
	tagVersion    = "version"
	tagReadable   = "readable-from"
	tagTrial      = "trial"

	// labelFormat is the one this program reads and writes.
	labelFormat = "1"

	// Tags of the group on the system disk, which are no part of a label:
	// where the data lives, "local" or the id of the data disk's group; and
	// the id of a physical volume that is about to be made.
	tagHome   = "home"
	tagClaim  = "claim"
	homeLocal = "local"

	// maxTag is LVM's own bound of a tag in bytes, maxTags ours of a label.
	maxTag  = 1024
	maxTags = 64
	// maxGeneration bounds what is read off a disk.
	maxGeneration = 1 << 30
)

// labelTags are the names that make up a label, in the order they are written.
var labelTags = []string{tagFormat, tagBox, tagGeneration, tagVolume, tagRelease, tagVersion, tagReadable, tagTrial}

// ErrNoLabel is returned by ParseLabel for a group that has none.
var ErrNoLabel = errors.New("it carries no label")

// ErrLabelFormat is returned by ParseLabel for a label of a later program.
var ErrLabelFormat = errors.New("its label has a format that this box does not know")

var (
	tagShape     = regexp.MustCompile(`^[A-Za-z0-9_+.][A-Za-z0-9_+.\-/=!:&#]*$`)
	releaseShape = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)
	volumeShape  = regexp.MustCompile(`^data-([1-9][0-9]{0,9})$`)
)

// values are the tags of ours, by name without prefix. Two of one name are an
// error: no one could say which counts.
func values(tags []string) (map[string]string, error) {
	if len(tags) > maxTags {
		return nil, fmt.Errorf("it has more than %d tags", maxTags)
	}
	found := map[string]string{}
	for _, tag := range tags {
		rest, ok := strings.CutPrefix(tag, tagPrefix)
		if !ok {
			continue
		}
		name, value, _ := strings.Cut(rest, "=")
		if old, twice := found[name]; twice && old != value {
			return nil, fmt.Errorf("it carries two tags %s%s, %q and %q", tagPrefix, name, old, value)
		}
		found[name] = value
	}
	return found, nil
}

// ParseLabel reads the label out of the tags of a volume group. Tags it does
// not know are left alone: what makes a label unreadable for this program
// raises its format.
func ParseLabel(tags []string) (Label, error) {
	v, err := values(tags)
	if err != nil {
		return Label{}, err
	}
	if !slices.ContainsFunc(labelTags, func(name string) bool { _, ok := v[name]; return ok }) {
		return Label{}, ErrNoLabel
	}
	if v[tagFormat] != labelFormat {
		return Label{}, fmt.Errorf("%w: %q, it knows %s", ErrLabelFormat, v[tagFormat], labelFormat)
	}
	l := Label{Box: v[tagBox], Volume: v[tagVolume], Release: v[tagRelease], Version: v[tagVersion], ReadableFrom: v[tagReadable]}
	if l.Generation, err = number(v, tagGeneration); err != nil {
		return Label{}, err
	}
	if l.Trial, err = number(v, tagTrial); err != nil {
		return Label{}, err
	}
	return l, l.check()
}

// number is 0 for a tag that is not there.
func number(v map[string]string, name string) (int, error) {
	s, ok := v[name]
	if !ok {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxGeneration || strconv.Itoa(n) != s {
		return 0, fmt.Errorf("its label says %s %q, which is no number of a generation", name, s)
	}
	return n, nil
}

func (l Label) check() error {
	bad := func(name, value string) error {
		return fmt.Errorf("its label says %s %q", name, value)
	}
	switch {
	case !idShape.MatchString(l.Box):
		return bad(tagBox, l.Box)
	case (l.Generation == 0) != (l.Volume == ""):
		return errors.New("its label has a generation without a volume, or a volume without a generation")
	case l.Volume != "" && !volumeOf(l.Volume, l.Generation):
		return bad(tagVolume, l.Volume)
	case l.Generation == 0 && (l.Release != "" || l.Trial != 0):
		return errors.New("its label has a release but no generation")
	case (l.Release == "") != (l.Version == "") || (l.Release == "") != (l.ReadableFrom == ""):
		return errors.New("its label does not have all of release, version and readable-from")
	case l.Release != "" && !releaseShape.MatchString(l.Release):
		return bad(tagRelease, l.Release)
	case l.Release != "" && !version.Valid(l.Version):
		return bad(tagVersion, l.Version)
	case l.Release != "" && !version.Valid(l.ReadableFrom):
		return bad(tagReadable, l.ReadableFrom)
	case l.Trial != 0 && l.Trial <= l.Generation:
		return bad(tagTrial, strconv.Itoa(l.Trial))
	}
	return nil
}

// volumeOf says whether a volume can hold the data of a generation.
func volumeOf(volume string, generation int) bool {
	m := volumeShape.FindStringSubmatch(volume)
	if m == nil {
		return false
	}
	n, err := strconv.Atoi(m[1])
	return err == nil && n <= generation && volume == slot.DataVolume(n)
}

// Tags is the label as tags, in a fixed order.
func (l Label) Tags() []string {
	tags := []string{tag(tagFormat, labelFormat), tag(tagBox, l.Box)}
	if l.Generation > 0 {
		tags = append(tags, tag(tagGeneration, strconv.Itoa(l.Generation)), tag(tagVolume, l.Volume))
	}
	if l.Release != "" {
		tags = append(tags, tag(tagRelease, l.Release), tag(tagVersion, l.Version), tag(tagReadable, l.ReadableFrom))
	}
	if l.Trial > 0 {
		tags = append(tags, tag(tagTrial, strconv.Itoa(l.Trial)))
	}
	return tags
}

func tag(name, value string) string { return tagPrefix + name + "=" + value }

// relabel are the options of one vgchange that puts a label in the place of
// what tags say; none where they say it already. One command: LVM commits
// its metadata once, so no cut leaves half a label.
func relabel(tags []string, l Label) []string {
	want := l.Tags()
	return retag(tags, labelTags, want)
}

// retag replaces all tags of the given names by want.
func retag(tags, names, want []string) []string {
	var del, add []string
	for _, t := range tags {
		rest, ok := strings.CutPrefix(t, tagPrefix)
		name, _, _ := strings.Cut(rest, "=")
		if ok && slices.Contains(names, name) && !slices.Contains(want, t) {
			del = append(del, "--deltag", t)
		}
	}
	for _, t := range want {
		if !slices.Contains(tags, t) {
			add = append(add, "--addtag", t)
		}
	}
	return append(del, add...)
}

// splitTags is how LVM prints the tags of one object.
func splitTags(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
