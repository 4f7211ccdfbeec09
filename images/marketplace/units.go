// SPDX-License-Identifier: Apache-2.0

package marketplace

import (
	"archive/tar"
	"path"
	"slices"
	"strings"
)

// unitDirs are where systemd finds units, the first one counts.
var unitDirs = []string{"etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}

// started lists the units that something pulls in at boot and nothing masks,
// in order: the links in .wants and .requires folders.
func (t *Tree) started() []string {
	var out []string
	for _, p := range t.paths {
		dir, name := path.Split(p)
		dir = strings.TrimSuffix(dir, "/")
		if ext := path.Ext(dir); ext != ".wants" && ext != ".requires" && ext != ".upholds" {
			continue
		}
		if !slices.Contains(unitDirs, path.Dir(dir)) || t.masked(name) || slices.Contains(out, name) {
			continue
		}
		out = append(out, name)
	}
	return out
}

// masked tells whether a unit is a link to /dev/null or an empty file.
func (t *Tree) masked(unit string) bool {
	for _, name := range []string{unit, template(unit)} {
		for _, dir := range unitDirs {
			e := t.stat(dir + "/" + name)
			if e == nil {
				continue
			}
			return e.Type == tar.TypeSymlink && path.Clean(e.Link) == "/dev/null" || e.file() && e.Size == 0
		}
	}
	return false
}

// template is NAME@.service of NAME@INSTANCE.service.
func template(unit string) string {
	name, rest, ok := strings.Cut(unit, "@")
	if !ok {
		return unit
	}
	return name + "@" + path.Ext(rest)
}

// unit is the text of a unit with that of its drop-ins, "" when it is not there.
func (t *Tree) unit(name string) string {
	var text strings.Builder
	for _, n := range slices.Compact([]string{name, template(name)}) {
		for _, dir := range unitDirs {
			if b, ok := t.read(dir + "/" + n); ok {
				text.Write(b)
				text.WriteByte('\n')
				break
			}
		}
		for _, dir := range unitDirs {
			for _, f := range t.glob(dir + "/" + n + ".d/*.conf") {
				b, _ := t.read(f)
				text.Write(b)
				text.WriteByte('\n')
			}
		}
	}
	return text.String()
}

// values are those of a key of a unit, such as ExecStart.
func values(unit, key string) []string {
	var out []string
	for line := range strings.Lines(unit) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			out = append(out, strings.TrimSpace(v))
		}
	}
	return out
}

// runs tells whether a unit starts a program of that name.
func runs(unit, program string) bool {
	for _, v := range append(values(unit, "ExecStart"), values(unit, "ExecStartPre")...) {
		words := strings.Fields(strings.TrimLeft(v, "@-:+!|"))
		if len(words) > 0 && path.Base(words[0]) == program {
			return true
		}
	}
	return false
}

// sshUnits are names that start an ssh daemon whatever is in them.
var sshUnits = []string{"ssh.service", "sshd.service", "ssh.socket", "sshd.socket", "dropbear.service", "dropbear.socket"}

func checkSSHStart(im *Image, f *findings) {
	t := im.Root
	f.lookedAt("units that start at boot")
	for _, name := range t.started() {
		text := t.unit(name)
		if !slices.Contains(sshUnits, name) && !runs(text, "sshd") && !runs(text, "dropbear") {
			continue
		}
		where := conditional(text)
		if where == "" {
			f.refuse("%s starts at every boot, keys or no keys", name)
			continue
		}
		f.lookedAt("%s, which starts when %s is there", name, where)
		for _, o := range sshOptions(text) {
			f.refuse("%s is started with %s, which overrides sshd_config", name, o)
		}
	}
	for _, g := range []string{"usr/lib/systemd/system-generators/systemd-ssh-generator"} {
		if t.resolve(g) != "" && t.resolve("usr/sbin/sshd") != "" {
			f.note("/%s opens ssh to the hypervisor (AF_VSOCK)", g)
		}
	}
}

// conditional is the path below /run or /var that a unit waits for, which no
// image holds, or "".
func conditional(unit string) string {
	for _, key := range []string{"ConditionPathExists", "ConditionPathExistsGlob", "ConditionFileNotEmpty"} {
		for _, v := range values(unit, key) {
			if strings.HasPrefix(v, "/run/") || strings.HasPrefix(v, "/var/") {
				return v
			}
		}
	}
	return ""
}

// sshOptions are command line options that go before the configuration.
func sshOptions(unit string) []string {
	var out []string
	for _, v := range values(unit, "ExecStart") {
		words := strings.Fields(v)
		for i, w := range words {
			if w == "-f" || w == "-o" {
				out = append(out, strings.Join(words[i:min(len(words), i+2)], " "))
			} else if strings.HasPrefix(w, "-o") || strings.HasPrefix(w, "-f") {
				out = append(out, w)
			}
		}
	}
	return out
}

func checkConsoleLogin(im *Image, f *findings) {
	t := im.Root
	f.lookedAt("units, their drop-ins, /etc/environment, /etc/inittab")
	for _, p := range t.paths {
		e := t.entries[p]
		if !e.file() || !strings.Contains(p, "systemd/") && p != "etc/environment" && p != "etc/inittab" {
			continue
		}
		b := string(t.content[p])
		if strings.Contains(b, "SYSTEMD_SULOGIN_FORCE=1") {
			f.refuse("/%s gives a root shell without a password (SYSTEMD_SULOGIN_FORCE)", p)
		}
		for line := range strings.Lines(b) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "#") || !strings.Contains(line, "getty") || !strings.Contains(line, "Exec") && p != "etc/inittab" {
				continue
			}
			for _, w := range strings.Fields(line) {
				if w == "-a" || strings.HasPrefix(w, "--autologin") || w == "--skip-login" {
					f.refuse("/%s logs somebody in without asking: %s", p, line)
					break
				}
			}
		}
	}
	for _, name := range t.started() {
		text := t.unit(name)
		if name == "debug-shell.service" {
			f.refuse("debug-shell.service opens a root shell on tty9")
		}
		for _, shell := range []string{"sh", "bash", "dash"} {
			if runs(text, shell) && strings.Contains(text, "StandardInput=tty") {
				f.refuse("%s opens a shell on a console", name)
			}
		}
	}
}

// agents run with root's rights for somebody else.
var agents = []struct{ unit, whose string }{
	{"amazon-ssm-agent.service", "AWS Systems Manager: opens shells from the console of the account"},
	{"snap.amazon-ssm-agent.amazon-ssm-agent.service", "AWS Systems Manager: opens shells from the console of the account"},
	{"ec2-instance-connect.service", "EC2 Instance Connect: puts ssh keys in"},
	{"google-guest-agent.service", "Google's guest agent: makes accounts, puts ssh keys in"},
	{"google-startup-scripts.service", "runs programs from Google's metadata as root"},
	{"google-osconfig-agent.service", "Google's OS Config: installs packages"},
	{"walinuxagent.service", "Azure's agent: runs extensions as root"},
	{"cloud-init.service", "runs programs from user-data as root"},
	{"cloud-init-main.service", "runs programs from user-data as root"},
	{"qemu-guest-agent.service", "QEMU's agent: the host may run programs"},
	{"snapd.service", "updates itself and its packages from outside"},
	{"unattended-upgrades.service", "changes packages behind the back of a sealed root"},
}

func checkAgents(im *Image, f *findings) {
	started := im.Root.started()
	f.lookedAt("units that start at boot: %d", len(started))
	for _, a := range agents {
		if slices.Contains(started, a.unit) {
			f.note("%s: %s", a.unit, a.whose)
		}
	}
}
