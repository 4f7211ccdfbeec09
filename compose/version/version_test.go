// SPDX-License-Identifier: Apache-2.0

package version

import (
	"strings"
	"testing"
)

func TestValid(t *testing.T) {
	for s, want := range map[string]bool{
		"1.0.0": true, "0.0.1-rc.1+build.5": true, "10.20.30": true,
		"": false, "1": false, "1.0": false, "v1.0.0": false, "01.0.0": false, "1.0.0-": false, "1.0.0 ": false, "1.0.0-01": false, "latest": false,
		"1.0.0+" + strings.Repeat("a", most): false,
	} {
		if Valid(s) != want {
			t.Errorf("Valid(%q) = %v", s, !want)
		}
	}
}

func TestCompare(t *testing.T) {
	inOrder := []string{"0.9.0", "1.0.0-rc.1", "1.0.0-rc.2", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0.0"}
	for i, a := range inOrder {
		for j, b := range inOrder {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := Compare(a, b); got != want {
				t.Errorf("Compare(%s, %s) = %d, want %d", a, b, got, want)
			}
		}
	}
	if Compare("1.0.0+a", "1.0.0+b") != 0 || Newest("1.9.0", "1.10.0") != "1.10.0" || Newest("2.0.0", "1.0.0") != "2.0.0" {
		t.Error("build metadata counts, or the newest is not")
	}
}

func FuzzValid(f *testing.F) {
	f.Add("1.0.0", "1.0.0-rc.1")
	f.Fuzz(func(t *testing.T, a, b string) {
		if Valid(a) && Valid(b) && Compare(a, b) != -Compare(b, a) {
			t.Errorf("%q and %q compare differently both ways", a, b)
		}
		// What is kept as a tag of a volume group must fit there.
		if Valid(a) && strings.Trim(a, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-+") != "" {
			t.Errorf("%q is taken", a)
		}
	})
}
