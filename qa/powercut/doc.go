// SPDX-License-Identifier: Apache-2.0

// Package powercut rebuilds the disk of a recorded run as a power cut at any
// moment could have left it, and checks it without starting it.
//
// A run is recorded by QEMU's blklogwrites: every write, flush and discard of
// the guest in the order the disk took them. Killing QEMU loses nothing, since
// the host's page cache keeps it; a log shows what a disk with a volatile
// cache may lose. At a cut, all writes before the last completed flush are on
// the disk, and those with FUA (forced unit access); of every other write any
// subset of its sectors is.
//
// The kernel of a build host need not have device-mapper. LVM's metadata is
// read here as text, the thin pool's by thin_check and thin_dump, and a thin
// volume becomes a plain sparse file that the kernel mounts as it would the
// volume: XFS then recovers as it would on the box.
package powercut
