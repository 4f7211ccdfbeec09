// SPDX-License-Identifier: Apache-2.0

package rootfs

// enabled are units and the target that pulls each in.
var enabled = []struct{ target, how, unit string }{
	{"local-fs.target", "requires", "var.mount"},
	{"sysinit.target", "wants", "holdfast-identity.service"},
	{"sysinit.target", "wants", "holdfast-config-local.service"},
	{"sysinit.target", "wants", "holdfast-softdog.service"},
	{"sysinit.target", "wants", "holdfast-ingress.service"},
	{"sysinit.target", "wants", "holdfast-deadline.timer"},
	{"sysinit.target", "wants", "systemd-pstore.service"},
	{"sysinit.target", "wants", "systemd-resolved.service"},
	{"sysinit.target", "wants", "systemd-timesyncd.service"},
	{"sockets.target", "wants", "systemd-networkd.socket"},
	{"timers.target", "wants", "fstrim.timer"},
	{"multi-user.target", "wants", "systemd-networkd.service"},
	{"multi-user.target", "wants", "containerd.service"},
	{"multi-user.target", "wants", "docker.service"},
	{"multi-user.target", "wants", "holdfast.service"},
	{"multi-user.target", "wants", "holdfast-config.service"},
	{"multi-user.target", "wants", "holdfast-screen.service"},
	// Starts where the configuration names ssh keys, and nowhere else.
	{"multi-user.target", "wants", "holdfast-sshd.service"},
	{"multi-user.target", "wants", "holdfast-stack.service"},
	// Every boot asks for its own completion, so that health is waited for
	// whether or not a trial is on.
	{"multi-user.target", "wants", "boot-complete.target"},
	// Starts on VMware, and nowhere else.
	{"multi-user.target", "wants", "open-vm-tools.service"},
	{"boot-complete.target", "requires", "holdfast-healthy.service"},
}

// masked are units that would write to the sealed root, offer a login, or
// meddle with state.
var masked = []string{
	"apparmor.service", // loads profiles of desktop programs; the engine loads its own
	"autovt@.service", "console-getty.service", "container-getty@.service", "getty@.service", "serial-getty@.service",
	"blk-availability.service", "dm-event.service", "dm-event.socket", "lvm2-lvmpolld.service", "lvm2-lvmpolld.socket", "lvm2-monitor.service",
	"dpkg-db-backup.timer",
	"ldconfig.service", "systemd-hwdb-update.service", "systemd-journal-catalog-update.service", "systemd-sysusers.service", "systemd-update-done.service",
	"systemd-firstboot.service", "systemd-machine-id-commit.service",
	"rescue-ssh.target", "ssh.service", "ssh.socket", "sshd.service", "sshd-keygen.service", "sshd@.service", // ours is holdfast-sshd.service
	"sys-kernel-debug.mount",
}

// plain are the links that are not about units.
var plain = map[string]string{
	"etc/systemd/system/default.target": "/usr/lib/systemd/system/multi-user.target",
	// Names under which D-Bus starts them.
	"etc/systemd/system/dbus-org.freedesktop.network1.service":  "/usr/lib/systemd/system/systemd-networkd.service",
	"etc/systemd/system/dbus-org.freedesktop.resolve1.service":  "/usr/lib/systemd/system/systemd-resolved.service",
	"etc/systemd/system/dbus-org.freedesktop.timesync1.service": "/usr/lib/systemd/system/systemd-timesyncd.service",
	"etc/resolv.conf": "/run/systemd/resolve/stub-resolv.conf",
	// Not there while the box has no name of its own.
	"etc/hostname": "/run/holdfast/hostname",
	// As tmpfiles.d would have it, or it tries to write one.
	"etc/mtab":      "../proc/self/mounts",
	"etc/localtime": "/usr/share/zoneinfo/Etc/UTC",
	"var/run":       "/run",
	"var/lock":      "/run/lock",
	// Scanners that look at the image find the package database where they
	// know it; on the box state has the same link.
	"var/lib/dpkg": "../../usr/lib/sysimage/dpkg",
}

func links() map[string]string {
	all := map[string]string{}
	for path, target := range plain {
		all[path] = target
	}
	for _, e := range enabled {
		all["etc/systemd/system/"+e.target+"."+e.how+"/"+e.unit] = "/usr/lib/systemd/system/" + e.unit
	}
	for _, unit := range masked {
		all["etc/systemd/system/"+unit] = "/dev/null"
	}
	return all
}
