// SPDX-License-Identifier: Apache-2.0

package packerplugin

import "github.com/holdfast/holdfast/builder/target"

// size reads a size in bytes; 0 where the key is left out.
func size(key, s string, report func(key, format string, args ...any)) int64 {
	n, err := target.ParseSize(s)
	if err != nil {
		report(key, "%v", err)
	}
	return n
}
