// SPDX-License-Identifier: Apache-2.0

// Package quota reads and sets project quotas of a file system: the project
// of a folder, what the project uses, and what it may use. It makes system
// calls on the folder itself and needs neither a device name nor a program.
// XFS mounted with prjquota is what it is made for; where the kernel or the
// file system has no project quotas it answers ErrNone and changes nothing.
package quota

import (
	"errors"
	"fmt"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNone says that the file system, as mounted, has no project quotas.
var ErrNone = errors.New("no project quotas here")

// Usage is what a project uses of its file system.
type Usage struct {
	// Project is the project's number, 0 for none.
	Project uint32
	// Used and Limit in bytes; Limit is 0 where nothing is enforced.
	Used, Limit int64
	// Files and FileLimit count inodes; 0 is no limit.
	Files, FileLimit int64
}

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	xflags, extsize, nextents, project, cowextsize uint32
	_                                              [8]byte
}

// diskQuota is fs_disk_quota of linux/dqblk_xfs.h; blocks are of 512 bytes.
type diskQuota struct {
	version                  int8
	flags                    int8
	mask                     uint16
	id                       uint32
	blockHard, blockSoft     uint64
	inodeHard, inodeSoft     uint64
	blocks, inodes           uint64
	inodeTimer, blockTimer   int32
	inodeWarns, blockWarns   uint16
	_                        [4]int8
	rtHard, rtSoft, rtBlocks uint64
	rtTimer                  int32
	rtWarns                  uint16
	_                        int16
	_                        [8]byte
}

// Numbers of linux/fs.h and linux/dqblk_xfs.h.
const (
	getXattr = 0x801c581f // FS_IOC_FSGETXATTR
	setXattr = 0x401c5820 // FS_IOC_FSSETXATTR
	// inherit makes what is created in a folder part of its project, and is
	// what XFS asks of a folder before it counts a statfs by the project.
	inherit = 0x200 // FS_XFLAG_PROJINHERIT

	projects    = 2      // PRJQUOTA
	getQuota    = 0x5803 // Q_XGETQUOTA
	setLimit    = 0x5804 // Q_XSETQLIM
	version     = 1      // FS_DQUOT_VERSION
	projectFlag = 2      // FS_PROJ_QUOTA
	maskSoft    = 1 << 2 // FS_DQ_BSOFT
	maskHard    = 1 << 3 // FS_DQ_BHARD

	block = 512
)

// Project gives the project of a folder or file, and whether what is created
// in it joins the project. It answers ErrNone where the file system knows no
// projects.
func Project(path string) (id uint32, inherits bool, err error) {
	fd, err := open(path)
	if err != nil {
		return 0, false, err
	}
	defer unix.Close(fd)
	x, err := attributes(fd)
	if err != nil {
		return 0, false, pathError("read the project of", path, err)
	}
	return x.project, x.xflags&inherit != 0, nil
}

// SetProject makes a folder, with what is created in it from then on, part of
// a project. What is in it already stays where it is: that is Adopt's work.
func SetProject(path string, id uint32) error {
	fd, err := open(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return set(fd, path, id, true)
}

func set(fd int, path string, id uint32, folder bool) error {
	x, err := attributes(fd)
	if err != nil {
		return pathError("read the project of", path, err)
	}
	if x.project == id && (!folder || x.xflags&inherit != 0) {
		return nil
	}
	x.project = id
	if folder {
		x.xflags |= inherit
	}
	if err := ioctl(fd, setXattr, &x); err != nil {
		return pathError("set the project of", path, none(err))
	}
	return nil
}

// Get gives usage and limit of the project that path is in. It answers
// ErrNone where there are no project quotas, or path is in no project.
func Get(path string) (Usage, error) {
	fd, err := open(path)
	if err != nil {
		return Usage{}, err
	}
	defer unix.Close(fd)
	x, err := attributes(fd)
	if err != nil {
		return Usage{}, pathError("read the project of", path, err)
	}
	if x.project == 0 {
		return Usage{}, pathError("read the quota of", path, ErrNone)
	}
	u, err := read(fd, x.project)
	if err != nil {
		return Usage{}, pathError("read the quota of", path, err)
	}
	return u, nil
}

// OfProject is Get for a project by its number; path is anywhere on the file
// system. A project that was never used has the zero Usage and its number.
func OfProject(path string, id uint32) (Usage, error) {
	fd, err := open(path)
	if err != nil {
		return Usage{}, err
	}
	defer unix.Close(fd)
	u, err := read(fd, id)
	if err != nil {
		return Usage{}, pathError("read the quota of", path, err)
	}
	return u, nil
}

func read(fd int, id uint32) (Usage, error) {
	var d diskQuota
	err := quotactl(fd, getQuota, id, &d)
	if errors.Is(err, unix.ENOENT) {
		return Usage{Project: id}, nil
	}
	if err != nil {
		return Usage{}, none(err)
	}
	return Usage{
		Project: id, Used: bytesOf(d.blocks), Limit: bytesOf(d.blockHard),
		Files: clamp(d.inodes), FileLimit: clamp(d.inodeHard),
	}, nil
}

// SetLimit makes limit bytes the most that a project may use; 0 takes the
// limit away. It is a hard limit: a write over it fails with "no space left".
// path is anywhere on the file system.
func SetLimit(path string, id uint32, limit int64) error {
	if id == 0 || limit < 0 {
		return fmt.Errorf("set the quota of project %d at %s to %d: no such quota", id, path, limit)
	}
	fd, err := open(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	blocks := uint64(limit+block-1) / block
	d := diskQuota{version: version, flags: projectFlag, mask: maskHard | maskSoft, id: id, blockHard: blocks, blockSoft: blocks}
	if err := quotactl(fd, setLimit, id, &d); err != nil {
		return pathError("set the quota of", path, none(err))
	}
	return nil
}

// open never follows a link at the end of the path and never waits for a FIFO.
func open(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

func attributes(fd int) (fsxattr, error) {
	var x fsxattr
	return x, none(ioctl(fd, getXattr, &x))
}

func ioctl(fd int, request uintptr, x *fsxattr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(x))); errno != 0 {
		return errno
	}
	return nil
}

// quotactl is quotactl_fd(2), in the kernel since 5.14: it finds the file
// system by an open file.
func quotactl(fd int, cmd uintptr, id uint32, d *diskQuota) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(fd), cmd<<8|projects, uintptr(id), uintptr(unsafe.Pointer(d)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// none gives ErrNone for what kernels answer where there is no quota: ESRCH
// where it is not switched on, the others where it can't be.
func none(err error) error {
	for _, no := range []error{unix.ESRCH, unix.ENOSYS, unix.ENOTTY, unix.EOPNOTSUPP, unix.ENODEV, unix.ENOTBLK} {
		if errors.Is(err, no) {
			return fmt.Errorf("%w (%v)", ErrNone, err)
		}
	}
	return err
}

func pathError(op, path string, err error) error {
	return &os.PathError{Op: op, Path: path, Err: err}
}

func bytesOf(blocks uint64) int64 {
	if blocks > math.MaxInt64/block {
		return math.MaxInt64
	}
	return int64(blocks) * block
}

func clamp(n uint64) int64 { return int64(min(n, math.MaxInt64)) }
