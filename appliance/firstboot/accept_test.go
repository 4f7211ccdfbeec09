// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	ran := func(version, readable string) Label {
		return Label{Box: boxA, Generation: 1, Volume: firstData, Release: "demo", Version: version, ReadableFrom: readable}
	}
	for _, c := range []struct {
		name    string
		label   Label
		release Release
		// code and text of the refusal, and what after is the oldest that can
		// read the data.
		code, text, readable string
	}{
		{"new data", Label{Box: boxA, Generation: 1, Volume: firstData}, Release{"demo", "1.0.0", "1.0.0"}, "", "", "1.0.0"},
		{"the same", ran("1.0.0", "1.0.0"), Release{"demo", "1.0.0", "1.0.0"}, "", "", "1.0.0"},
		{"a newer release", ran("1.0.0", "1.0.0"), Release{"demo", "1.1.0", "1.1.0"}, "", "", "1.1.0"},
		{"a newer release that the old can follow", ran("1.0.0", "1.0.0"), Release{"demo", "1.1.0", "1.0.0"}, "", "", "1.0.0"},
		{"an older release that can read", ran("1.1.0", "1.0.0"), Release{"demo", "1.0.5", "1.0.5"}, "", "", "1.0.5"},
		{"an older release that cannot", ran("1.1.0", "1.1.0"), Release{"demo", "1.0.0", "1.0.0"}, "data-newer", "install demo 1.1.0 or newer", ""},
		{"by number, not by letter", ran("1.10.0", "1.10.0"), Release{"demo", "1.9.0", "1.9.0"}, "data-newer", "install demo 1.10.0 or newer", ""},
		{"a candidate is older than its release", ran("1.1.0", "1.1.0"), Release{"demo", "1.1.0-rc.1", "1.0.0"}, "data-newer", "install demo 1.1.0 or newer", ""},
		{"another product", ran("1.0.0", "1.0.0"), Release{"shop", "9.0.0", "1.0.0"}, "data-other-release", "demo 1.0.0", ""},
		// What 1.1.0 changed stays changed, whatever 1.2.0 says of its own.
		{"no way back", ran("1.1.0", "1.1.0"), Release{"demo", "1.2.0", "1.0.0"}, "", "", "1.1.0"},
	} {
		err := Judge(c.label, c.release)
		h, ok := errors.AsType[*Held](err)
		switch {
		case c.code == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.code != "" && (!ok || h.Code != c.code || !strings.Contains(h.Text+h.Remedy, c.text)):
			t.Errorf("%s: %v, want %s", c.name, err, c.code)
		case c.code == "":
			next := c.label.Ran(c.release)
			if next.check() != nil || next.Release != c.release.Name || next.Version != c.release.Version || next.ReadableFrom != c.readable {
				t.Errorf("%s: the label becomes %+v, want readable from %s", c.name, next, c.readable)
			}
		}
	}
}

func TestAccept(t *testing.T) {
	one, two := Release{"demo", "1.0.0", "1.0.0"}, Release{"demo", "1.1.0", "1.1.0"}
	for _, kernel := range []string{"", "vdb"} {
		f := newLVM(t, 4*gib)
		if kernel != "" {
			f.attach(kernel, newDisk("home", 20*gib))
		}
		if err := Accept(context.Background(), f.env(), one); !errors.Is(err, ErrNoDataFile) {
			t.Errorf("before the data: %v", err)
		}
		d, _ := upWith(t, f, "entry")
		accept := func(r Release) error { return Accept(context.Background(), f.env(), r) }
		label := func() Label {
			l, err := d.label()
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		for range 2 {
			if err := accept(one); err != nil || label().Version != "1.0.0" {
				t.Fatalf("%v, %+v", err, label())
			}
		}
		if n := strings.Count(strings.Join(f.ran, "\n"), "holdfast.version"); n != 1 {
			t.Errorf("the label was written %d times", n)
		}
		if out, err := ReadData(f.root); err != nil || out.Label.Version != "1.0.0" {
			t.Errorf("%+v, %v", out, err)
		}
		if err := accept(two); err != nil || label().ReadableFrom != "1.1.0" {
			t.Fatalf("%v, %+v", err, label())
		}
		was := label()
		if h, ok := errors.AsType[*Held](accept(one)); !ok || h.Code != "data-newer" || label() != was {
			t.Errorf("an older release: %v, %+v", h, label())
		}
		// The boot after keeps what the label says of the release.
		if err := f.power(Wish{}); err != nil || label() != was {
			t.Errorf("the next boot: %v, %+v", err, label())
		}
		// A cut before or after the write: the old label or the new one.
		for cut, want := range []string{"1.1.0", "3.0.0"} {
			d.tags = was.Tags()
			if kernel == "" {
				d.tags = append(d.tags, tag(tagHome, homeLocal))
			}
			f.ran, f.cut = nil, cut
			if err := accept(Release{"demo", "3.0.0", "3.0.0"}); !errors.Is(err, errCut) || label().Version != want {
				t.Errorf("cut %d: %v, %+v", cut, err, label())
			}
			f.cut = -1
		}
		l := label()
		l.Box = boxB
		d.tags = l.Tags()
		if h, ok := errors.AsType[*Held](accept(two)); !ok || h.Code != "data-foreign" {
			t.Errorf("taken by another box meanwhile: %v", h)
		}
		err := f.power(Wish{})
		if kernel == "" {
			// The system disk is the box: its label comes along.
			if l.Box = boxA; err != nil || label() != l {
				t.Errorf("%v, %+v, want %+v", err, label(), l)
			}
			continue
		}
		held(t, f, err, "data-foreign", "")
		if _, ok := errors.AsType[*Held](accept(two)); !ok {
			t.Error("held data was accepted")
		}
	}
}

// FuzzJudge: whatever a label and a release say, a release that is refused is
// older than what the label asks for, and running it never lowers that.
func FuzzJudge(f *testing.F) {
	f.Add("demo", "1.1.0", "1.0.0", "demo", "1.0.0", "1.0.0")
	f.Fuzz(func(t *testing.T, name, version, readable, rname, rversion, rreadable string) {
		l := Label{Box: boxA, Generation: 1, Volume: firstData, Release: name, Version: version, ReadableFrom: readable}
		after := l.Ran(Release{rname, rversion, rreadable})
		if l.check() != nil || after.check() != nil || name == "" || rname != name {
			return
		}
		if err := Judge(l, Release{rname, rversion, rreadable}); err != nil {
			return
		}
		if again := Judge(after, Release{rname, rversion, rreadable}); again != nil {
			t.Errorf("%+v: what ran once may not run again: %v", after, again)
		}
	})
}
