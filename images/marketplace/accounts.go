// SPDX-License-Identifier: Apache-2.0

package marketplace

import (
	"path"
	"slices"
	"strings"
)

// login is one line of a password file.
type login struct {
	name, password, uid string
}

// logins reads passwd(5), shadow(5) or gshadow(5): fields between colons.
func logins(b []byte) []login {
	var out []login
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\r\n")
		fields := strings.Split(line, ":")
		if line == "" || line[0] == '#' || len(fields) < 2 {
			continue
		}
		l := login{name: fields[0], password: fields[1]}
		if len(fields) > 2 {
			l.uid = fields[2]
		}
		out = append(out, l)
	}
	return out
}

// passwordFiles and their predecessors; in passwd and group "x" stands for
// "see shadow".
var passwordFiles = []string{
	"etc/shadow", "etc/shadow-", "etc/passwd", "etc/passwd-", "etc/gshadow", "etc/gshadow-", "etc/group", "etc/group-",
	"usr/lib/passwd", "etc/security/opasswd",
}

// empty tells whether a password field lets anybody in; in group files it
// means that nobody gets in by a password.
func empty(file string, l login) bool {
	return l.password == "" && !strings.Contains(file, "group") && !strings.Contains(file, "gshadow")
}

// locked tells whether no password fits: the field starts with what no hash
// starts with.
func locked(p string) bool { return p != "" && strings.ContainsRune("!*", rune(p[0])) }

// holdsHash tells whether there is a hash in the field, locked or not.
func holdsHash(p string) bool {
	p = strings.TrimLeft(p, "!*")
	return strings.HasPrefix(p, "$") || strings.HasPrefix(p, "_") || len(p) >= 13
}

func checkRootPassword(im *Image, f *findings) {
	shadow, ok := im.Root.read("etc/shadow")
	if !ok {
		f.lookedAt("/etc/passwd; there is no /etc/shadow")
		passwd, _ := im.Root.read("etc/passwd")
		shadow = passwd
	} else {
		f.lookedAt("root in /etc/shadow")
	}
	found := false
	for _, l := range logins(shadow) {
		if l.name != "root" {
			continue
		}
		found = true
		switch {
		case l.password == "":
			f.refuse("root has an empty password")
		case !locked(l.password) && l.password != "x":
			f.refuse("root has a password")
		}
	}
	if !found && ok {
		f.note("root has no line in /etc/shadow")
	}
}

func checkPasswords(im *Image, f *findings) {
	accounts := 0
	var read []string
	for _, name := range passwordFiles {
		b, ok := im.Root.read(name)
		if !ok {
			continue
		}
		read = append(read, "/"+name)
		for _, l := range logins(b) {
			accounts++
			switch {
			case holdsHash(l.password):
				f.refuse("/%s holds a password hash of %s", name, l.name)
			case empty(name, l):
				f.refuse("/%s gives %s an empty password", name, l.name)
			}
			if strings.Contains(name, "passwd") && l.uid == "0" && l.name != "root" {
				f.refuse("/%s makes %s a second root (uid 0)", name, l.name)
			}
		}
	}
	f.lookedAt("%d lines of %s", accounts, strings.Join(read, ", "))
}

func checkAuthorizedKeys(im *Image, f *findings) {
	f.lookedAt("every file named authorized_keys*, every .ssh folder")
	for _, e := range im.Root.match(func(e *Entry) bool {
		base := path.Base(e.Path)
		return strings.HasPrefix(base, "authorized_keys") || slices.Contains(strings.Split(path.Dir(e.Path), "/"), ".ssh") || base == ".ssh"
	}) {
		base := path.Base(e.Path)
		switch {
		case e.file() && e.Size > 0 && base == "known_hosts":
			f.refuse("/%s names hosts of the bake", e.Path)
		case e.file() && e.Size > 0:
			f.refuse("/%s is there, with %d bytes", e.Path, e.Size)
		case e.file() || base == ".ssh":
			f.note("/%s is there, and empty", e.Path)
		}
	}
	for _, e := range im.Root.below("etc/ssh/authorized_keys.d") {
		f.refuse("/%s is there", e.Path)
	}
}

func checkHostKeys(im *Image, f *findings) {
	f.lookedAt("every file named ssh_host_*, dropbear_*_host_key")
	for _, e := range im.Root.match(func(e *Entry) bool {
		base := path.Base(e.Path)
		return e.file() && (strings.HasPrefix(base, "ssh_host_") && strings.Contains(base, "key") ||
			strings.HasPrefix(base, "dropbear_") && strings.HasSuffix(base, "_host_key"))
	}) {
		f.refuse("/%s", e.Path)
	}
}
