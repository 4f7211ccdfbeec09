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
	"softdog", "virtio_blk", "virtio_pci", "virtio_scsi", "vmw_pvscsi", "wdat_wdt", "xen-blkfront",
}

// initrdOmit are device-mapper and RAID modules that dracut's dm module adds.
// dracut compares them with the kernel's own names, which have no hyphens.
var initrdOmit = []string{
	"bcache", "dm_cache", "dm_cache_smq", "dm_clone", "dm_crypt", "dm_delay", "dm_era", "dm_flakey", "dm_integrity", "dm_log", "dm_log_userspace", "dm_log_writes",
	"dm_mirror", "dm_multipath", "dm_queue_length", "dm_raid", "dm_region_hash", "dm_round_robin", "dm_service_time", "dm_snapshot", "dm_switch", "dm_thin_pool",
	"dm_unstripe", "dm_vdo", "dm_writecache", "dm_zero", "dm_zoned", "md_mod", "raid0", "raid1", "raid10", "raid456",
}

// cmdline is the kernel's. Where a block of the root is corrupted the reader
// gets an I/O error and the kernel's line reaches the console (level 4 shows
// errors); the box does not panic, so that a scan can name all that is bad.
var cmdline = []string{
	"root=/dev/mapper/root", "rootfstype=squashfs", "ro",
	"console=tty0", "console=ttyS0,115200", "loglevel=4",
	"lockdown=integrity",
	"panic=10", "oops=panic",
	// A PID 1 that crashes would else stand still, in the initrd too.
	"systemd.crash_action=reboot",
	// The slot is decided by the UKI alone: nothing is mounted because a
	// partition has a certain type.
	"systemd.gpt_auto=0", "rd.systemd.gpt_auto=0",
	"systemd.getty_auto=0", "systemd.firstboot=0",
	// For PID 1 in the initrd; the root's system.conf says the same.
	"systemd.watchdog_sec=60",
	// The initrd's PID 1 closes the watchdog before it hands over (systemd's
	// do_reexecute), and closing stops it unless the driver was told that there
	// is no way out: then a root whose init hangs is reset all the same.
	"i6300esb.nowayout=1", "wdat_wdt.nowayout=1", "softdog.nowayout=1",
}
