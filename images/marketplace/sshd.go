// SPDX-License-Identifier: Apache-2.0

package marketplace

import (
	"path"
	"strings"
)

const (
	sshdConfig = "etc/ssh/sshd_config"
	// maxIncludes bounds depth and number of included files; sshd's depth is 16.
	maxIncludeDepth = 16
	maxIncludes     = 512
)

// setting is a value of sshd_config and where it stands.
type setting struct {
	value string
	where string
	// match says it counts for some connections only.
	match bool
}

// sshSettings reads a configuration as sshd does: the first value of a keyword
// counts, Include is replaced by its files in order, and what follows Match
// counts where it matches. Keywords are in lower case. Format: sshd_config(5).
type sshSettings struct {
	tree  *Tree
	all   map[string][]setting
	files []string
}

func readSSH(t *Tree, config string) *sshSettings {
	s := &sshSettings{tree: t, all: map[string][]setting{}}
	s.file(config, 0, false)
	return s
}

func (s *sshSettings) file(name string, depth int, match bool) {
	b, ok := s.tree.read(name)
	if !ok || depth > maxIncludeDepth || len(s.files) >= maxIncludes {
		return
	}
	s.files = append(s.files, name)
	for line := range strings.Lines(string(b)) {
		key, rest := splitKeyword(line)
		switch key {
		case "":
		case "match":
			// "Match all" ends what only some connections see.
			match = !strings.EqualFold(rest, "all")
		case "include":
			for _, pattern := range strings.Fields(rest) {
				pattern = unquote(pattern)
				if !strings.HasPrefix(pattern, "/") {
					pattern = "etc/ssh/" + pattern
				}
				// A Match in an included file ends with it.
				for _, f := range s.tree.glob(strings.TrimPrefix(path.Clean(pattern), "/")) {
					s.file(f, depth+1, match)
				}
			}
		default:
			s.all[key] = append(s.all[key], setting{unquote(rest), "/" + name, match})
		}
	}
}

// splitKeyword takes a line apart: "Keyword value" or "Keyword=value".
func splitKeyword(line string) (key, rest string) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return "", ""
	}
	i := strings.IndexAny(line, " \t=")
	if i < 0 {
		return strings.ToLower(line), ""
	}
	rest = strings.TrimLeft(line[i:], " \t=")
	if j := strings.Index(rest, " #"); j >= 0 {
		rest = rest[:j]
	}
	return strings.ToLower(line[:i]), strings.TrimSpace(rest)
}

func unquote(s string) string { return strings.Trim(s, `"`) }

// effective are the values of a keyword that can count: the first that counts
// for all connections, and each for some.
func (s *sshSettings) effective(key, def string) []setting {
	var out []setting
	global := setting{def, "sshd's default", false}
	found := false
	for _, x := range s.all[key] {
		switch {
		case x.match:
			out = append(out, x)
		case !found:
			global, found = x, true
		}
	}
	return append([]setting{global}, out...)
}

// sshd tells whether an image has an ssh daemon that could start, and why not.
func (t *Tree) sshd() (present bool, why string) {
	var program string
	for _, p := range []string{"usr/sbin/sshd", "usr/bin/sshd", "usr/local/sbin/sshd"} {
		if t.resolve(p) != "" {
			program = p
		}
	}
	if program == "" {
		return false, "there is no sshd"
	}
	if _, ok := t.read(sshdConfig); !ok {
		return false, "/" + program + " is there, but without sshd_config it does not start"
	}
	return true, ""
}

func checkSSHPasswords(im *Image, f *findings) {
	t := im.Root
	present, why := t.sshd()
	if !present {
		f.lookedAt("%s", why)
		return
	}
	s := readSSH(t, sshdConfig)
	f.lookedAt("%s", "/"+strings.Join(s.files, ", /"))
	for _, c := range []struct{ key, name, def, want string }{
		{"passwordauthentication", "PasswordAuthentication", "yes", "no"},
		{"kbdinteractiveauthentication", "KbdInteractiveAuthentication", "yes", "no"},
		{"permitemptypasswords", "PermitEmptyPasswords", "no", "no"},
		{"hostbasedauthentication", "HostbasedAuthentication", "no", "no"},
	} {
		key := c.key
		if _, ok := s.all[key]; !ok && key == "kbdinteractiveauthentication" {
			key = "challengeresponseauthentication" // its name before OpenSSH 8.7
		}
		for _, x := range s.effective(key, c.def) {
			if !strings.EqualFold(x.value, c.want) {
				f.refuse("%s is %q by %s", c.name, x.value, place(x))
			}
		}
	}
}

func checkSSHRoot(im *Image, f *findings) {
	t := im.Root
	present, why := t.sshd()
	if !present {
		f.lookedAt("%s", why)
		return
	}
	values := readSSH(t, sshdConfig).effective("permitrootlogin", "prohibit-password")
	f.lookedAt("PermitRootLogin %s by %s", values[0].value, place(values[0]))
	for _, x := range values {
		switch strings.ToLower(x.value) {
		case "no", "prohibit-password", "without-password", "forced-commands-only":
		default:
			f.refuse("PermitRootLogin is %q by %s", x.value, place(x))
		}
	}
}

func place(x setting) string {
	if x.match {
		return x.where + " in a Match block"
	}
	return x.where
}
