// SPDX-License-Identifier: Apache-2.0

package usage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of a search through the tree of control groups.
const (
	searchDepth   = 8
	searchFolders = 20_000
	// searchAgain is how long a container that was not found is not looked
	// for: it may have ended, and the tree may be large.
	searchAgain = 10 * time.Second
	maxParents  = 64
	// maxFound containers are remembered where nobody says which are gone.
	maxFound = 1000
)

// groups are the mounted hierarchies.
type groups struct {
	known bool
	v2    bool
	// at maps a controller to its mount point, "" the one of version 2; below
	// is the part of a group's path that the mount point stands for.
	at, below map[string]string
	// devices remembers which block devices count.
	root    string
	devices map[string]bool
}

// mounts finds out what is mounted, once.
func (r *Reader) mounts() error {
	if r.groups.known {
		return nil
	}
	b, err := r.read(r.root + "/proc/self/mountinfo")
	if err != nil {
		return err
	}
	g := parseMounts(b)
	if len(g.at) == 0 {
		return fmt.Errorf("no control groups are mounted: mount cgroup2 at /sys/fs/cgroup")
	}
	g.known, g.root, g.devices = true, r.root, map[string]bool{}
	for c, at := range g.at {
		g.at[c] = r.root + at
	}
	r.groups = g
	return nil
}

// parseMounts reads mountinfo (proc_pid_mountinfo(5)). Version 1 counts where
// its memory controller is mounted: a controller is in one version only.
func parseMounts(b []byte) groups {
	g := groups{at: map[string]string{}, below: map[string]string{}}
	for line := range bytes.Lines(b) {
		left, right, ok := strings.Cut(string(line), " - ")
		f, after := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 5 || len(after) < 3 {
			continue
		}
		root, at := unescape(f[3]), unescape(f[4])
		names := []string{""}
		switch after[0] {
		case "cgroup2":
		case "cgroup":
			names = strings.Split(after[2], ",")
		default:
			continue
		}
		for _, name := range names {
			if after[0] == "cgroup" && !slices.Contains([]string{"memory", "cpu", "cpuacct", "pids", "blkio"}, name) {
				continue
			}
			if _, have := g.at[name]; !have {
				g.at[name], g.below[name] = at, strings.TrimSuffix(root, "/")
			}
		}
	}
	_, v1 := g.at["memory"]
	_, v2 := g.at[""]
	g.v2 = v2 && !v1
	return g
}

// unescape undoes the kernel's octal escapes of blanks and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// controller is the one whose hierarchy is searched.
func (g *groups) controller() string {
	if g.v2 {
		return ""
	}
	return "memory"
}

// counts says whether bytes of a block device count: those of LVM and its like
// are counted again on the disks below them.
func (g *groups) counts(device []byte) bool {
	if yes, ok := g.devices[string(device)]; ok {
		return yes
	}
	name := string(device)
	if len(g.devices) > 1000 || len(name) > 20 || strings.Trim(name, "0123456789:") != "" {
		return false
	}
	below, err := os.ReadDir(g.root + "/sys/dev/block/" + name + "/slaves")
	yes := err != nil || len(below) == 0
	g.devices[name] = yes
	return yes
}

// find fills entries for the targets. Cheap places come first, a search of the
// whole tree last, once for all that are missing.
func (r *Reader) find(targets []Target) error {
	if err := r.mounts(); err != nil {
		return err
	}
	missing := map[string]bool{}
	now := r.now()
	for i := range targets {
		t := &targets[i]
		if r.entries[t.Container] != nil || !validID(t.Container) {
			continue
		}
		if p, ok := r.byPID(t); ok {
			r.keep(t.Container, p)
		} else if p, ok := r.byParent(t.Container); ok {
			r.keep(t.Container, p)
		} else if last, tried := r.missed[t.Container]; !tried || now.Sub(last) >= searchAgain || now.Before(last) {
			missing[t.Container] = true
		}
	}
	if len(missing) == 0 {
		return nil
	}
	left := searchFolders
	err := r.search(r.groups.at[r.groups.controller()], "", 0, &left, missing)
	for id := range missing {
		r.missed[id] = now
	}
	return err
}

// forget drops what is kept of containers that are not among the targets.
func (r *Reader) forget(targets []Target) {
	if len(r.entries)+len(r.missed) <= len(targets) {
		return
	}
	wanted := make(map[string]bool, len(targets))
	for i := range targets {
		wanted[targets[i].Container] = true
	}
	for id := range r.entries {
		if !wanted[id] {
			delete(r.entries, id)
		}
	}
	for id := range r.missed {
		if !wanted[id] {
			delete(r.missed, id)
		}
	}
}

