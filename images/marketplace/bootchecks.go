// SPDX-License-Identifier: Apache-2.0

package marketplace

import (
	"path"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/images/pe"
	"github.com/holdfast/holdfast/images/sign"
)

// badWords of a kernel command line open a shell, or hand in secrets. A word
// that ends in * is a beginning.
var badWords = []struct{ word, why string }{
	{"systemd.debug_shell*", "opens a root shell on tty9"},
	{"systemd.debug-shell*", "opens a root shell on tty9"},
	{"rd.systemd.debug_shell*", "opens a root shell in the initrd"},
	{"init=/bin/*", "starts a shell in place of the system"},
	{"init=/usr/bin/*", "starts a shell in place of the system"},
	{"rdinit=*", "starts something else in place of the initrd"},
	{"rd.break*", "stops in a shell of the initrd"},
	{"rd.shell*", "opens a shell when the initrd fails"},
	{"single", "starts the rescue shell"},
	{"s", "starts the rescue shell"},
	{"S", "starts the rescue shell"},
	{"1", "starts the rescue shell"},
	{"rescue", "starts the rescue shell"},
	{"emergency", "starts the emergency shell"},
	{"-b", "starts the emergency shell"},
	{"systemd.unit=rescue*", "starts the rescue shell"},
	{"systemd.unit=emergency*", "starts the emergency shell"},
	{"SYSTEMD_SULOGIN_FORCE=*", "gives a root shell without a password"},
	{"systemd.set_credential*", "holds a credential that everybody can read"},
	{"systemd.import_credentials=*", "lets credentials of others in"},
	{"ds=*", "hands cloud-init a data source"},
}

// offWords take a protection away.
var offWords = []string{"apparmor=0", "mitigations=off", "nokaslr", "lockdown=none", "audit=0", "systemd.volatile=overlay"}

func checkCmdline(im *Image, f *findings) {
	kernels := 0
	for _, p := range im.Boot.Programs {
		if p.Kernel {
			kernels++
		}
		for _, line := range p.Cmdlines {
			for _, w := range strings.Fields(line) {
				for _, bad := range badWords {
					begin, any := strings.CutSuffix(bad.word, "*")
					if w == bad.word || any && strings.HasPrefix(w, begin) && !switchedOff(w) {
						f.refuse("%s: %q %s", p.Path, w, bad.why)
						break
					}
				}
				if slices.Contains(offWords, w) {
					f.refuse("%s: %q takes a protection away", p.Path, w)
				}
			}
		}
	}
	f.lookedAt("command lines in %d kernel images, loader.conf", kernels)
	if kernels == 0 {
		f.refuse("the ESP has no unified kernel image")
	}
	for name, b := range im.Boot.Small {
		if !strings.EqualFold(name, "loader/loader.conf") {
			continue
		}
		editor := ""
		for line := range strings.Lines(string(b)) {
			if words := strings.Fields(line); len(words) == 2 && words[0] == "editor" {
				editor = words[1]
			}
		}
		if !slices.Contains([]string{"no", "n", "false", "off", "0"}, editor) {
			f.refuse("%s leaves the menu's editor on, so that whoever has the console can add a shell", name)
		}
	}
}

// switchedOff is true for WORD=no and the like.
func switchedOff(w string) bool {
	_, v, ok := strings.Cut(w, "=")
	return ok && slices.Contains([]string{"0", "no", "off", "false", "n"}, v)
}

func checkSignatures(im *Image, f *findings) {
	against := "the certificate in signing.crt"
	if im.Certificate == nil {
		against = "any certificate (signing.crt is not there)"
	}
	f.lookedAt("%d EFI programs, against %s", len(im.Boot.Programs), against)
	if len(im.Boot.Programs) == 0 {
		f.refuse("the ESP has no EFI program")
	}
	for _, p := range im.Boot.Programs {
		if im.Certificate != nil {
			if err := sign.VerifyAuthenticode(p.Image, im.Certificate); err != nil {
				f.refuse("%s: %s", p.Path, strings.TrimPrefix(err.Error(), "sign: "))
			}
			continue
		}
		if parsed, err := pe.Parse(p.Image); err != nil || parsed.CertAt == 0 {
			f.refuse("%s is not signed", p.Path)
		}
	}
}

// espWanted are the files of an ESP that a bake makes, by pattern.
var espWanted = []string{"EFI/BOOT/*.EFI", "EFI/Linux/*.efi", "EFI/systemd/*.efi", "EFI/holdfast/*.efi", "loader/loader.conf", "loader/entries.srel"}

func checkESP(im *Image, f *findings) {
	f.lookedAt("%d files of the ESP", len(im.Boot.Files))
	for _, p := range im.Boot.Files {
		wanted := slices.ContainsFunc(espWanted, func(pattern string) bool {
			ok, err := path.Match(strings.ToLower(pattern), strings.ToLower(p))
			return err == nil && ok
		})
		low := strings.ToLower(p)
		switch {
		case wanted:
		case strings.HasSuffix(low, ".cred"), strings.HasSuffix(low, ".key"), strings.HasSuffix(low, ".pem"):
			f.refuse("%s: a credential that every box would have", p)
		case strings.HasSuffix(low, ".yaml"), strings.HasSuffix(low, ".yml"), strings.Contains(low, "user-data"), strings.Contains(low, "config"):
			f.refuse("%s: a configuration that every box would have", p)
		case low == "loader/random-seed": // has a row of its own
		default:
			f.note("%s is not what a bake puts there", p)
		}
	}
}

func checkIMDS(im *Image, f *findings) {
	users := slices.Clone(im.Root.metadata)
	f.lookedAt("%d files that name the metadata address; the AMI is registered with ImdsSupport v2.0, which turns version 1 off", len(users))
	for _, u := range users {
		if !u.token {
			f.refuse("/%s asks the metadata service, and knows nothing of session tokens", u.path)
		}
	}
}
