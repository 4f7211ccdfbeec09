// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/holdfast/holdfast/appliance/status"
)

// upgradeRows prints what is known of other releases in a line or two.
func upgradeRows(t io.Writer, r status.Report) {
	u := r.Upgrade
	if u == nil {
		return
	}
	if text := upgradeText(*u); text != "" {
		fmt.Fprintf(t, "upgrade\t%s\n", text)
	}
	var also []string
	if u.Available != "" {
		also = append(also, u.Available+" is available")
	}
	if u.Kept != "" {
		also = append(also, fmt.Sprintf("%s is kept as generation %d", u.Kept, u.KeptGeneration))
	}
	if len(also) > 0 {
		fmt.Fprintf(t, "releases\t%s\n", status.Printable(strings.Join(also, ", ")))
	}
}

// upgradeText is what is under way, or how the last one ended.
func upgradeText(u status.Upgrade) string {
	if text := progressText(u); text != "" {
		if u.Trial {
			text += ", closed to the outside"
			if !u.Deadline.IsZero() {
				text += " until " + u.Deadline.UTC().Format("15:04:05") + " UTC at most"
			}
		}
		return status.Printable(text)
	}
	if u.Last == nil {
		return ""
	}
	text := fmt.Sprintf("last: %s to %s, %s", u.Last.Kind, u.Last.To, u.Last.Result)
	if u.Last.Why != "" {
		text += ": " + u.Last.Why
	}
	return status.Printable(text)
}
