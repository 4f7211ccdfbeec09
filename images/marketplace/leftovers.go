// SPDX-License-Identifier: Apache-2.0

package marketplace

import (
	"archive/tar"
	"net/netip"
	"path"
	"slices"
	"strings"
)

func checkMachineID(im *Image, f *findings) {
	f.lookedAt("/etc/machine-id, /var/lib/dbus/machine-id")
	for _, p := range []string{"etc/machine-id", "var/lib/dbus/machine-id"} {
		b, ok := im.Root.read(p)
		if id := strings.TrimSpace(string(b)); ok && id != "" && id != "uninitialized" {
			f.refuse("/%s holds an id, so that every box would have it", p)
		}
	}
}

func checkRandomSeed(im *Image, f *findings) {
	f.lookedAt("/var/lib/systemd, /var/lib/urandom, loader/ of the ESP")
	for _, p := range []string{"var/lib/systemd/random-seed", "var/lib/urandom/random-seed", "var/lib/systemd/credential.secret"} {
		if e := im.Root.stat(p); e != nil && e.file() && e.Size > 0 {
			f.refuse("/%s would be the same on every box", p)
		}
	}
	for _, p := range im.Boot.Files {
		if strings.EqualFold(p, "loader/random-seed") {
			f.refuse("%s of the ESP would be the same on every box", p)
		}
	}
}

func checkPackageLists(im *Image, f *findings) {
	f.lookedAt("/var/lib/apt/lists, /var/cache")
	for _, dir := range []string{"var/lib/apt/lists", "var/cache"} {
		for _, e := range im.Root.below(dir) {
			// ld.so's cache of hints is small and of no time.
			if e.file() && path.Base(e.Path) != "lock" && e.Path != "var/cache/ldconfig/aux-cache" {
				f.refuse("/%s", e.Path)
			}
		}
	}
}

func checkLogs(im *Image, f *findings) {
	f.lookedAt("/var/log, /run, /tmp, /var/tmp, /var/spool")
	for _, dir := range []string{"var/log", "run", "tmp", "var/tmp", "var/spool", "var/mail", "var/crash", "var/lib/systemd/coredump"} {
		for _, e := range im.Root.below(dir) {
			if e.file() && e.Size > 0 {
				f.refuse("/%s", e.Path)
			}
		}
	}
	for _, e := range im.Root.match(func(e *Entry) bool {
		return e.file() && e.Size > 0 && strings.HasPrefix(e.Path, "root/") && strings.HasSuffix(e.Path, ".log")
	}) {
		f.refuse("/%s", e.Path)
	}
}

// histories are what shells and tools remember of a session.
var histories = []string{
	".bash_history", ".zsh_history", ".ash_history", ".sh_history", ".python_history", ".mysql_history", ".psql_history", ".sqlite_history",
	".rediscli_history", ".node_repl_history", ".viminfo", ".lesshst", ".wget-hsts", ".sudo_as_admin_successful", ".selected_editor", ".Xauthority",
}

func checkHistories(im *Image, f *findings) {
	f.lookedAt("%d names in every folder", len(histories))
	for _, e := range im.Root.match(func(e *Entry) bool { return e.file() && slices.Contains(histories, path.Base(e.Path)) }) {
		f.refuse("/%s", e.Path)
	}
}

func checkCloudInit(im *Image, f *findings) {
	f.lookedAt("/var/lib/cloud, /etc/cloud, /etc/google_instance_id, leases")
	for _, e := range im.Root.below("var/lib/cloud") {
		f.refuse("/%s is of another instance", e.Path)
	}
	for _, p := range []string{"etc/cloud/cloud-init.disabled", "etc/google_instance_id", "etc/instance_id", "etc/netplan/50-cloud-init.yaml", "etc/network/interfaces.d/50-cloud-init", "etc/sudoers.d/90-cloud-init-users"} {
		if e := im.Root.stat(p); e != nil && e.file() {
			f.refuse("/%s is of another instance", p)
		}
	}
	for _, e := range im.Root.match(func(e *Entry) bool {
		return e.file() && (strings.HasPrefix(e.Path, "var/lib/dhcp/") || strings.HasPrefix(e.Path, "var/lib/dhclient/") || strings.HasPrefix(e.Path, "var/lib/NetworkManager/")) && e.Size > 0
	}) {
		f.refuse("/%s is a lease or key of another network", e.Path)
	}
}

// checkBakeHost looks for what a root takes from the host it was made on.
func checkBakeHost(im *Image, f *findings) {
	f.lookedAt("/etc/resolv.conf*, /etc/hostname, /etc/hosts, /etc/mtab, udev's rules of network cards, backups in /etc")
	t := im.Root
	for _, e := range t.match(func(e *Entry) bool { return e.file() && path.Dir(e.Path) == "etc" }) {
		base := strings.TrimPrefix(path.Base(e.Path), ".")
		b := string(t.content[e.Path])
		switch {
		case strings.HasPrefix(base, "resolv.conf"):
			for line := range strings.Lines(b) {
				if words := strings.Fields(line); len(words) > 1 && (words[0] == "nameserver" || words[0] == "search" || words[0] == "domain") && !localhost(words[1]) {
					f.refuse("/%s has %q of the host that baked", e.Path, strings.TrimSpace(line))
				}
			}
		case base == "hostname":
			if name := strings.TrimSpace(b); name != "" && name != "localhost" {
				f.refuse("/etc/hostname names every box %q", name)
			}
		case base == "hosts":
			for line := range strings.Lines(b) {
				line, _, _ = strings.Cut(line, "#")
				if words := strings.Fields(line); len(words) > 0 && !localhost(words[0]) {
					f.note("/etc/hosts has %q", strings.TrimSpace(line))
				}
			}
		case base == "mtab" && e.Size > 0:
			f.refuse("/etc/mtab lists the mounts of the host that baked")
		case strings.HasSuffix(base, ".bak"), strings.HasSuffix(base, "~"), strings.HasSuffix(base, ".swp"), strings.HasSuffix(base, ".dpkg-old"), strings.HasSuffix(base, ".ucf-old"):
			f.note("/%s is a backup", e.Path)
		}
	}
	for _, e := range t.below("etc/udev/rules.d") {
		if strings.Contains(path.Base(e.Path), "persistent-net") {
			f.refuse("/%s ties names to the network cards of another machine", e.Path)
		}
	}
}

