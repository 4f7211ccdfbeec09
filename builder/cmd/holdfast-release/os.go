// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/holdfast/holdfast/appliance/rootfs"
	"github.com/holdfast/holdfast/builder"
)

// operatingSystem hands the box's root file system, which builder may not
// know, to the builder; the plugin does the same.
func operatingSystem() builder.OS {
	s := rootfs.Spec()
	return builder.OS{
		Files: s.Files, Modes: s.Modes, Links: s.Links, Dirs: s.Dirs, Remove: s.Remove, Move: s.Moves,
		Packages: s.Packages, Purge: s.Purge,
		InitrdModules: s.InitrdModules, InitrdDrivers: s.InitrdDrivers, InitrdOmit: s.InitrdOmit, InitrdFiles: s.InitrdFiles, Cmdline: s.Cmdline,
	}
}
