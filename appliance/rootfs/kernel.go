// SPDX-License-Identifier: Apache-2.0

package rootfs

// initrdModules are dracut's: a systemd that finds the partition, verifies and
// mounts it. No shell hooks, no network, no volume manager, no state.
var initrdModules = []string{
	"systemd", "systemd-initrd", "systemd-udevd", "systemd-journald", "systemd-tmpfiles", "systemd-modules-load",
	"systemd-veritysetup", "udev-rules", "dm", "kernel-modules",
}

// initrdDrivers reach the root disk on the machines we ship for (virtio and
// NVMe's bus are built into the cloud kernel; names it has not are skipped),
// and open a hardware watchdog before anything else can hang.
var initrdDrivers = []string{
	"ahci", "ata_piix", "dm-verity", "hv_storvsc", "i6300esb", "mptsas", "mptspi", "nvme", "sd_mod", "squashfs",
	"virtio_blk", "virtio_pci", "virtio_scsi", "vmw_pvscsi", "wdat_wdt", "xen-blkfront",
}

// initrdOmit are device-mapper and RAID modules that dracut's dm module adds.
var initrdOmit = []string{
	"bcache", "dm-cache", "dm-cache-smq", "dm-clone", "dm-crypt", "dm-delay", "dm-era", "dm-flakey", "dm-integrity", "dm-log", "dm-log-userspace", "dm-log-writes",
	"dm-mirror", "dm-multipath", "dm-queue-length", "dm-raid", "dm-region-hash", "dm-round-robin", "dm-service-time", "dm-snapshot", "dm-switch", "dm-thin-pool",
	"dm-unstripe", "dm-vdo", "dm-writecache", "dm-zero", "dm-zoned", "md-mod", "raid0", "raid1", "raid10", "raid456",
}

// cmdline is the kernel's. Where a block of the root is corrupted the reader
// gets an I/O error and the kernel's line reaches the console (level 4 shows
// errors); the box does not panic, so that a scan can name all that is bad.
var cmdline = []string{
	"root=/dev/mapper/root", "rootfstype=squashfs", "ro",
	"console=tty0", "console=ttyS0,115200", "loglevel=4",
	"lockdown=integrity",
	"panic=10", "oops=panic",
	// The slot is decided by the UKI alone: nothing is mounted because a
	// partition has a certain type.
	"systemd.gpt_auto=0", "rd.systemd.gpt_auto=0",
	"systemd.getty_auto=0", "systemd.firstboot=0",
	// For PID 1 in the initrd; the root's system.conf says the same.
	"systemd.watchdog_sec=60",
}
