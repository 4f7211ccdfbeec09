// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/images/chunk"
	"github.com/holdfast/holdfast/images/verity"
)

const (
	// squashfsMagic begins a squashfs; its length lies at squashfsLength.
	squashfsMagic  = "hsqs"
	squashfsLength = 40
	// probeEvery is how far apart a slot is looked at for content.
	probeEvery = 16 << 20
)

// slotFile is the device of the slot that is written, and its size.
type slotFile struct {
	*os.File
	size int64
}

// openSlot opens a slot's device for writing, which fails while it is in use,
// and in any case for the running one.
func openSlot(path, running string) (slotFile, error) {
	st, err := os.Stat(path)
	if err != nil {
		return slotFile{}, fmt.Errorf("the slot to be written: %w", err)
	}
	if run, err := os.Stat(running); err == nil && same(st, run) {
		return slotFile{}, fmt.Errorf("the slot to be written, %s, is the running one", path)
	}
	flags := os.O_RDWR
	if st.Mode()&os.ModeDevice != 0 {
		flags |= unix.O_EXCL
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return slotFile{}, fmt.Errorf("the slot to be written: %w", err)
	}
	n, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return slotFile{}, err
	}
	return slotFile{f, n}, nil
}

// same says whether two names are one file, or of one device.
func same(a, b os.FileInfo) bool {
	if os.SameFile(a, b) {
		return true
	}
	x, ok := a.Sys().(*syscall.Stat_t)
	y, ok2 := b.Sys().(*syscall.Stat_t)
	return ok && ok2 && a.Mode()&b.Mode()&os.ModeDevice != 0 && x.Rdev == y.Rdev
}

// squashfsSize is the length of a root without its hash tree, 0 where there is
// none.
func squashfsSize(r io.ReaderAt, size int64) int64 {
	b := make([]byte, squashfsLength+8)
	if _, err := r.ReadAt(b, 0); err != nil || string(b[:4]) != squashfsMagic {
		return 0
	}
	n := binary.LittleEndian.Uint64(b[squashfsLength:])
	if n > uint64(size) {
		return 0
	}
	return min(size, (int64(n)+verity.BlockSize-1)/verity.BlockSize*verity.BlockSize)
}

// blank says whether there is nothing but zeros wherever it is looked.
func blank(r io.ReaderAt, size int64) bool {
	b := make([]byte, verity.BlockSize)
	for at := int64(0); at < size; at += probeEvery {
		n, _ := r.ReadAt(b, at)
		for _, c := range b[:n] {
			if c != 0 {
				return false
			}
		}
	}
	return true
}

// root brings the root into the slot, makes its hash tree and wants the root
// hash.
func (r *run) root(ctx context.Context, slot slotFile, index chunk.Index) error {
	d, p := r.desc, r.desc.Parts.Root
	r.meter.step("look", "the root image: looking what is on the box", 0)
	t := target{file: slot}
	if !blank(slot, p.Size) {
		// What an interrupted run left, or an older release.
		old, err := chunk.Make(ctx, io.NewSectionReader(slot, 0, min(slot.size, max(p.Size, squashfsSize(slot, slot.size)))))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			t.old = newDonor(slot, old)
		}
	}
	donors, release := r.rootDonors(ctx)
	defer release()
	r.meter.step("root", "the root image", p.Size)
	if err := r.rebuild(ctx, "the root image", p.Digest, index, t, donors); err != nil {
		return err
	}
	r.meter.step("verify", "the root image: making its hash tree", d.Verity.Bytes-p.Size)
	// Read from the disk, not from memory, what will be booted.
	_ = unix.Fadvise(int(slot.Fd()), 0, p.Size, unix.FADV_DONTNEED)
	salt, err := hex.DecodeString(d.Verity.Salt)
	if err != nil {
		return err
	}
	var uuid [16]byte
	if _, err := hex.Decode(uuid[:], []byte(d.Verity.UUID)); err != nil {
		return err
	}
	hash, err := verity.Format(ctx, slot, p.Size, slot, p.Size, salt, uuid)
	if err != nil {
		return fmt.Errorf("the root image in its slot: %w", err)
	}
	if got := hex.EncodeToString(hash[:]); got != d.OS.RootHash {
		// Nothing shall take this for a root.
		if _, err := slot.WriteAt(make([]byte, verity.BlockSize), 0); err != nil {
			return err
		}
		if err := slot.Sync(); err != nil {
			return err
		}
		return &RefusedError{"the root image", fmt.Sprintf("is not what is signed: its root hash is %s, not %s; the slot has been made unusable", got, d.OS.RootHash)}
	}
	return slot.Sync()
}

