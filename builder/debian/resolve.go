// SPDX-License-Identifier: Apache-2.0

// Package debian finds, keeps and installs Debian packages: it resolves wanted
// names to a closed, pinned set, fetches .deb files into a cache by hash, and
// makes flat repositories and root file systems of exactly a pinned set. It
// trusts a package only by the hash in a lock, and refuses a set of which one
// package can no longer be had.
package debian

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/compose/lock"
)

// Suite is the Debian suite everything is made from.
const Suite = "trixie"

// Set is one list of wanted packages to resolve.
type Set struct {
	// Name identifies the set in the answer.
	Name string
	// Wanted are package names.
	Wanted []string
	// Essential adds Debian's essential packages: a root that dpkg runs in.
	Essential bool
	// NoDeps takes the wanted packages alone, without what they depend on.
	NoDeps bool
}

// Request asks for several sets from the same state of the mirror.
type Request struct {
	Sets []Set
	// Mirror replaces the mirrors mmdebstrap picks by itself when not empty.
	Mirror string
}

// Resolve asks the mirror, through apt run by mmdebstrap on the host, for the
// closure of each set. It needs root, mmdebstrap and the mirror; nothing is
// installed.
func Resolve(ctx context.Context, r Request) (map[string]lock.PackageSet, error) {
	if err := hostReady(); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "holdfast-resolve-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	var hook strings.Builder
	hook.WriteString("set -eu; export APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\";")
	for i, s := range r.Sets {
		for _, w := range s.Wanted {
			if !validName(w) {
				return nil, fmt.Errorf("%q is no Debian package name (set %s)", w, s.Name)
			}
		}
		wanted := strings.Join(s.Wanted, " ")
		if s.NoDeps {
			fmt.Fprintf(&hook, " apt-cache show --no-all-versions %s > %s/%d.show 2>%s/%d.err || { cat %s/%d.err >&2; exit 1; };", wanted, tmp, i, tmp, i, tmp, i)
			continue
		}
		essential := ""
		if s.Essential {
			essential = "'?essential'"
		}
		fmt.Fprintf(&hook, " apt-get --print-uris -qq --no-install-recommends install %s %s > %s/%d.uris;", essential, wanted, tmp, i)
		fmt.Fprintf(&hook, " awk '{split($2,a,\"_\"); print a[1]\"=\"a[2]}' %s/%d.uris | sed 's/%%3a/:/' | xargs apt-cache show > %s/%d.show;", tmp, i, tmp, i)
	}
	args := []string{"mmdebstrap", "--quiet", "--variant=custom", "--format=directory",
		"--customize-hook=" + hook.String(), "--skip=cleanup", Suite, filepath.Join(tmp, "root")}
	if r.Mirror != "" {
		args = append(args, r.Mirror)
	}
	if out, err := run(ctx, args); err != nil {
		return nil, resolveError(out, err)
	}
	answer := make(map[string]lock.PackageSet, len(r.Sets))
	for i, s := range r.Sets {
		b, err := os.ReadFile(filepath.Join(tmp, strconv.Itoa(i)+".show"))
		if err != nil {
			return nil, err
		}
		pkgs, err := parseShow(b)
		if err != nil {
			return nil, fmt.Errorf("set %s: %w", s.Name, err)
		}
		w := slices.Clone(s.Wanted)
		slices.Sort(w)
		answer[s.Name] = lock.PackageSet{Suite: Suite, Wanted: slices.Compact(w), Packages: pkgs}
	}
	return answer, nil
}

// resolveError turns mmdebstrap's output into one sentence: which packages do
// not exist, or that the mirror does not answer.
func resolveError(out []byte, err error) error {
	var missing []string
	network := false
	sc := bufio.NewScanner(bytes.NewReader(out))
	for sc.Scan() {
		l := sc.Text()
		if _, name, ok := strings.Cut(l, "Unable to locate package "); ok {
			missing = append(missing, strings.TrimSpace(name))
		}
		for _, m := range []string{"Failed to fetch", "Could not resolve", "Could not connect", "Temporary failure", "Unable to connect", "Connection failed"} {
			network = network || strings.Contains(l, m)
		}
	}
	switch {
	case len(missing) > 0:
		return fmt.Errorf("no such Debian package in %s: %s; mend the name in extra_packages or the recipe", Suite, strings.Join(missing, ", "))
	case network:
		return errors.New("the Debian mirror does not answer: check the network, set a mirror that works (mirror), or give an archive made by `holdfast-release lock --archive DIR` (archive)")
	}
	return fmt.Errorf("resolving Debian packages: %w\n%s", err, lastLines(out, 12))
}

// parseShow reads `apt-cache show` stanzas: the first of each name counts.
func parseShow(b []byte) ([]lock.Package, error) {
	seen := map[string]bool{}
	var pkgs []lock.Package
	for _, stanza := range strings.Split(string(b), "\n\n") {
		f := fields(stanza)
		name := f["Package"]
		if name == "" || seen[name] {
			continue
		}
		size, err := strconv.ParseInt(f["Size"], 10, 64)
		if err != nil || len(f["SHA256"]) != 64 || f["Filename"] == "" {
			return nil, fmt.Errorf("the mirror's index says no usable size, hash and path for %s", name)
		}
		seen[name] = true
		pkgs = append(pkgs, lock.Package{Name: name, Version: f["Version"], Arch: f["Architecture"],
			SHA256: f["SHA256"], Size: size, Path: f["Filename"]})
	}
	if len(pkgs) == 0 {
		return nil, errors.New("the mirror's index names no package")
	}
	sort.Slice(pkgs, func(i, j int) bool { return pkgs[i].Name < pkgs[j].Name })
	return pkgs, nil
}

// fields reads the single-line fields of a control stanza.
func fields(stanza string) map[string]string {
	f := map[string]string{}
	for _, l := range strings.Split(stanza, "\n") {
		if l == "" || l[0] == ' ' || l[0] == '\t' {
			continue
		}
		if k, v, ok := strings.Cut(l, ":"); ok {
			f[k] = strings.TrimSpace(v)
		}
	}
	return f
}

// validName holds a name to Debian policy 5.6.1, so that it can stand on a
// command line.
func validName(s string) bool {
	if len(s) < 2 || len(s) > 100 {
		return false
	}
	for i, c := range s {
		lower := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !lower && (i == 0 || c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return true
}

// lastLines is the end of a program's output, for an error.
func lastLines(b []byte, n int) string {
	l := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(l[max(0, len(l)-n):], "\n")
}
