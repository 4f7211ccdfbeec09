// SPDX-License-Identifier: Apache-2.0

package marketplace

import (
	"archive/tar"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/internal/efitest"
)

// TestBadRoots: one thing wrong, and exactly its row says so.
func TestBadRoots(t *testing.T) {
	sshd := func(s string) map[string]node { return map[string]node{"etc/ssh/sshd_config": text(s)} }
	const strict = "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
	unit := func(name, content string) map[string]node {
		return map[string]node{
			"usr/lib/systemd/system/" + name:                           text(content),
			"etc/systemd/system/multi-user.target.wants/" + name:       link("/usr/lib/systemd/system/" + name),
			"etc/systemd/system/something.service.d/harmless.conf":     text("[Service]\nNice=1\n"),
			"usr/lib/systemd/system/sysinit.target.wants/x.service.d":  dir(0o755),
			"usr/lib/systemd/system/multi-user.target.wants/y.service": link("../y.service"),
		}
	}
	for _, c := range []struct {
		check  string
		add    map[string]node
		result Result
		found  string
	}{
		{"root-password", map[string]node{"etc/shadow": text("root::1::::::\n")}, Refused, "empty password"},
		{"root-password", map[string]node{"etc/shadow": text("root:$y$j9T$aaaaaaaaaaaa$b:1::::::\n")}, Refused, "root has a password"},
		{"passwords", map[string]node{"etc/shadow": text("root:*:1::::::\nadmin:$6$saltsalt$hash:1::::::\n")}, Refused, "hash of admin"},
		{"passwords", map[string]node{"etc/shadow": text("root:*:1::::::\nadmin:!$6$saltsalt$hash:1::::::\n")}, Refused, "hash of admin"},
		{"passwords", map[string]node{"etc/shadow-": text("old:abJnggxhB/yWI:1::::::\n")}, Refused, "/etc/shadow- holds a password hash of old"},
		{"passwords", map[string]node{"etc/shadow": text("root:*:1::::::\nguest::1::::::\n")}, Refused, "guest an empty password"},
		{"passwords", map[string]node{"etc/passwd": text("root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\n")}, Refused, "toor a second root"},
		{"passwords", map[string]node{"etc/passwd": text("root:x:0:0::/root:/bin/sh\nold::100:100::/:/bin/sh\n")}, Refused, "old an empty password"},
		{"authorized-keys", map[string]node{"root/.ssh/authorized_keys": text("ssh-ed25519 AAAA x\n")}, Refused, "/root/.ssh/authorized_keys is there, with 19 bytes"},
		{"authorized-keys", map[string]node{"etc/ssh/authorized_keys.d/admin": text("ssh-ed25519 AAAA x\n")}, Refused, "authorized_keys.d/admin"},
		{"authorized-keys", map[string]node{"home/a/.ssh/known_hosts": text("x\n")}, Refused, "names hosts"},
		{"authorized-keys", map[string]node{"root/.ssh": dir(0o700)}, Note, "and empty"},
		{"ssh-passwords", sshd("PasswordAuthentication yes\nKbdInteractiveAuthentication no\n"), Refused, `PasswordAuthentication is "yes" by /etc/ssh/sshd_config`},
		{"ssh-passwords", sshd(""), Refused, `PasswordAuthentication is "yes" by sshd's default`},
		{"ssh-passwords", sshd("PasswordAuthentication no\n"), Refused, "KbdInteractiveAuthentication"},
		{"ssh-passwords", sshd(strict + "PermitEmptyPasswords yes\n"), Refused, "PermitEmptyPasswords"},
		{"ssh-passwords", sshd(strict + "Match User admin\n  PasswordAuthentication yes\n"), Refused, "in a Match block"},
		{"ssh-passwords", map[string]node{"etc/ssh/sshd_config.d/10-cloud.conf": text("passwordauthentication=\"yes\" # for now\n")}, Refused, "by /etc/ssh/sshd_config.d/10-cloud.conf"},
		{"ssh-root", sshd(strict + "PermitRootLogin yes\n"), Refused, `PermitRootLogin is "yes"`},
		{"ssh-root", sshd(strict + "PermitRootLogin no\nMatch Address 10.0.0.0/8\nPermitRootLogin yes\n"), Refused, "Match"},
		{"ssh-start", unit("other.service", "[Service]\nExecStart=-/usr/sbin/sshd -D\n"), Refused, "keys or no keys"},
		{"ssh-start", map[string]node{"etc/systemd/system/ssh.service": text("[Service]\nExecStart=/usr/sbin/sshd -D\n")}, Refused, "ssh.service starts at every boot"},
		{"ssh-start", map[string]node{"usr/lib/systemd/system/ours-sshd.service": text("ConditionPathExists=/run/x\nExecStart=/usr/sbin/sshd -o PasswordAuthentication=yes\n")}, Refused, "overrides sshd_config"},
		{"host-keys", map[string]node{"etc/ssh/ssh_host_ed25519_key": text("x"), "etc/ssh/ssh_host_ed25519_key.pub": text("x")}, Refused, "/etc/ssh/ssh_host_ed25519_key"},
		{"console-login", map[string]node{"etc/systemd/system/getty@tty1.service.d/autologin.conf": text("[Service]\nExecStart=-/sbin/agetty --autologin root %I\n")}, Refused, "logs somebody in"},
		{"console-login", unit("debug-shell.service", "ExecStart=/bin/bash\n"), Refused, "tty9"},
		{"console-login", map[string]node{"usr/lib/systemd/system/rescue.service.d/x.conf": text("Environment=SYSTEMD_SULOGIN_FORCE=1\n")}, Refused, "without a password"},
		{"machine-id", map[string]node{"etc/machine-id": text("0123456789abcdef0123456789abcdef\n")}, Refused, "/etc/machine-id"},
		{"machine-id", map[string]node{"var/lib/dbus/machine-id": text("0123456789abcdef0123456789abcdef\n")}, Refused, "/var/lib/dbus/machine-id"},
		{"random-seed", map[string]node{"var/lib/systemd/random-seed": text("seed")}, Refused, "random-seed"},
		{"package-lists", map[string]node{"var/lib/apt/lists/deb.debian.org_InRelease": text("x")}, Refused, "/var/lib/apt/lists/"},
		{"package-lists", map[string]node{"var/cache/apt/pkgcache.bin": text("x")}, Refused, "pkgcache"},
		{"logs", map[string]node{"var/log/dpkg.log": text("x")}, Refused, "/var/log/dpkg.log"},
		{"logs", map[string]node{"var/tmp/install.sh": text("x")}, Refused, "/var/tmp"},
		{"histories", map[string]node{"root/.bash_history": text("")}, Refused, "/root/.bash_history"},
		{"cloud-init", map[string]node{"var/lib/cloud/instance": link("instances/i-1")}, Refused, "another instance"},
		{"cloud-init", map[string]node{"var/lib/dhcp/dhclient.eth0.leases": text("lease")}, Refused, "lease"},
		{"bake-host", map[string]node{"etc/.resolv.conf.systemd-resolved.bak": text("nameserver 10.1.2.3\n")}, Refused, `"nameserver 10.1.2.3"`},
		{"bake-host", map[string]node{"etc/hostname": text("buildhost\n")}, Refused, "buildhost"},
		{"bake-host", map[string]node{"etc/hosts": text("10.0.0.1 db # ours\n")}, Note, `"10.0.0.1 db"`},
		{"bake-host", map[string]node{"etc/udev/rules.d/70-persistent-net.rules": text("x")}, Refused, "network cards"},
		{"bake-host", map[string]node{"etc/shadow~": text("x")}, Note, "backup"},
		{"credentials", map[string]node{"root/.netrc": text("machine x login y")}, Refused, "web sites"},
		{"credentials", map[string]node{"root/.docker/config.json": text("{}")}, Refused, "registries"},
		{"credentials", map[string]node{"root/.aws/credentials": text("[default]")}, Refused, "AWS credentials"},
		{"credentials", map[string]node{"usr/lib/credstore/passwd.hashed-password.root": text("x")}, Refused, "systemd hands"},
		{"private-keys", map[string]node{"opt/app/tls.key": text(pemKey(""))}, Refused, "/opt/app/tls.key: a private key (PEM)"},
		{"private-keys", map[string]node{"opt/app/sa.json": text(strings.ReplaceAll(pemKey("RSA "), "\n", `\n`))}, Refused, "a private key (PEM)"},
		{"private-keys", map[string]node{"opt/far": text(strings.Repeat(".", window-10) + pemKey("EC "))}, Refused, "a private key (PEM)"},
		{"private-keys", map[string]node{"opt/app/env": text("aws_secret_access_key = " + strings.Repeat("a1B2", 10) + "\n")}, Refused, "AWS secret access key"},
		{"private-keys", map[string]node{"opt/app/env": text("id=AK" + "IA" + strings.Repeat("QRST", 4) + "\n")}, Refused, "AWS access key id"},
		{"set-uid", map[string]node{"usr/bin/pkexec": {content: "x", mode: 0o4755}}, Refused, "/usr/bin/pkexec"},
		{"set-uid", map[string]node{"usr/bin/su": {content: "x", mode: 0o4775}}, Refused, "written by others"},
		{"set-uid", map[string]node{"usr/bin/ping": {content: "x", mode: 0o755, pax: map[string]string{"SCHILY.xattr.security.capability": "x"}}}, Note, "capabilities"},
		{"world-writable", map[string]node{"etc/open": {content: "x", mode: 0o666}}, Refused, "/etc/open"},
		{"world-writable", map[string]node{"opt/drop": dir(0o777)}, Refused, "/opt/drop"},
		{"world-writable", map[string]node{"opt/drop": dir(0o1777)}, Note, "/opt/drop"},
		{"world-writable", map[string]node{"etc/sda": {kind: tar.TypeBlock, mode: 0o600}}, Refused, "device outside /dev"},
		{"imdsv1", map[string]node{"usr/bin/old": text("curl http://169.254.169.254/latest/meta-data/")}, Refused, "/usr/bin/old asks"},
		{"agents", unit("amazon-ssm-agent.service", "ExecStart=/usr/bin/ssm\n"), Note, "Systems Manager"},
		{"supported-system", map[string]node{"usr/lib/os-release": text("ID=debian\nVERSION_ID=11\n")}, Refused, "since 2026-08-31"},
		{"supported-system", map[string]node{"usr/lib/os-release": text("ID=plan9\nVERSION_ID=4\n")}, Note, "not known"},
		{"supported-system", map[string]node{"etc/os-release": link("nowhere")}, OK, ""},
		{"package-database", map[string]node{"var/lib/dpkg": link("/nowhere"), "usr/lib/sysimage/dpkg/status": text("")}, Refused, "leads to no file"},
		{"sbom", map[string]node{"usr/lib/sysimage/dpkg/status": text("Package: extra\nStatus: install ok installed\nVersion: 1\n\n")}, Refused, "extra 1 is installed"},
	} {
		files := good()
		for name, n := range c.add {
			files[name] = n
		}
		rep := Check(imageOf(t, files))
		r := row(t, rep, c.check)
		if r.Result != c.result || !strings.Contains(strings.Join(r.Found, "\n"), c.found) {
			t.Errorf("%s is %s with %q, want %s with %q", c.check, r.Result, r.Found, c.result, c.found)
		}
		for _, other := range rep.Rows {
			// A key in its usual place is rightly found twice, and so are the
			// root's password and its hash.
			if other.Check != c.check && other.Result != OK && !slices.Contains([]string{"vulnerabilities", "passwords"}, other.Check) {
				t.Errorf("%s with %q: %s is %s too: %q", c.check, c.found, other.Check, other.Result, other.Found)
			}
		}
	}
}

