// SPDX-License-Identifier: Apache-2.0

package rootfs

// packages are installed with all they depend on and without what they
// recommend. There is no apt, no ssh and no initrd tool among them.
var packages = []string{
	"apparmor",
	"ca-certificates",
	"dbus",
	"docker-cli",
	"docker.io",
	"iproute2",
	"iptables",
	"kmod",
	"libnss-myhostname",
	"libnss-resolve",
	"linux-image-cloud-amd64",
	"lvm2",
	"netbase",
	"nftables",
	"open-vm-tools",
	"openssh-server",
	"systemd",
	"systemd-cryptsetup", // brings veritysetup's library and generators
	"systemd-repart",
	"systemd-resolved",
	"systemd-sysv",
	"systemd-timesyncd",
	"thin-provisioning-tools",
	"tiny-initramfs", // meets the kernel's dependency on an initrd maker; purged
	"tzdata",
	"udev",
	"xfsprogs",
}

// purge removes what only meets dependencies: the kernel package wants an
// initrd maker (the initrd is made outside the root), xfsprogs wants Python
// and ICU for its online scrub, which the box does not run. Python has two runs,
// because the removal scripts of its packages need it. The last run is what only
// serves parts of the VMware tools and of ssh that remove drops.
var purge = [][]string{
	{"python3", "python3-dbus", "tiny-initramfs"},
	{
		"cpio", "libicu76", "libncursesw6", "libpython3-stdlib", "libpython3.13-minimal", "libpython3.13-stdlib",
		"libreadline8t64", "media-types", "python3-minimal", "python3.13", "python3.13-minimal", "readline-common", "tiny-initramfs-core",
	},
	{
		"libdrm2", "libdrm-common", "libfuse3-4", "libmspack0t64", "libpci3", "libxml2", "libxmlsec1t64", "libxmlsec1t64-openssl", "libxslt1.1",
		"pci.ids", "pciutils", "runit-helper", "ucf",
	},
}

// remove keeps out of the image what belongs to a machine, to the time of the
// bake, or to nobody.
var remove = []string{
	"boot/*", "vmlinuz*", "initrd.img*",
	// All of /var is state's; what packages expect there is in tmpfiles.d.
	"var/*",
	// Every unit that is enabled is in links.go, none by a package's script.
	"etc/systemd/system/*",
	"etc/hostname", "etc/resolv.conf", "etc/.resolv.conf.systemd-resolved.bak",
	"etc/*-", "etc/.pwd.lock",
	"etc/apt", "etc/cron.*", "etc/logrotate.d", "etc/update-motd.d", "etc/ssh", "etc/init.d", "etc/rc?.d", "etc/kernel", "etc/issue", "etc/issue.net", "etc/motd",
	"etc/systemd/network", "etc/network", "etc/dhcp", "etc/runit", "etc/sv", "etc/ufw",
	"usr/share/bug", "usr/share/initramfs-tools", "usr/share/info", "usr/share/lintian", "usr/share/man",
	"usr/sbin/xfs_scrub*", "usr/lib/systemd/system/xfs_scrub*", "usr/lib/systemd/system/system-xfs_scrub.slice",
	// Of the VMware tools stays what reports addresses, reads the OVF
	// environment, quiesces and powers off; what runs programs for the host,
	// customises the guest or shares folders goes.
	"etc/vmware-tools", "usr/bin/VGAuthService", "usr/bin/vmware-vgauth*", "usr/bin/vmware-hgfsclient", "usr/bin/vmhgfs-fuse", "usr/bin/vmware-namespace-cmd",
	"usr/bin/vm-support", "usr/bin/vmware-alias-import", "usr/bin/vmware-vmblock-fuse", "usr/bin/vmware-xferlogs",
	"usr/lib/x86_64-linux-gnu/libvgauth*", "usr/lib/x86_64-linux-gnu/libDeployPkg*", "usr/lib/x86_64-linux-gnu/libguestStoreClient*",
	"usr/lib/x86_64-linux-gnu/open-vm-tools/plugins/common", "usr/lib/x86_64-linux-gnu/libhgfs*",
	"usr/lib/x86_64-linux-gnu/open-vm-tools/plugins/vmsvc/libdeployPkgPlugin.so", "usr/lib/x86_64-linux-gnu/open-vm-tools/plugins/vmsvc/libappInfo.so",
	"usr/lib/x86_64-linux-gnu/open-vm-tools/plugins/vmsvc/libresolutionKMS.so", "usr/lib/x86_64-linux-gnu/open-vm-tools/plugins/vmsvc/libguestStore.so",
	"usr/lib/x86_64-linux-gnu/open-vm-tools/plugins/vmsvc/libcomponentMgr.so", "usr/lib/x86_64-linux-gnu/open-vm-tools/plugins/vmsvc/libgdp.so",
	"usr/share/open-vm-tools", "usr/lib/systemd/system/vgauth.service", "etc/pam.d/vmtoolsd",
	// Nothing prompts for first-boot settings, and no login shows them.
	"usr/lib/tmpfiles.d/provision.conf", "usr/lib/tmpfiles.d/20-systemd-ssh-generator.conf", "usr/lib/tmpfiles.d/x11.conf",
	"usr/lib/systemd/system-generators/systemd-ssh-generator", "usr/lib/systemd/system-generators/systemd-sysv-generator", "usr/lib/systemd/system-generators/systemd-rc-local-generator",
	"tmp/*", "run/*", "root/.bash*", "root/.profile", "root/.ssh",
}

// dirs are mount points and places that must be there although empty: without
// /boot and /efi the ESP can't be mounted.
var dirs = []string{
	"boot", "efi", "var", "tmp", "run", "proc", "sys", "dev", "mnt", "media", "opt", "srv", "home",
	"usr/lib/holdfast", "usr/lib/holdfast/trust",
	// For services of a boot that never gets its state.
	"var/tmp",
}
