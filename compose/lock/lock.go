// SPDX-License-Identifier: Apache-2.0

// Package lock is what pins a stack and its operating system: image
// references to manifest digests, Debian packages to name, version and hash,
// and the tools the bake runs. A bake uses only what the lock says.
//
// The package reads, writes, merges and checks locks; registry.go is the only
// place that asks a registry or an OCI layout. It knows nothing of disks.
package lock

// FormatVersion is the version of the file format this package writes. A
// reader refuses a file with a higher number.
const FormatVersion = 1

// Lock pins everything a bake reads. Slices are sorted (images by reference,
// packages by name), so that equal locks are equal files.
type Lock struct {
	// Format is FormatVersion when written.
	Format int `yaml:"format" json:"format"`
	// Holdfast is the version of Holdfast that wrote the lock; a bake by
	// another version is refused, because its own files enter the image.
	Holdfast string `yaml:"holdfast" json:"holdfast"`
	// Go is the Go toolchain that builds the supervisor, e.g. "go1.26.8".
	Go string `yaml:"go" json:"go"`
	// Epoch, in seconds since 1970 UTC, is the one time of a bake: the
	// clamp of file times (SOURCE_DATE_EPOCH) and the signing time.
	Epoch int64 `yaml:"epoch" json:"epoch"`
	// Stack is the stack the images belong to.
	Stack StackPin `yaml:"stack" json:"stack"`
	// Images are the stack's images, sorted by Ref.
	Images []Image `yaml:"images" json:"images"`
	// OS are the packages of the root file system.
	OS PackageSet `yaml:"os" json:"os"`
	// Tools are the packages of the tools tree, which makes the initrd and
	// runs everything else a bake needs.
	Tools PackageSet `yaml:"tools" json:"tools"`

	// name is the file that Parse read, for errors.
	name string
}

// StackPin names a stack folder by its content.
type StackPin struct {
	Name string `yaml:"name" json:"name"`
	// Digest is stack.Stack.Digest: sha256 over the folder's reproducible
	// tar, "sha256:<64 hex>".
	Digest string `yaml:"digest" json:"digest"`
}

// Image pins one image reference of the stack.
type Image struct {
	// Ref is the reference exactly as the Compose file writes it, without a
	// digest, e.g. "holdfast.demo/web:1.0.0".
	Ref string `yaml:"ref" json:"ref"`
	// Digest is the digest of the linux/amd64 image manifest (never of an
	// index), "sha256:<64 hex>".
	Digest string `yaml:"digest" json:"digest"`
	// Size is the sum of the manifest's, the config's and the layers' bytes.
	Size int64 `yaml:"size" json:"size"`
}

// PackageSet is a closed set of Debian packages: nothing else is installed.
type PackageSet struct {
	// Suite is the Debian suite, "trixie".
	Suite string `yaml:"suite" json:"suite"`
	// Wanted are the names that were asked for; Packages is their closure.
	Wanted []string `yaml:"wanted" json:"wanted"`
	// Packages are sorted by name.
	Packages []Package `yaml:"packages" json:"packages"`
}

// Package pins one Debian package.
type Package struct {
	Name    string `yaml:"name" json:"name"`
	Version string `yaml:"version" json:"version"`
	// Arch is "amd64" or "all".
	Arch string `yaml:"arch" json:"arch"`
	// SHA256 of the .deb, 64 hex digits.
	SHA256 string `yaml:"sha256" json:"sha256"`
	// Size of the .deb in bytes.
	Size int64 `yaml:"size" json:"size"`
	// Path is the file's path below a mirror's root, "pool/main/…"; the
	// mirror itself is never in a lock.
	Path string `yaml:"path" json:"path"`
}