// localhost is true for loopback and link-local multicast addresses.
func localhost(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && (a.IsLoopback() || a.IsMulticast() || a == netip.MustParseAddr("fe00::") || a == netip.MustParseAddr("ff00::"))
}

func checkCredentials(im *Image, f *findings) {
	f.lookedAt("files by name in every folder; systemd's credential stores")
	t := im.Root
	for _, e := range t.match(func(e *Entry) bool { return e.file() && e.Size > 0 }) {
		what := credentialFile(e.Path)
		if what != "" && !strings.HasPrefix(path.Base(e.Path), "authorized_keys") {
			f.refuse("/%s: %s", e.Path, what)
		}
	}
	for _, dir := range []string{"etc/credstore", "etc/credstore.encrypted", "usr/lib/credstore", "usr/lib/credstore.encrypted", "usr/local/lib/credstore"} {
		for _, e := range t.below(dir) {
			f.refuse("/%s: a credential that systemd hands to services", e.Path)
		}
	}
}

func checkPrivateKeys(im *Image, f *findings) {
	layers, size := 0, im.Root.total
	secrets := slices.Clone(im.Root.secrets)
	if im.Factory != nil {
		layers = im.Factory.layers
		size += im.Factory.total
		for _, s := range im.Factory.secrets {
			secrets = append(secrets, secret{"factory, " + s.path, s.what})
		}
	}
	f.lookedAt("the bytes of every file, %d MiB, with %d layers of the stack's images", size>>20, layers)
	for _, s := range secrets {
		if strings.HasPrefix(s.path, "factory") {
			f.refuse("%s: %s", s.path, s.what)
		} else {
			f.refuse("/%s: %s", s.path, s.what)
		}
	}
}

// setuidAllowed may run with rights of another, each for its reason; all are
// Debian's. On the box no account but root can run a program.
var setuidAllowed = map[string]string{
	"usr/bin/chage":       "setgid shadow: reads /etc/shadow",
	"usr/bin/chfn":        "passwd",
	"usr/bin/chsh":        "passwd",
	"usr/bin/expiry":      "setgid shadow: reads /etc/shadow",
	"usr/bin/fusermount3": "fuse3, for open-vm-tools",
	"usr/bin/gpasswd":     "passwd",
	"usr/bin/mount":       "mount",
	"usr/bin/newgrp":      "login",
	"usr/bin/passwd":      "passwd",
	"usr/bin/ssh-agent":   "setgid: no other process may look into it",
	"usr/bin/su":          "util-linux",
	"usr/bin/sudo":        "sudo",
	"usr/bin/umount":      "mount",
	"usr/lib/dbus-1.0/dbus-daemon-launch-helper": "dbus: starts services as their user",
	"usr/lib/openssh/ssh-keysign":                "openssh-client",
	"usr/bin/vmware-user-suid-wrapper":           "open-vm-tools",
	"usr/sbin/unix_chkpwd":                       "setgid shadow: PAM checks a password",
}

func checkSetuid(im *Image, f *findings) {
	n, capable := 0, 0
	for _, e := range im.Root.match(func(e *Entry) bool { return e.file() && (e.Mode&0o6000 != 0 || e.Capability) }) {
		switch {
		case e.Mode&0o6000 == 0:
			capable++
			f.note("%s has capabilities of its own", e)
		case setuidAllowed[e.Path] == "":
			f.refuse("%s", e)
		case e.Mode&0o022 != 0:
			f.refuse("%s can be written by others", e)
		default:
			n++
		}
	}
	f.lookedAt("modes of all files: %d of the %d that may be set-uid or set-gid, %d with capabilities", n, len(setuidAllowed), capable)
}

func checkWorldWritable(im *Image, f *findings) {
	f.lookedAt("modes of all files and folders")
	for _, e := range im.Root.match(func(e *Entry) bool { return e.Mode&0o002 != 0 }) {
		switch {
		case e.file():
			f.refuse("%s", e)
		case e.Type == tar.TypeDir && e.Mode&0o1000 == 0:
			f.refuse("%s", e)
		case e.Type == tar.TypeDir && !slices.Contains([]string{"tmp", "var/tmp", "dev/shm", "run/lock", "var/lock"}, e.Path):
			f.note("%s", e)
		}
	}
	for _, e := range im.Root.match(func(e *Entry) bool { return e.Type == tar.TypeChar || e.Type == tar.TypeBlock }) {
		if !strings.HasPrefix(e.Path, "dev/") {
			f.refuse("/%s is a device outside /dev", e.Path)
		}
	}
}
