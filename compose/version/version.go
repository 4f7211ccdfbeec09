// SPDX-License-Identifier: Apache-2.0

// Package version compares the versions of releases: semantic versions 2.0.0
// as written in full, "1.2.3-rc.1+build.5", without a leading v. It refuses
// the short forms ("1.2"), which would compare as something nobody wrote.
package version

import (
	"regexp"

	"golang.org/x/mod/semver"
)

// most bounds a version in bytes: it is kept in places with little room.
const most = 100

var full = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

// Valid says whether s is a semantic version, written in full.
func Valid(s string) bool {
	return len(s) <= most && full.MatchString(s) && semver.IsValid("v"+s)
}

// Compare is -1, 0 or 1 as a is older than, as old as or newer than b, by
// precedence: what follows a + does not count. Both must be Valid.
func Compare(a, b string) int { return semver.Compare("v"+a, "v"+b) }

// Newest is the newer of two Valid versions.
func Newest(a, b string) string {
	if Compare(a, b) < 0 {
		return b
	}
	return a
}
