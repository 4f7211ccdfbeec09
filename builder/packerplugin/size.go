// SPDX-License-Identifier: Apache-2.0

package packerplugin

import (
	"fmt"
	"regexp"
	"strconv"
)

// sizeRE is a whole number and a binary unit. Decimal units are refused: a
// partition of "768MB" would be a size that no one meant.
var sizeRE = regexp.MustCompile(`^([1-9][0-9]{0,8}) ?(MiB|GiB|TiB)$`)

// maxSize bounds a size to what a GPT disk of one machine may reasonably be.
const maxSize = 64 << 40

// parseSize reads "768MiB" or "10GiB" as bytes.
func parseSize(s string) (int64, error) {
	m := sizeRE.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is not a size: write a whole number with MiB, GiB or TiB, such as \"768MiB\" or \"10GiB\"", s)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, err
	}
	n <<= map[string]uint{"MiB": 20, "GiB": 30, "TiB": 40}[m[2]]
	if n <= 0 || n > maxSize {
		return 0, fmt.Errorf("%q is more than the 64TiB this can make", s)
	}
	return n, nil
}

// size is parseSize for a key that may be left out (0).
func size(key, s string, report func(key, format string, args ...any)) int64 {
	if s == "" {
		return 0
	}
	n, err := parseSize(s)
	if err != nil {
		report(key, "%v", err)
	}
	return n
}
