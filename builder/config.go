// SPDX-License-Identifier: Apache-2.0

// Package builder turns a locked stack into a release and a bootable disk.
// It is given its inputs as values (what enters the root comes in as OS, from
// main) and knows nothing of the running box. Everything it runs outside this
// process runs in the tools tree (package tools).
package builder

import (
	"io/fs"
	"time"

	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/compose/release"
)

// Config is one bake. Paths may be relative to the working folder.
type Config struct {
	// Name and Version of the release: name [a-z0-9-]{1,40}, version a
	// semantic version.
	Name    string
	Version string
	// Stack is the Compose file; its folder is the stack folder.
	Stack string
	// Lock is the lock file; it must exist and match Stack.
	Lock string
	// Layouts are OCI layout folders searched for images, in order, before
	// any registry.
	Layouts []string
	// Archive is a folder made by `holdfast-release lock --archive`, searched
	// for packages before any mirror; may be empty.
	Archive string
	// Mirror replaces Debian's own mirror when not empty.
	Mirror string
	// ExtraPackages are Debian packages beyond those the box needs; they must
	// be in the lock.
	ExtraPackages []string
	// SlotSize is the size of each root partition in bytes; 0 means 768 MiB.
	SlotSize int64
	// DiskSize is the least length of disk.raw in bytes; 0 means as long as
	// the partitions plus 1 GiB.
	DiskSize int64
	// Factory says where the stack's images go: Embedded, the default of "",
	// into the factory partition; Seed nowhere, boxes fetch them by digest at
	// their first boot.
	Factory string
	// Epoch is the release's security epoch, 0 to release.MaxEpoch: it rises
	// where going back to what came before would bring a known hole back.
	Epoch int
	// MinFrom is the oldest version that boxes may come from; "" is any.
	MinFrom string
	// UpdateSource and UpdateChannel are where boxes look for later releases
	// unless they are told otherwise; "" is nowhere, and "stable".
	UpdateSource  string
	UpdateChannel string
	// GateDeadline and GateWindow are what a trial of this release has to be
	// healthy in, and for, in whole seconds; 0 is 15 minutes, and 10 seconds.
	GateDeadline time.Duration
	GateWindow   time.Duration
	// TrustRoot is a file of TUF root metadata, made by `holdfast-release keys
	// init`, that is sealed in the root: releases are fetched by boxes only
	// where it vouches for them. "" seals none, and such a box takes none.
	TrustRoot string
	// SigningKey and SigningCert are PEM files: an RSA private key and its
	// certificate. If neither file exists and MakeKey is set, a demo pair is
	// made there, and the Progress is told so loudly.
	SigningKey  string
	SigningCert string
	MakeKey     bool
	// Output is the folder to make, e.g. "dist/demo-1.0.0". It appears whole
	// or not at all; an older one of the same name is replaced only then.
	Output string
	// Cache is the folder for slow work; see CacheDir.
	Cache string
	// OS is what enters the root besides Debian packages.
	OS OS
}

// The values of Config.Factory and Manifest.Factory.
const (
	Embedded = "embedded"
	Seed     = release.Seed
)

// OS is what main hands the builder for the root file system.
type OS struct {
	// Files are baked verbatim below /; a file is executable only if Modes
	// says so.
	Files fs.FS
	// Modes overrides 0644 for files, by path without leading slash.
	Modes map[string]fs.FileMode
	// Links are symbolic links, path without leading slash -> target.
	Links map[string]string
	// Dirs are empty folders to make, mode 0755.
	Dirs []string
	// Remove are paths (globs allowed) that do not enter the image.
	Remove []string
	// Move are folders that lie elsewhere in the image, e.g. the package
	// database, which a box must not be able to lose with its state; it comes
	// before Remove.
	Move map[string]string
	// Packages are the Debian packages the box needs.
	Packages []string
	// Purge are packages that others drag in and the box does not need; they
	// are removed again, run by run, so that the package database stays true.
	Purge [][]string
	// InitrdModules are dracut modules, InitrdDrivers kernel modules,
	// InitrdOmit kernel modules that dracut would add unasked.
	InitrdModules []string
	InitrdDrivers []string
	InitrdOmit    []string
	// InitrdFiles enter the initrd verbatim, mode 0644; may be nil.
	InitrdFiles fs.FS
	// Cmdline is the kernel command line without what the builder adds for
	// dm-verity.
	Cmdline []string
	// Supervisor is the on-box program, a static linux/amd64 binary that
	// becomes /usr/bin/holdfast.
	Supervisor []byte
	// Engine names the container engine in the root; "" names it by the
	// versions of its packages in the lock.
	Engine string
}

// Result is a finished bake.
type Result struct {
	// Output is the absolute path of the output folder.
	Output string
	// Manifest is what manifest.json says.
	Manifest Manifest
	// Unchanged is true when the output folder already held this very bake.
	Unchanged bool
}

// Manifest is manifest.json of an output folder.
type Manifest struct {
	Format  int    `json:"format"`
	Name    string `json:"name"`
	Version string `json:"version"`
	// OSVersion is the version of the OS image, from its content.
	OSVersion string `json:"os_version"`
	// RootHash is the dm-verity root hash, 64 hex digits.
	RootHash string `json:"root_hash"`
	// Release is the digest of the release manifest in the folder "release",
	// "sha256:<hex>".
	Release string `json:"release"`
	// Factory is Embedded or Seed: whether the disk holds the stack's images.
	Factory string `json:"factory"`
	// Sizes are the machines that the stack's budgets were proven for,
	// smallest first.
	Sizes []budget.Size `json:"sizes"`
	// Inputs is the sha256 over everything the bake read.
	Inputs string `json:"inputs"`
	// Files in the output folder but this one and those below "release", whose
	// names are their digests.
	Files []ManifestFile `json:"files"`
	// Partitions of disk.raw in order.
	Partitions []ManifestPartition `json:"partitions"`
	// Steps are the only part that differs between two equal bakes.
	Steps []StepTime `json:"steps"`
}

// ManifestFile is one file of the output folder.
type ManifestFile struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// ManifestPartition is one partition of disk.raw; offsets and sizes in bytes.
type ManifestPartition struct {
	Label  string `json:"label"`
	UUID   string `json:"uuid"`
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"`
}

// StepTime is how long a step took.
type StepTime struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	// Cached is true when the step's product was in the cache.
	Cached bool `json:"cached"`
	// Bytes is the size of what the step made, 0 where it has none.
	Bytes int64 `json:"bytes"`
}

// Progress hears what a bake does. Implementations are called from several
// goroutines.
type Progress interface {
	// Say prints one line; Warn one that must not be missed.
	Say(format string, args ...any)
	Warn(format string, args ...any)
	// Done reports a finished step.
	Done(step StepTime)
}

// seconds rounds for people and manifests.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
