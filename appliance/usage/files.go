// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// maxFile bounds one file of the kernel; memory.stat has about 2 KiB, /proc/stat
// of a machine with many processors some 40 KiB.
const maxFile = 128 << 10

// read gives the content of a file, good until the next read. The plain system
// calls cost a third of os.ReadFile, which asks the runtime's poller to watch
// each file.
func (r *Reader) read(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	n := 0
	for n < len(r.buf) {
		m, err := unix.Read(fd, r.buf[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		if m == 0 {
			return r.buf[:n], nil
		}
		n += m
	}
	return nil, &os.PathError{Op: "read", Path: path, Err: unix.EFBIG}
}

// gone says that what was read is not there (any more): a control group that
// was removed while its file was open answers ENODEV, a process ESRCH.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOTDIR)
}
