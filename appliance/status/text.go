// SPDX-License-Identifier: Apache-2.0

package status

import "strings"

// Announcement is one line for a console: which box, what runs, where, how it
// does.
func (r Report) Announcement() string {
	text := r.Hostname
	if text == "" {
		text = "this box"
	}
	if r.Release.Name != "" {
		text += " (" + strings.TrimSpace(r.Release.Name+" "+r.Release.Version) + ")"
	}
	where := r.URLs
	if len(where) == 0 {
		for _, a := range r.Addresses {
			where = append(where, a.Address)
		}
	}
	if len(where) == 0 {
		where = []string{"no network address"}
	}
	return text + ": " + strings.Join(where, " ") + " " + r.Stack
}

// Access is one line on how an admin gets in, "" where nobody does.
func (r Report) Access() string {
	if !r.SSH.Enabled {
		return ""
	}
	text := "admin access: ssh root@"
	if len(r.Addresses) == 0 {
		text += "(no network address)"
	} else {
		text += r.Addresses[0].Address
	}
	return text + ", host key " + r.SSH.HostKey
}

// Printable is text without control characters: some of it comes from
// outside, and a terminal obeys what it is shown.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return '?'
		}
		return r
	}, text)
}
