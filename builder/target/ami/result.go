// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"encoding/json"
	"path/filepath"
	"strings"

	"github.com/holdfast/holdfast/images/durable"
)

// Result is what a run made; it lies in the output folder as
// NAME-VERSION.ami.json.
type Result struct {
	Format int `json:"format"`
	// Target is "ami".
	Target string `json:"target"`
	// Name of the images, Region of the upload.
	Name    string `json:"name"`
	Region  string `json:"region"`
	Release string `json:"release"`
	// RootHash is the dm-verity root hash of the disk, DiskSHA256 the hash of
	// disk.raw, VolumeGiB the length of a machine's disk in GiB.
	RootHash   string  `json:"root_hash"`
	DiskSHA256 string  `json:"disk_sha256"`
	VolumeGiB  int64   `json:"volume_gib"`
	Images     []Image `json:"images"`
	// File is the record's own path.
	File string `json:"-"`
}

// Image is what lies in one region.
type Image struct {
	Region string `json:"region"`
	// ID is "" where only a snapshot was made.
	ID       string `json:"ami,omitempty"`
	Snapshot string `json:"snapshot"`
}

// ID lists "region:id", the region of the upload first.
func (r Result) ID() string {
	var list []string
	for _, im := range r.Images {
		list = append(list, im.Region+":"+or(im.ID, im.Snapshot))
	}
	return strings.Join(list, ",")
}

// finish writes the record and forgets the state. The images are there by now,
// so that a record that cannot be written is no failure.
func (s *session) finish() (*Result, error) {
	r := &Result{Format: 1, Target: "ami", Name: s.o.Name, Region: s.o.Region, Release: s.d.Release(), RootHash: s.d.Manifest.RootHash,
		DiskSHA256: s.d.SHA256(), VolumeGiB: max(s.o.VolumeGiB, s.gib())}
	for _, region := range s.o.all() {
		r.Images = append(r.Images, Image{region, s.images[region], s.roots[region]})
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(s.d.Dir, s.d.Release()+".ami.json")
	if err := durable.WriteFile(file, append(b, '\n'), 0o644); err != nil {
		s.rep.Warn("%s was made, but not written down: %v", r.ID(), err)
	} else {
		r.File = file
	}
	if err := s.store.forget(); err != nil {
		s.rep.Warn("the state of this upload stays: %v", err)
	}
	return r, nil
}
