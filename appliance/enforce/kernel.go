// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/appliance/enforce/quota"
	"github.com/holdfast/holdfast/images/durable"
)

// Kernel is the Quotas of the running machine.
type Kernel struct{}

// Project implements Quotas.
func (Kernel) Project(path string) (uint32, bool, error) { return quota.Project(path) }

// Adopt implements Quotas.
func (Kernel) Adopt(ctx context.Context, path string, id uint32) error {
	return quota.Adopt(ctx, path, id)
}

// OfProject implements Quotas.
func (Kernel) OfProject(path string, id uint32) (quota.Usage, error) {
	return quota.OfProject(path, id)
}

// SetLimit implements Quotas.
func (Kernel) SetLimit(path string, id uint32, limit int64) error {
	return quota.SetLimit(path, id, limit)
}

// Observed is the Quotas of a machine that is not ours: its file systems count
// projects for others, if at all, and who gives out their numbers is not known.
type Observed struct{}

// Project implements Quotas.
func (Observed) Project(string) (uint32, bool, error) { return 0, false, quota.ErrNone }

// Adopt implements Quotas.
func (Observed) Adopt(context.Context, string, uint32) error { return quota.ErrNone }

// OfProject implements Quotas.
func (Observed) OfProject(string, uint32) (quota.Usage, error) { return quota.Usage{}, quota.ErrNone }

// SetLimit implements Quotas.
func (Observed) SetLimit(string, uint32, int64) error { return quota.ErrNone }

// Space is the room of a file system in bytes; Free is what may be written.
type Space struct{ Total, Free int64 }

func statfs(path string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Space{}, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return Space{Total: int64(st.Blocks) * st.Bsize, Free: int64(st.Bavail) * st.Bsize}, nil
}

// mountPoint says whether something is mounted at a folder.
func mountPoint(path string) bool {
	var at, above unix.Stat_t
	return unix.Stat(path, &at) == nil && unix.Stat(filepath.Dir(path), &above) == nil && at.Dev != above.Dev
}

// Ballasts make and remove files that only take room.
type Ballasts interface {
	// Size of the file, 0 where there is none.
	Size(path string) (int64, error)
	Make(path string, size int64) error
	Remove(path string) error
}

// Files is the Ballasts of the running machine.
type Files struct{}

// Size implements Ballasts: the room that the file really takes.
func (Files) Size(path string) (int64, error) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, &os.PathError{Op: "read the ballast", Path: path, Err: unix.EINVAL}
	}
	return st.Blocks * 512, nil
}

// Make implements Ballasts. The room is allocated, not written.
func (Files) Make(path string, size int64) (err error) {
	dir := filepath.Dir(path)
	f, err := os.OpenFile(filepath.Join(dir, "."+filepath.Base(path)+".new"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err = unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		return &os.PathError{Op: "allocate", Path: path, Err: err}
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return durable.Rename(f.Name(), path)
}

// Remove implements Ballasts.
func (Files) Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}
