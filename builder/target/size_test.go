// SPDX-License-Identifier: Apache-2.0

package target

import "testing"

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"": 0, "768MiB": 768 * mib, "20 GiB": 20 * gib, "64TiB": 64 << 40} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"20", "20GB", "0GiB", "-1GiB", "65TiB", "16777217TiB", "999999999TiB", "1.5GiB", "1GiB "} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("%q is %d, want an error", s, got)
		}
	}
}
