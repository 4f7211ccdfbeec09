// SPDX-License-Identifier: Apache-2.0

package lock

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/compose/stack"
)

var (
	digestForm  = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	hashForm    = regexp.MustCompile(`^[0-9a-f]{64}$`)
	stackForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,39}$`)
	goForm      = regexp.MustCompile(`^go1\.[0-9]+(\.[0-9]+)?([a-z0-9-]*)$`)
	programForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+~-]{0,99}$`)
	suiteForm   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)
	// Debian Policy 5.6.7 and 5.6.12.
	packageForm = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,127}$`)
	versionForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+~:-]{0,127}$`)
	// A path is joined to a mirror's address and to a folder's path, so it
	// must not say anything of its own in either.
	pathForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.+~%:-]*(/[A-Za-z0-9][A-Za-z0-9_.+~%:-]*)*\.deb$`)
)

// fault is one thing wrong with a lock, by key path.
type fault struct {
	key  []string
	text string
}

// Validate checks a lock that did not come through Parse, before it is
// written.
func (l *Lock) Validate() error {
	ps := &stack.Problems{}
	for _, f := range l.faults() {
		ps.List = append(ps.List, stack.Problem{File: "lock", Key: strings.Join(f.key, "."), Text: f.text, Mend: relock})
	}
	if len(ps.List) > 0 {
		return ps
	}
	return nil
}

func (l *Lock) faults() []fault {
	var out []fault
	add := func(text string, key ...string) { out = append(out, fault{key, text}) }
	form := func(re *regexp.Regexp, value string, key ...string) {
		if !re.MatchString(value) {
			add(fmt.Sprintf("%q is not of the form %s", value, re), key...)
		}
	}
	if l.Format != FormatVersion {
		add(fmt.Sprintf("the format must be %d", FormatVersion), "format")
	}
	form(programForm, l.Holdfast, "holdfast")
	form(goForm, l.Go, "go")
	if l.Epoch <= 0 {
		add("the epoch must be seconds since 1970", "epoch")
	}
	form(stackForm, l.Stack.Name, "stack", "name")
	form(digestForm, l.Stack.Digest, "stack", "digest")
	for i, im := range l.Images {
		key := []string{"images", strconv.Itoa(i)}
		if ref, dgst, err := stack.SplitImage(im.Ref); err != nil || dgst != "" || ref != im.Ref {
			add(fmt.Sprintf("%q is no image reference without digest", im.Ref), append(key, "ref")...)
		}
		form(digestForm, im.Digest, append(key, "digest")...)
		if im.Size <= 0 {
			add("the size must be more than 0", append(key, "size")...)
		}
		if i > 0 && l.Images[i-1].Ref >= im.Ref {
			add("the images must be sorted by reference, each once", append(key, "ref")...)
		}
	}
	for _, s := range []struct {
		name string
		set  PackageSet
	}{{"os", l.OS}, {"tools", l.Tools}} {
		form(suiteForm, s.set.Suite, s.name, "suite")
		out = append(out, s.set.faults(s.name)...)
	}
	return out
}

func (s PackageSet) faults(name string) []fault {
	var out []fault
	for i, w := range s.Wanted {
		key := []string{name, "wanted", strconv.Itoa(i)}
		if !packageForm.MatchString(w) {
			out = append(out, fault{key, fmt.Sprintf("%q is no package name", w)})
		}
		if slices.Contains(s.Wanted[:i], w) {
			out = append(out, fault{key, w + " is there twice"})
		}
	}
	if len(s.Wanted) > 0 && len(s.Packages) == 0 {
		out = append(out, fault{[]string{name, "packages"}, "packages are wanted and none is pinned"})
	}
	for i, p := range s.Packages {
		bad := func(key, format string, args ...any) {
			out = append(out, fault{[]string{name, "packages", strconv.Itoa(i), key}, fmt.Sprintf(format, args...)})
		}
		if !packageForm.MatchString(p.Name) {
			bad("name", "%q is no package name", p.Name)
		}
		if !versionForm.MatchString(p.Version) {
			bad("version", "%q is no package version", p.Version)
		}
		if p.Arch != "amd64" && p.Arch != "all" {
			bad("arch", "%q is neither amd64 nor all", p.Arch)
		}
		if !hashForm.MatchString(p.SHA256) {
			bad("sha256", "%q is not 64 hex digits", p.SHA256)
		}
		if p.Size <= 0 {
			bad("size", "the size must be more than 0")
		}
		if !pathForm.MatchString(p.Path) || strings.Contains(p.Path, "..") || strings.Contains(p.Path, "://") {
			bad("path", "%q is no path below a mirror", p.Path)
		}
		if i > 0 && s.Packages[i-1].Name >= p.Name {
			bad("name", "the packages must be sorted by name, each once")
		}
	}
	return out
}