// rootDonors is the running slot. Where it can't be read the root is fetched
// whole.
func (r *run) rootDonors(ctx context.Context) (donors []*donor, release func()) {
	release = func() {}
	if r.q.Running == "" {
		return nil, release
	}
	f, err := os.Open(r.q.Running)
	if err != nil {
		return nil, release
	}
	release = func() { f.Close() }
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, release
	}
	n := squashfsSize(f, size)
	if n == 0 {
		return nil, release
	}
	if x, ok := r.runningIndex(n); ok {
		return []*donor{newDonor(f, x)}, release
	}
	x, err := chunk.Make(ctx, io.NewSectionReader(f, 0, n))
	if err != nil {
		return nil, release
	}
	return []*donor{newDonor(f, x)}, release
}

// runningIndex is the chunk index of the running root, where its release's
// folder has one. It need not be right: each chunk is held against its sum.
func (r *run) runningIndex(size int64) (chunk.Index, bool) {
	if r.q.RunningDigest == "" {
		return chunk.Index{}, false
	}
	dir := ReleaseDir(r.q.State, r.q.RunningDigest)
	d, err := described(dir, r.q.RunningDigest)
	if err != nil || d.Parts == nil || d.Parts.Root.Size != size {
		return chunk.Index{}, false
	}
	b, err := verified(dir, d.Parts.RootChunks.Digest, release.MaxChunks)
	if err != nil {
		return chunk.Index{}, false
	}
	x, err := chunk.Decode(b, size)
	return x, err == nil && x.Size == size
}

// uki brings the kernel image into a file, by chunks of those on the box.
func (r *run) uki(ctx context.Context, index chunk.Index, path string) error {
	p := r.desc.Parts.UKI
	r.meter.step("uki", "the kernel image", p.Size)
	if whole(path, p.Size) {
		if right, err := r.fileIs(ctx, path, p); err != nil {
			return err
		} else if right {
			r.meter.done(p.Size, true)
			return nil
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path+unverified, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return full(err, stateVolume)
	}
	defer f.Close()
	if err := reserve(f, p.Size); err != nil {
		return full(err, stateVolume)
	}
	t := target{file: f}
	if old, err := chunk.Make(ctx, io.NewSectionReader(f, 0, p.Size)); err == nil && old.Size > 0 {
		t.old = newDonor(f, old)
	}
	var donors []*donor
	ukis := r.q.UKIs
	if r.q.RunningDigest != "" {
		ukis = append(ukis[:len(ukis):len(ukis)], filepath.Join(ReleaseDir(r.q.State, r.q.RunningDigest), UKIFile))
	}
	for _, name := range ukis {
		d, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		defer d.Close()
		if x, err := chunk.Make(ctx, io.LimitReader(d, release.MaxUKI)); err == nil {
			donors = append(donors, newDonor(d, x))
		}
	}
	if err := r.rebuild(ctx, "the kernel image", p.Digest, index, t, donors); err != nil {
		return full(err, stateVolume)
	}
	if err := f.Truncate(p.Size); err != nil {
		return err
	}
	right, err := r.fileIs(ctx, path+unverified, p)
	if err != nil {
		return err
	}
	if !right {
		if err := os.Remove(path + unverified); err != nil {
			return err
		}
		return &RefusedError{"the kernel image", "is not what is signed: its chunks make another file"}
	}
	return finish(f, path)
}
