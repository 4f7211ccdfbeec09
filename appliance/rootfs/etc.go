// SPDX-License-Identifier: Apache-2.0

package rootfs

// Outside is one file of /etc whose content does not come from the sealed
// root.
type Outside struct {
	// Path below /etc.
	Path string
	// From is what is read in its place.
	From string
	// Kept is the file on state that decides the content, "" where state has
	// no say.
	Kept string
	// By is who puts it there.
	By string
}

// FromOutside is the whole list: whatever is not in it is as the root hash
// says. docs/etc-from-state.md is this table in words.
func FromOutside() []Outside {
	return []Outside{
		{
			Path: "machine-id", From: "/run/machine-id", Kept: "/var/lib/holdfast/identity/machine-id",
			By: "PID 1, then holdfast-identity.service",
		},
		{Path: "hostname", From: "/run/holdfast/hostname", By: "holdfast-config-local.service, holdfast-config.service"},
		{Path: "mtab", From: "/proc/self/mounts", By: "the kernel"},
		{Path: "resolv.conf", From: "/run/systemd/resolve/stub-resolv.conf", By: "systemd-resolved.service"},
	}
}