// Group is where the control group of a container is.
type Group struct {
	// V2 is false for version 1.
	V2 bool
	// Path of the group below each hierarchy, its last part "docker-ID.scope"
	// under the systemd driver and the id under the cgroupfs driver.
	Path string
	// Tops are the mount points of the hierarchies by controller, "" the one
	// of version 2.
	Tops map[string]string
}

// Group finds a container's group; pid may be 0. ok is false where it has none.
func (r *Reader) Group(id string, pid int) (g Group, ok bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entries[id]; e != nil && !r.isFolder(e.path) {
		delete(r.entries, id)
	}
	if len(r.entries)+len(r.missed) > maxFound {
		clear(r.entries)
		clear(r.missed)
	}
	if err := r.find([]Target{{Container: id, PID: pid}}); err != nil {
		return g, false, err
	}
	g = Group{V2: r.groups.v2, Tops: r.groups.at}
	if e := r.entries[id]; e != nil {
		g.Path, ok = e.path, true
	}
	return g, ok, nil
}

// Tops are the mounted hierarchies, as in a Group without a path.
func (r *Reader) Tops() (Group, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.mounts(); err != nil {
		return Group{}, err
	}
	return Group{V2: r.groups.v2, Tops: r.groups.at}, nil
}

// validID keeps what comes from outside from becoming a path.
func validID(id string) bool {
	return len(id) >= 12 && len(id) <= 128 && strings.Trim(id, "0123456789abcdefABCDEF") == ""
}

// keep remembers a container's group, path below the hierarchy's mount point.
func (r *Reader) keep(id, p string) {
	if r.groups.v2 {
		r.entries[id] = entry2(r.groups.at[""] + p)
	} else {
		r.entries[id] = entry1(r.groups.at, p)
	}
	r.entries[id].path = p
	delete(r.missed, id)
	if dir := path.Dir(p); !slices.Contains(r.parents, dir) {
		if len(r.parents) == maxParents {
			r.parents = r.parents[1:]
		}
		r.parents = append(r.parents, dir)
	}
}

// byPID asks the container's process. The path must name the container: the
// number may be another process's by now.
func (r *Reader) byPID(t *Target) (string, bool) {
	if t.PID <= 0 {
		return "", false
	}
	b, err := r.read(r.root + "/proc/" + strconv.Itoa(t.PID) + "/cgroup")
	if err != nil {
		return "", false
	}
	p, ok := parseGroup(b, r.groups.controller())
	if !ok {
		return "", false
	}
	if p, ok = strings.CutPrefix(p, r.groups.below[r.groups.controller()]); !ok {
		return "", false
	}
	// A process of the container may sit in a group below the container's.
	for ; p != "/" && p != "." && p != ""; p = path.Dir(p) {
		if isGroupOf(path.Base(p), t.Container) {
			return p, r.isFolder(p)
		}
	}
	return "", false
}

// parseGroup finds a controller's path in /proc/PID/cgroup, lines as
// "4:memory:/docker/ID" or, in version 2, "0::/system.slice/docker-ID.scope".
func parseGroup(b []byte, controller string) (string, bool) {
	for line := range bytes.Lines(b) {
		f := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(f) != 3 || !slices.Contains(strings.Split(f[1], ","), controller) {
			continue
		}
		if p := f[2]; strings.HasPrefix(p, "/") && path.Clean(p) == p {
			return p, true
		}
	}
	return "", false
}

// isGroupOf knows the names that Docker gives: ID.scope with a prefix under
// the systemd driver, the plain ID under the cgroupfs driver.
func isGroupOf(name, id string) bool {
	return name == id || name == "docker-"+id+".scope"
}

func (r *Reader) byParent(id string) (string, bool) {
	for _, dir := range r.parents {
		for _, name := range []string{"docker-" + id + ".scope", id} {
			if p := path.Join(dir, name); r.isFolder(p) {
				return p, true
			}
		}
	}
	return "", false
}

func (r *Reader) isFolder(p string) bool {
	var st unix.Stat_t
	err := unix.Stat(r.groups.at[r.groups.controller()]+p, &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// search walks the tree of groups for all that are missing.
func (r *Reader) search(top, p string, depth int, left *int, missing map[string]bool) error {
	entries, err := os.ReadDir(top + p)
	if err != nil {
		if gone(err) || errors.Is(err, unix.EACCES) {
			return nil
		}
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if *left--; *left < 0 {
			return fmt.Errorf("%s: more than %d control groups, containers in the rest are not found", top, searchFolders)
		}
		name := e.Name()
		id := strings.TrimSuffix(strings.TrimPrefix(name, "docker-"), ".scope")
		if missing[id] && isGroupOf(name, id) {
			r.keep(id, p+"/"+name)
			delete(missing, id)
			if len(missing) == 0 {
				return nil
			}
			continue
		}
		if depth+1 < searchDepth {
			if err := r.search(top, p+"/"+name, depth+1, left, missing); err != nil || len(missing) == 0 {
				return err
			}
		}
	}
	return nil
}
