// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const (
	boxA = "0123456789abcdef0123456789abcdef"
	boxB = "fedcba9876543210fedcba9876543210"
)

var full = Label{Box: boxA, Generation: 6, Volume: "data-3", Release: "demo", Version: "1.1.0-rc.1+b.5", ReadableFrom: "1.0.0", Trial: 7}

func TestLabelRoundTrip(t *testing.T) {
	for _, want := range []Label{full, {Box: boxA}, {Box: boxA, Generation: 1, Volume: "data-1"}} {
		tags := want.Tags()
		for _, tag := range tags {
			if !tagShape.MatchString(tag) || len(tag) > maxTag {
				t.Errorf("LVM would not take %q", tag)
			}
		}
		// What is not of the label stays out of it.
		got, err := ParseLabel(append([]string{"theirs", "holdfast.home=local", "holdfast.later=1"}, tags...))
		if err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
}

func TestParseLabelRefuses(t *testing.T) {
	change := func(old, new string) []string {
		return strings.Split(strings.Replace(strings.Join(full.Tags(), ","), old, new, 1), ",")
	}
	for _, c := range []struct {
		name, want string
		tags       []string
	}{
		{"nothing", "no label", nil},
		{"only others", "no label", []string{"backup", "holdfast.home=local"}},
		{"later format", "format", change("format=1", "format=2")},
		{"no format", "format", change("holdfast.format=1", "x")},
		{"two boxes", "two tags", append(full.Tags(), tag(tagBox, boxB))},
		{"no box", "box", change("holdfast.box="+boxA, "x")},
		{"bad box", "box", change(boxA, "../../etc")},
		{"generation 0", "no number", change("generation=6", "generation=0")},
		{"generation with a zero", "no number", change("generation=6", "generation=06")},
		{"huge generation", "no number", change("generation=6", "generation=99999999999999999999")},
		{"no volume", "without a volume", change("holdfast.volume=data-3", "x")},
		{"no generation", "without a generation", change("holdfast.generation=6", "x")},
		{"volume of a later generation", "volume", change("data-3", "data-7")},
		{"another volume", "volume", change("data-3", "state")},
		{"volume with a path", "volume", change("data-3", "data-3/../x")},
		{"half a release", "all of release", change("holdfast.version=1.1.0-rc.1+b.5", "x")},
		{"bad version", "version", change("version=1.1.0-rc.1+b.5", "version=latest")},
		{"bad readable", "readable-from", change("readable-from=1.0.0", "readable-from=1")},
		{"bad release", "release", change("release=demo", "release=Demo")},
		{"old trial", "trial", change("trial=7", "trial=6")},
		{"many", "more than", slices.Repeat([]string{"a"}, maxTags+1)},
	} {
		if got, err := ParseLabel(c.tags); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v, want %q", c.name, got, err, c.want)
		}
	}
	if _, err := ParseLabel(change("format=1", "format=2")); !errors.Is(err, ErrLabelFormat) {
		t.Error(err)
	}
}

func TestRelabel(t *testing.T) {
	tags := append([]string{"theirs", tag(tagHome, homeLocal)}, full.Tags()...)
	if got := relabel(tags, full); len(got) != 0 {
		t.Errorf("a label that is there is written again: %v", got)
	}
	next := full
	next.Generation, next.Volume, next.Trial, next.Version = 7, "data-7", 0, "1.1.0"
	want := "--deltag holdfast.generation=6 --deltag holdfast.volume=data-3 --deltag holdfast.version=1.1.0-rc.1+b.5 --deltag holdfast.trial=7" +
		" --addtag holdfast.generation=7 --addtag holdfast.volume=data-7 --addtag holdfast.version=1.1.0"
	if got := strings.Join(relabel(tags, next), " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// FuzzLabel: tags come off a disk that anybody may have written.
func FuzzLabel(f *testing.F) {
	f.Add(strings.Join(full.Tags(), ","))
	f.Add("holdfast.format=1,holdfast.box=" + boxA)
	f.Fuzz(func(t *testing.T, list string) {
		l, err := ParseLabel(splitTags(list))
		if err != nil {
			return
		}
		if l.Volume != "" && !volumeShape.MatchString(l.Volume) {
			t.Errorf("%q gave the volume %q", list, l.Volume)
		}
		for _, tag := range l.Tags() {
			if !tagShape.MatchString(tag) || len(tag) > maxTag {
				t.Errorf("%q would be written as %q", list, tag)
			}
		}
		again, err := ParseLabel(l.Tags())
		if err != nil || again != l {
			t.Errorf("%q: read as %+v, written and read as %+v, %v", list, l, again, err)
		}
		if len(relabel(l.Tags(), l)) != 0 {
			t.Errorf("%q is not at rest", list)
		}
	})
}
