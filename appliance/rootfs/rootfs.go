// SPDX-License-Identifier: Apache-2.0

// Package rootfs is what makes a Debian root a Holdfast root: the files baked
// into it verbatim (folder files) and the tables of packages, links, removals,
// initrd parts and kernel command line. It is data only; main hands it to the
// builder. It refuses to hold anything of a release: name, version and stack
// never enter the root.
package rootfs

import (
	"embed"
	"io/fs"
	"slices"
)

//go:embed all:files
var files embed.FS

// initrdFiles are what the initrd holds besides dracut's choice.
//
//go:embed all:initrd
var initrdFiles embed.FS

// Set is what enters the root besides the packages' own content. The builder
// applies it in the order of the fields from Purge on.
type Set struct {
	// Packages are the Debian packages the box needs.
	Packages []string
	// Purge are packages to purge once all are installed, run by run: they
	// only meet a dependency that the box does not use.
	Purge [][]string
	// Moves are paths that change their place, from -> to.
	Moves map[string]string
	// Remove are paths, globs allowed, that do not enter the image.
	Remove []string
	// Dirs are folders to make, mode 0755.
	Dirs []string
	// Links are symbolic links, path -> target.
	Links map[string]string
	// Files are baked verbatim, mode 0644 where Modes says nothing else.
	Files fs.FS
	Modes map[string]fs.FileMode
	// InitrdModules are dracut modules, InitrdDrivers kernel modules,
	// InitrdOmit kernel modules that dracut would add unasked.
	InitrdModules, InitrdDrivers, InitrdOmit []string
	// InitrdFiles enter the initrd verbatim, mode 0644.
	InitrdFiles fs.FS
	// Cmdline is the kernel command line without the words for dm-verity.
	Cmdline []string
}

// Spec gives the set. All paths are without a leading slash; nothing in it is
// shared, the caller may change it.
func Spec() Set {
	tree, err := fs.Sub(files, "files")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	initrd, err := fs.Sub(initrdFiles, "initrd")
	if err != nil {
		panic(err) // so is this one
	}
	s := Set{
		Packages: slices.Clone(packages),
		Moves:    map[string]string{"var/lib/dpkg": "usr/lib/sysimage/dpkg"},
		Remove:   slices.Clone(remove),
		Dirs:     slices.Clone(dirs),
		Links:    links(),
		Files:    tree,
		// Everything is data; the one program comes from the builder.
		Modes:         map[string]fs.FileMode{"etc/machine-id": 0o444},
		InitrdModules: slices.Clone(initrdModules),
		InitrdDrivers: slices.Clone(initrdDrivers),
		InitrdOmit:    slices.Clone(initrdOmit),
		InitrdFiles:   initrd,
		Cmdline:       slices.Clone(cmdline),
	}
	for _, run := range purge {
		s.Purge = append(s.Purge, slices.Clone(run))
	}
	return s
}
