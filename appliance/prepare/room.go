// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/compose/release"
)

// margin is what stays free on state besides: the journal, and the files that
// an upgrade writes about itself.
const margin = 16 << 20

// room looks, before the first large byte, whether all will fit, takes the room
// for the images, and tells the meter how much there is.
func (r *run) room(slot slotFile, images []release.PartBlob) error {
	p := r.desc.Parts
	total := r.meter.sofar()
	parts := map[string]release.PartBlob{
		blobIn(r.folder, p.RootChunks.Digest): p.RootChunks,
		blobIn(r.folder, p.UKIChunks.Digest):  p.UKIChunks,
		blobIn(r.folder, p.SBOM.Digest):       p.SBOM,
	}
	if r.q.Target != "" {
		if n := r.desc.Verity.Bytes; slot.size < n {
			return &NoRoomError{Where: "the slot " + filepath.Base(r.q.Target), Need: n, Free: slot.size}
		}
		if f := r.q.ESPFree; f > 0 && f < p.UKI.Size {
			return &NoRoomError{Where: "the ESP", Need: p.UKI.Size, Free: f}
		}
		parts[filepath.Join(r.folder, UKIFile)] = p.UKI
		parts[filepath.Join(r.folder, BootFile)] = p.Boot
		total += p.Root.Size
	}
	for _, b := range images {
		if path := blobIn(ImagesDir(r.q.State), b.Digest); !r.inLayouts(b) || whole(path, b.Size) {
			parts[path] = b
		}
	}
	need := int64(margin) + r.q.Reserve
	for path, b := range parts {
		total += b.Size
		if !whole(path, b.Size) {
			need += max(0, b.Size-allocated(path+unverified))
		}
	}
	for _, b := range images {
		if _, counted := parts[blobIn(ImagesDir(r.q.State), b.Digest)]; !counted {
			total += b.Size
		}
	}
	r.meter.total(total)
	var st unix.Statfs_t
	if err := unix.Statfs(r.q.State, &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return &NoRoomError{Where: stateVolume, Need: need, Free: free}
	}
	for path, b := range parts {
		if whole(path, b.Size) {
			continue
		}
		if err := hold(path+unverified, b.Size); err != nil {
			return full(err, stateVolume)
		}
	}
	return nil
}

func (r *run) inLayouts(b release.PartBlob) bool {
	for _, dir := range r.q.Layouts {
		if whole(blobIn(dir, b.Digest), b.Size) {
			return true
		}
	}
	return false
}

// allocated is the room that a file has, in bytes.
func allocated(path string) int64 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return st.Blocks * 512
}

// hold takes the room of a file that is to be written.
func hold(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(reserve(f, size), f.Close())
}
