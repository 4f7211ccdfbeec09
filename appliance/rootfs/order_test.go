// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
)

// stock is what Debian's units say of order, as far as ours touch them: each
// starts after the ones named.
var stock = map[string][]string{
	"sysinit.target":                 {"local-fs.target", "systemd-resolved.service", "systemd-timesyncd.service", "systemd-tmpfiles-setup.service"},
	"basic.target":                   {"sysinit.target", "sockets.target"},
	"sockets.target":                 {"docker.socket", "dbus.socket", "systemd-networkd.socket"},
	"docker.socket":                  {"sysinit.target"},
	"dbus.socket":                    {"sysinit.target"},
	"docker.service":                 {"basic.target", "docker.socket", "containerd.service"},
	"containerd.service":             {"basic.target"},
	"local-fs.target":                {"local-fs-pre.target", "var.mount"},
	"network.target":                 {"systemd-networkd.service"},
	"systemd-networkd.service":       {"systemd-networkd.socket", "systemd-udevd.service", "network-pre.target"},
	"open-vm-tools.service":          {"systemd-tmpfiles-setup.service"},
	"systemd-repart.service":         {"systemd-udevd.service"},
	"systemd-journald.service":       nil,
	"multi-user.target":              {"basic.target"},
	"boot-complete.target":           {"sysinit.target"},
	"systemd-tmpfiles-setup.service": {"local-fs.target"},
}

// order gives for each unit those it starts after, from stock and from our
// units and drop-ins.
func order(t *testing.T) map[string][]string {
	t.Helper()
	after := map[string][]string{}
	for unit, list := range stock {
		after[unit] = slices.Clone(list)
	}
	const dir = "usr/lib/systemd/system"
	s := Spec()
	err := fs.WalkDir(s.Files, dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(s.Files, name)
		if err != nil {
			return err
		}
		unit, dropIn := path.Base(name), false
		if folder := path.Base(path.Dir(name)); strings.HasSuffix(folder, ".d") {
			unit, dropIn = strings.TrimSuffix(folder, ".d"), true
		}
		defaults := !dropIn && strings.HasSuffix(unit, ".service")
		for line := range strings.SplitSeq(string(data), "\n") {
			key, value, _ := strings.Cut(line, "=")
			switch key {
			case "After":
				after[unit] = append(after[unit], strings.Fields(value)...)
			case "Before":
				for _, other := range strings.Fields(value) {
					after[other] = append(after[other], unit)
				}
			case "RequiresMountsFor":
				if strings.HasPrefix(value, "/var") {
					after[unit] = append(after[unit], "var.mount")
				}
			case "DefaultDependencies":
				defaults = defaults && value != "no"
			}
		}
		if defaults {
			after[unit] = append(after[unit], "basic.target")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range enabled {
		// Targets start after what they pull in.
		if !slices.Contains(after[e.unit], e.target) {
			after[e.target] = append(after[e.target], e.unit)
		}
	}
	return after
}

// waits gives the way on which unit waits for other, nil where it does not.
func waits(after map[string][]string, unit, other string) []string {
	seen := map[string]bool{}
	var walk func(string) []string
	walk = func(at string) []string {
		if seen[at] {
			return nil
		}
		seen[at] = true
		for _, next := range after[at] {
			if next == other {
				return []string{at, other}
			}
			if way := walk(next); way != nil {
				return append([]string{at}, way...)
			}
		}
		return nil
	}
	return walk(unit)
}

// TestOrder: systemd breaks a cycle by leaving out a unit of its choice.
func TestOrder(t *testing.T) {
	after := order(t)
	for unit := range after {
		if way := waits(after, unit, unit); way != nil {
			t.Fatalf("an ordering cycle: %s", strings.Join(way, " after "))
		}
	}
	const local, full, data, sshd, screen = "holdfast-config-local.service", "holdfast-config.service", "holdfast-data.service", "holdfast-sshd.service", "holdfast-screen.service"
	for _, c := range []struct{ unit, other string }{
		{"holdfast-identity.service", "var.mount"}, {local, "holdfast-identity.service"}, {local, "var.mount"},
		{"systemd-networkd.service", local}, {"systemd-resolved.service", local}, {"systemd-timesyncd.service", local},
		{full, local}, {full, "systemd-networkd.service"}, {data, full},
		{"docker.service", data}, {"containerd.service", data}, {"holdfast.service", data},
		{sshd, local}, {sshd, "systemd-networkd.service"},
		// Nobody gets in before it is known what runs.
		{"systemd-networkd.service", "holdfast-ingress.service"}, {"docker.service", "holdfast-ingress.service"}, {"holdfast-ingress.service", "var.mount"},
	} {
		if waits(after, c.unit, c.other) == nil {
			t.Errorf("%s may start before %s", c.unit, c.other)
		}
	}
	// Whoever looks after a box whose cloud does not answer, or whose data
	// does not come, must see it and get in.
	for _, unit := range []string{sshd, screen} {
		for _, other := range []string{full, data, "docker.service"} {
			if way := waits(after, unit, other); way != nil {
				t.Errorf("%s waits for %s: %s", unit, other, strings.Join(way, " after "))
			}
		}
	}
	// A box without a cable, and without a metadata service, boots at once.
	for _, unit := range []string{local, full, data, "holdfast.service"} {
		for _, other := range []string{"network-online.target", "systemd-networkd-wait-online.service"} {
			if way := waits(after, unit, other); way != nil {
				t.Errorf("%s waits for %s: %s", unit, other, strings.Join(way, " after "))
			}
		}
	}
}

// TestAdminAccess: what sshd must not be without, and that Debian's own way to
// start it is closed.
func TestAdminAccess(t *testing.T) {
	data, err := fs.ReadFile(Spec().Files, "etc/ssh/sshd_config")
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && key != "#" {
			if has[key] != "" {
				t.Errorf("%s is set twice, the first counts", key)
			}
			has[key] = value
		}
	}
	for key, want := range map[string]string{
		"AuthenticationMethods": "publickey", "PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no", "PermitEmptyPasswords": "no",
		"PermitRootLogin": "prohibit-password", "AllowUsers": "root", "UsePAM": "no", "AllowTcpForwarding": "no", "X11Forwarding": "no",
		"AuthorizedKeysFile": "/run/holdfast/ssh/authorized_keys", "HostKey": "/var/lib/holdfast/ssh/ssh_host_ed25519_key",
	} {
		if has[key] != want {
			t.Errorf("%s is %q, want %q", key, has[key], want)
		}
	}
	for _, key := range []string{"Ciphers", "MACs", "KexAlgorithms", "Include", "Match"} {
		if has[key] != "" {
			t.Errorf("%s %s: Debian's default is kept up to date, ours would not be", key, has[key])
		}
	}
	if !slices.Contains(words(t, "holdfast-sshd.service", "ConditionPathExists"), "/run/holdfast/ssh/authorized_keys") {
		t.Error("sshd may start without keys")
	}
	for _, unit := range []string{"ssh.service", "ssh.socket", "sshd.service", "sshd@.service", "sshd-keygen.service"} {
		if !slices.Contains(masked, unit) {
			t.Errorf("%s is not masked", unit)
		}
	}
	for _, gone := range []string{"etc/ssh", "root/.ssh", "usr/lib/systemd/system-generators/systemd-ssh-generator"} {
		if !slices.Contains(remove, gone) {
			t.Errorf("/%s of the packages stays in the root", gone)
		}
	}
}
