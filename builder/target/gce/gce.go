// SPDX-License-Identifier: Apache-2.0

// Package gce makes a baked disk into an image of Google Compute Engine: a
// tar.gz beside the disk, and, where a project and a bucket are given, an image
// made of it there. It looks before it uploads, every wait has a deadline, and
// what a failed or interrupted run has put into the cloud is removed again: at
// the end there is the image that was asked for, or nothing. It changes nothing
// else in the project.
package gce

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast/holdfast/builder/target"
	"github.com/holdfast/holdfast/compose/budget"
	"github.com/holdfast/holdfast/images/gcetar"
)

const gib = int64(1) << 30

// Config is what to make of an output folder.
type Config struct {
	// Dir is the output folder of a bake.
	Dir string
	// File is the name of the archive in it; by default <release>-gce.tar.gz.
	File string
	// DiskSize is the least length of a machine's disk in bytes, rounded up to
	// GiB; 0 means that of the size profile, or disk.raw's where it is longer.
	DiskSize int64
	// Size is the size profile, "" for the default.
	Size string
	// Upload is nil where the file is all that is wanted.
	Upload *Upload
}

// Upload is the image to make in the cloud.
type Upload struct {
	// Project and Bucket are required.
	Project, Bucket string
	// Object is the name of the archive in the bucket while it is needed; by
	// default the image's name and the archive's hash.
	Object string
	// KeepObject leaves it there.
	KeepObject bool

	// ImageName by default follows from the release.
	ImageName   string
	Family      string
	Description string
	Labels      map[string]string
	// StorageLocations is at most one region or multi-region.
	StorageLocations []string
	Licenses         []string
	// Features of the guest beside DefaultFeatures.
	Features []string
	// KMSKey encrypts the image, KMSServiceAccount is who uses the key.
	KMSKey, KMSServiceAccount string
	// SecureBoot is the key set of machines made of the image; nil for
	// Google's own.
	SecureBoot *KeySet
	// Overwrite replaces an image of the same name.
	Overwrite bool
	// Members may use the image: "user:jo@example.com" and the like.
	Members []string
	// Public lets every Google account use it.
	Public bool

	Credentials Credentials
	// StorageEndpoint and ComputeEndpoint are "" for Google's own.
	StorageEndpoint, ComputeEndpoint string
	// Timeout is for the whole, StateTimeout for each wait for the image; 0
	// means DefaultTimeout and DefaultStateTimeout.
	Timeout, StateTimeout time.Duration

	// limits are shorter in tests; nil for the usual ones.
	limits *limits
}

// Defaults of Upload.
const (
	DefaultTimeout      = 2 * time.Hour
	DefaultStateTimeout = 30 * time.Minute
)

// DefaultFeatures are what every image says of its guest: the disk boots by
// UEFI only, and the kernel has both drivers.
func DefaultFeatures() []string {
	return []string{"UEFI_COMPATIBLE", "GVNIC", "VIRTIO_SCSI_MULTIQUEUE"}
}

// Progress hears what happens; it may be called from several goroutines.
type Progress interface {
	Say(format string, args ...any)
	Warn(format string, args ...any)
}

// Result is what was made.
type Result struct {
	// Path of the archive; the record lies beside it.
	Path   string
	Record target.Record
	// Unchanged is true when it was there already.
	Unchanged bool
	// Image is nil without an upload.
	Image *Image
}

// Image is an image in the cloud, ready for use.
type Image struct {
	Project, Name, SelfLink, Family string
	// Locations are where it is kept; Object is "" when that was deleted.
	Locations []string
	Bucket    string
	Object    string
}

// Run makes the archive, unless it is there already, and the image.
func Run(ctx context.Context, c Config, p Progress) (*Result, error) {
	d, err := target.Open(c.Dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if c.Upload != nil {
		// Names that follow from the release can be bad too: say so before
		// minutes of work.
		u := c.Upload.withDefaults(d.Release())
		if err := u.Check(); err != nil {
			return nil, err
		}
		c.Upload = &u
	}
	r, err := c.archive(ctx, d, p)
	if err != nil || c.Upload == nil {
		return r, err
	}
	r.Image, err = c.Upload.publish(ctx, r.Path, r.Record, p)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// archive makes the file.
func (c Config) archive(ctx context.Context, d *target.Disk, p Progress) (*Result, error) {
	capacity, err := c.capacity(d)
	if err != nil {
		return nil, err
	}
	spec := target.Spec{Target: "gce", Name: c.File, DiskBytes: capacity, Options: map[string]int{"encoder": gcetar.Version}}
	if spec.Name == "" {
		spec.Name = d.Release() + "-gce.tar.gz"
	}
	meter := target.NewMeter(spec.Name, p.Say)
	r := &Result{Path: filepath.Join(d.Dir, spec.Name)}
	r.Record, r.Unchanged, err = d.Make(ctx, spec, func(ctx context.Context, f *os.File) error {
		return gcetar.Write(ctx, f, d.File, d.Runs, d.Size, capacity, gcetar.Options{Progress: meter.Progress})
	})
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", r.Path, err)
	}
	return r, nil
}

// capacity is the length of a machine's disk, in bytes. A profile's disk gives
// way to a longer disk.raw, what somebody asked for does not.
func (c Config) capacity(d *target.Disk) (int64, error) {
	if c.DiskSize != 0 {
		return d.Capacity("disk_size", c.DiskSize, gcetar.Unit)
	}
	size, err := budget.SizeIn(d.Manifest.Sizes, c.Size)
	if err != nil {
		return 0, fmt.Errorf("size: %w", err)
	}
	return d.Capacity("disk_size", max(int64(size.DiskGiB)*gib, d.Size), gcetar.Unit)
}
