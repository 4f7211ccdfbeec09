// SPDX-License-Identifier: Apache-2.0

// Package show writes sizes and steps the way a person reads them, alike in
// Packer's output and on the command line.
package show

import (
	"fmt"
	"strings"

	"github.com/holdfast/holdfast/builder"
)

// Step is a finished step in columns: name, seconds, size, whether it was
// cached.
func Step(s builder.StepTime) string {
	size := ""
	if s.Bytes > 0 {
		size = Bytes(s.Bytes)
	}
	line := fmt.Sprintf("%-24s %8.1f s  %11s", s.Name, s.Seconds, size)
	if s.Cached {
		line += "  cached"
	}
	return strings.TrimRight(line, " ")
}

// Bytes is a size with one digit after the point and a binary unit.
func Bytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/unit, 0
	for ; v >= unit && i < 3; i++ {
		v /= unit
	}
	return fmt.Sprintf("%.1f %s", v, []string{"KiB", "MiB", "GiB", "TiB"}[i])
}
