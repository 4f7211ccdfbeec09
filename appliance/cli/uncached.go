// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// openUncached opens a device or an image so that reads come from the disk.
//
// A block device has a page cache of its own, apart from that of the file
// system on it. As a rule the kernel empties it when the device is closed for
// the last time; but dm-verity holds the root partition open for as long as
// the box runs, so what an earlier scan or udev's probing read stays there,
// and a second scan would be shown the disk as it was then. BLKFLSBUF empties
// it. O_DIRECT would read past it just as well, at the price of aligned
// buffers down to images/verity, and not every file system has it for an image.
func openUncached(name string) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if st.Mode()&fs.ModeDevice == 0 {
		// An image: its cache is coherent with whatever wrote the file, but
		// only a read of the disk finds what went bad there. Advice: a file
		// system may have no cache to drop.
		unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		return f, nil
	}
	if err := unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("the cache of %s can't be emptied, a scan would not read the disk: %w; run it as root on a block device", name, err)
	}
	return f, nil
}