func TestBadBoots(t *testing.T) {
	for _, c := range []struct {
		check  string
		change func(*Image)
		found  string
	}{
		{"kernel-cmdline", func(im *Image) { im.Boot.Programs[0].Cmdlines[0] += " systemd.debug_shell" }, "root shell on tty9"},
		{"kernel-cmdline", func(im *Image) { im.Boot.Programs[0].Cmdlines[0] += " systemd.debug_shell=ttyS0" }, "root shell on tty9"},
		{"kernel-cmdline", func(im *Image) { im.Boot.Programs[0].Cmdlines[0] += " init=/bin/sh" }, "in place of the system"},
		{"kernel-cmdline", func(im *Image) { im.Boot.Programs[0].Cmdlines[0] += " apparmor=0" }, "protection"},
		{"kernel-cmdline", func(im *Image) {
			im.Boot.Programs = append(im.Boot.Programs, Program{Path: "EFI/Linux/x.addon.efi", Image: im.Boot.Programs[0].Image, Cmdlines: []string{"single"}})
		}, "x.addon.efi"},
		{"kernel-cmdline", func(im *Image) { im.Boot.Small["loader/loader.conf"] = []byte("timeout 3\n") }, "editor on"},
		{"kernel-cmdline", func(im *Image) { im.Boot.Programs[0].Kernel = false }, "no unified kernel"},
		{"boot-signatures", func(im *Image) { im.Boot.Programs[0].Image = efitest.UKI("l", "i", "c") }, "is not signed"},
		{"esp", func(im *Image) { im.Boot.Files = append(im.Boot.Files, "loader/credentials/a.cred") }, "credential"},
		{"esp", func(im *Image) { im.Boot.Files = append(im.Boot.Files, "holdfast.yaml") }, "configuration"},
		{"random-seed", func(im *Image) { im.Boot.Files = append(im.Boot.Files, "loader/random-seed") }, "random-seed"},
		{"sbom", func(im *Image) { im.SBOM = nil }, "no bill of materials"},
		{"sbom", func(im *Image) { im.SBOM = []byte("{}") }, "no CycloneDX"},
	} {
		im := imageOf(t, good())
		c.change(&im)
		rep := Check(im)
		r := row(t, rep, c.check)
		if r.Result != Refused || !strings.Contains(strings.Join(r.Found, "\n"), c.found) {
			t.Errorf("%s is %s with %q, want %q", c.check, r.Result, r.Found, c.found)
		}
		if rep.Refused != 1 {
			t.Errorf("%s with %q: %d rows are refused", c.check, c.found, rep.Refused)
		}
	}
	im := imageOf(t, good())
	im.Boot.Programs[0].Cmdlines[0] += " systemd.debug_shell=no"
	if r := row(t, Check(im), "kernel-cmdline"); r.Result != OK {
		t.Errorf("what is switched off is refused: %q", r.Found)
	}
}
