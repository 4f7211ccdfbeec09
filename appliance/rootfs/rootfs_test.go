// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

func TestTablesAgree(t *testing.T) {
	s := Spec()
	for name := range s.Modes {
		if _, err := fs.Stat(s.Files, name); err != nil {
			t.Errorf("mode for a file that is not there: %v", err)
		}
	}
	for name := range s.Links {
		if _, err := fs.Stat(s.Files, name); err == nil {
			t.Errorf("%s is a link and a file", name)
		}
	}
	for list, names := range map[string][]string{
		"Packages": s.Packages, "InitrdDrivers": s.InitrdDrivers, "InitrdOmit": s.InitrdOmit, "Dirs": s.Dirs, "Remove": s.Remove, "masked": masked,
	} {
		seen := map[string]bool{}
		for _, name := range names {
			if seen[name] || name == "" || strings.HasPrefix(name, "/") || strings.Contains(name, "..") {
				t.Errorf("%s: %q is twice or no name", list, name)
			}
			seen[name] = true
		}
	}
	for _, driver := range s.InitrdDrivers {
		if slices.Contains(s.InitrdOmit, driver) {
			t.Errorf("%s is wanted and omitted", driver)
		}
	}
	for _, glob := range s.Remove {
		if _, err := path.Match(glob, "x"); err != nil {
			t.Errorf("Remove %q: %v", glob, err)
		}
	}
}

func TestSpecIsNotShared(t *testing.T) {
	a := Spec()
	a.Packages[0], a.Purge[0][0], a.Cmdline[0] = "x", "x", "x"
	a.Links["x"], a.Moves["x"] = "x", "x"
	b := Spec()
	if b.Packages[0] == "x" || b.Purge[0][0] == "x" || b.Cmdline[0] == "x" || b.Links["x"] != "" || b.Moves["x"] != "" {
		t.Error("a change to one set shows in the next")
	}
}

// TestUnits: each unit of ours is pulled in by something, none is masked, and
// an [Install] section, which nothing reads here, says the same as the links.
func TestUnits(t *testing.T) {
	s := Spec()
	const dir = "usr/lib/systemd/system"
	entries, err := fs.ReadDir(s.Files, dir)
	if err != nil {
		t.Fatal(err)
	}
	all := text(t, s.Files, dir)
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		unit := e.Name()
		if slices.Contains(masked, unit) {
			t.Errorf("%s is ours and masked", unit)
		}
		linked := slices.ContainsFunc(enabled, func(l struct{ target, how, unit string }) bool { return l.unit == unit })
		if !linked && !named(all, "Requires=", unit) && !named(all, "Wants=", unit) && !named(all, "Unit=", unit) {
			t.Errorf("nothing pulls in %s", unit)
		}
		own := text(t, s.Files, dir+"/"+unit)
		for _, l := range enabled {
			if l.unit != unit {
				continue
			}
			key := map[string]string{"wants": "WantedBy=", "requires": "RequiredBy="}[l.how]
			if strings.Contains(own, "[Install]") && !strings.Contains(own, key+l.target) {
				t.Errorf("%s: link says %s%s, [Install] does not", unit, key, l.target)
			}
		}
	}
	for _, l := range enabled {
		if slices.Contains(masked, l.unit) {
			t.Errorf("%s is enabled and masked", l.unit)
		}
	}
}

func named(all, key, unit string) bool {
	for line := range strings.SplitSeq(all, "\n") {
		if rest, ok := strings.CutPrefix(line, key); ok && slices.Contains(strings.Fields(rest), unit) {
			return true
		}
	}
	return false
}

// TestNothingElseComesIntoEtc holds the written list to what is baked.
func TestNothingElseComesIntoEtc(t *testing.T) {
	s := Spec()
	listed := map[string]string{}
	for _, o := range FromOutside() {
		listed["etc/"+o.Path] = o.From
	}
	for name, target := range s.Links {
		if !strings.HasPrefix(name, "etc/") || target == "/dev/null" || strings.HasPrefix(target, "/usr/") {
			continue
		}
		if !path.IsAbs(target) {
			target = path.Join("/etc", target)
		}
		if listed[name] != target {
			t.Errorf("%s leads to %s, which is not in the list", name, target)
		}
	}
	for line := range strings.SplitSeq(text(t, s.Files, "."), "\n") {
		if strings.HasPrefix(line, "Where=/etc") || strings.HasPrefix(line, "BindPaths=") {
			t.Errorf("something is mounted into /etc: %s", line)
		}
	}
	id, err := fs.ReadFile(s.Files, "etc/machine-id")
	if err != nil || len(id) != 0 {
		t.Errorf("etc/machine-id must be an empty file: %q, %v", id, err)
	}
	doc, err := os.ReadFile("../../docs/etc-from-state.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.SplitSeq(string(doc), "\n") {
		if strings.HasPrefix(line, "| `/etc/") {
			rows++
		}
	}
	for _, o := range FromOutside() {
		kept := "nothing"
		if o.Kept != "" {
			kept = "`" + o.Kept + "`"
		}
		if row := fmt.Sprintf("| `/etc/%s` | `%s` | %s | %s |", o.Path, o.From, kept, o.By); !strings.Contains(string(doc), row) {
			t.Errorf("docs/etc-from-state.md lacks the row\n%s", row)
		}
	}
	if rows != len(FromOutside()) {
		t.Errorf("docs/etc-from-state.md has %d rows, the table %d", rows, len(FromOutside()))
	}
}

func TestDockerConfiguration(t *testing.T) {
	data, err := fs.ReadFile(Spec().Files, "etc/docker/daemon.json")
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Features map[string]bool   `json:"features"`
		Root     string            `json:"data-root"`
		Logs     map[string]string `json:"log-opts"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	if !c.Features["containerd-snapshotter"] || c.Root != "/var/lib/docker" || c.Logs["max-size"] == "" || c.Logs["max-file"] == "" {
		t.Errorf("daemon.json: %s", data)
	}
}

// TestCommandLine: what the rest of the box relies on, and nothing that would
// open it.
func TestCommandLine(t *testing.T) {
	words := Spec().Cmdline
	for _, want := range []string{"root=/dev/mapper/root", "ro", "lockdown=integrity", "systemd.gpt_auto=0"} {
		if !slices.Contains(words, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, word := range words {
		if strings.HasPrefix(word, "roothash=") || strings.HasPrefix(word, "systemd.verity_") || strings.HasPrefix(word, "init=") || strings.Contains(word, "debug") {
			t.Errorf("%s does not belong here", word)
		}
	}
}

func text(t *testing.T, tree fs.FS, root string) string {
	t.Helper()
	var b strings.Builder
	err := fs.WalkDir(tree, root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		b.Write(data)
		b.WriteByte('\n')
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
