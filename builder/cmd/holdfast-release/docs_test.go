// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPages runs the commands of the pages on releases and keys, top to bottom,
// in a folder that has the releases they name: the lines of blocks marked sh.
// A line that ends in "# refused: TEXT" must fail and say TEXT.
func TestPages(t *testing.T) {
	for _, page := range []string{"releases.md", "keys.md"} {
		t.Run(page, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("../../../docs", page))
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			for folder, version := range map[string]string{"dist/demo-1.0.0": "1.0.0", "dist/demo-1.1.0": "1.1.0", "evil": "6.6.6"} {
				if err := writeRelease(filepath.Join(dir, folder, "release"), version, version); err != nil {
					t.Fatal(err)
				}
			}
			p := &pageRun{t: t, dir: dir}
			in := false
			for n, line := range strings.Split(string(text), "\n") {
				switch {
				case strings.HasPrefix(line, "```"):
					in = line == "```sh"
				case in:
					p.line(n+1, line)
				}
			}
			if p.ran < 8 || p.ran == p.refused {
				t.Errorf("%d commands were found, %d of them to be refused", p.ran, p.refused)
			}
		})
	}
}

// pageRun is one page being followed.
type pageRun struct {
	t            *testing.T
	dir          string
	env          []string
	ran, refused int
}

func (p *pageRun) line(n int, line string) {
	p.t.Helper()
	// What the page calls /srv is in the folder of the test.
	command, refused, fails := strings.Cut(strings.ReplaceAll(line, "/srv/", p.dir+"/srv/"), "# refused: ")
	if name, value, ok := strings.Cut(command, "=$("); ok && !strings.Contains(name, " ") && strings.HasSuffix(value, ")") {
		p.env = append(p.env, name+"="+strings.TrimSpace(p.shell(n, "echo $("+value, false, "")))
		return
	}
	p.ran++
	if fails {
		p.refused++
	}
	p.shell(n, command, fails, refused)
}

func (p *pageRun) shell(n int, command string, fails bool, want string) string {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), "sh", "-euc", command)
	cmd.Dir, cmd.Env = p.dir, append(os.Environ(), p.env...)
	out, err := cmd.CombinedOutput()
	if (err != nil) != fails || !strings.Contains(string(out), want) {
		p.t.Fatalf("line %d: %s: %v, want refused %v %q\n%s", n, command, err, fails, want, out)
	}
	return string(out)
}
