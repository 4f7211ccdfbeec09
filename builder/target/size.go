// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"
	"regexp"
	"strconv"
)

// sizeRE takes no decimal units and no bare numbers: the sizes of disks are
// binary, and "20GB" would be a size that no one meant.
var sizeRE = regexp.MustCompile(`^([1-9][0-9]{0,8}) ?(MiB|GiB|TiB)$`)

// maxSize is the longest disk in bytes that a size may ask for.
const maxSize = 64 << 40

// ParseSize reads "768MiB" or "20GiB" as bytes, at most 64 TiB; "" is 0.
func ParseSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	m := sizeRE.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is not a size: write a whole number with MiB, GiB or TiB, such as \"20GiB\"", s)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, err
	}
	unit := map[string]int64{"MiB": mib, "GiB": gib, "TiB": 1 << 40}[m[2]]
	if n > maxSize/unit {
		return 0, fmt.Errorf("%q is more than the 64TiB this can make", s)
	}
	return n * unit, nil
}
