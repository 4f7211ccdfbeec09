// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/appliance/enforce/quota"
	"github.com/holdfast/holdfast/appliance/status"
)

// fakeQuotas is a file system with project quotas, or without.
type fakeQuotas struct {
	none    bool
	folders map[string]uint32 // those that exist, by their project
	use     map[uint32]quota.Usage
	acts    []string
	fail    error
}

func newQuotas(folders ...string) *fakeQuotas {
	q := &fakeQuotas{folders: map[string]uint32{}, use: map[uint32]quota.Usage{}}
	for _, f := range folders {
		q.folders[f] = 0
	}
	return q
}

func (q *fakeQuotas) Project(path string) (uint32, bool, error) {
	id, ok := q.folders[path]
	switch {
	case !ok:
		return 0, false, fs.ErrNotExist
	case q.none:
		return 0, false, quota.ErrNone
	}
	return id, id != 0, q.fail
}

func (q *fakeQuotas) Adopt(_ context.Context, path string, id uint32) error {
	q.acts = append(q.acts, fmt.Sprintf("adopt %s %d", path, id))
	q.folders[path] = id
	return nil
}

func (q *fakeQuotas) OfProject(path string, id uint32) (quota.Usage, error) {
	if q.none {
		return quota.Usage{}, quota.ErrNone
	}
	u := q.use[id]
	u.Project = id
	return u, nil
}

func (q *fakeQuotas) SetLimit(path string, id uint32, limit int64) error {
	q.acts = append(q.acts, fmt.Sprintf("limit %s %d %d MiB", path, id, limit/mib))
	u := q.use[id]
	u.Limit = limit
	q.use[id] = u
	return nil
}

// did gives the acts since it was asked last.
func (q *fakeQuotas) did() string {
	s := strings.Join(q.acts, "\n")
	q.acts = nil
	return s
}

// disks are file systems by folder, with a ballast each.
type disks struct {
	space   map[string]Space
	ballast map[string]int64
	noRoom  bool
}

func (d *disks) Space(path string) (Space, error) {
	s, ok := d.space[path]
	if !ok {
		return s, fs.ErrNotExist
	}
	return s, nil
}

func (d *disks) Size(path string) (int64, error) { return d.ballast[path], nil }

func (d *disks) Make(path string, size int64) error {
	if d.noRoom {
		return unix.ENOSPC
	}
	d.change(path, size)
	return nil
}

func (d *disks) Remove(path string) error { d.change(path, 0); return nil }

func (d *disks) change(path string, to int64) {
	dir := filepath.Dir(path)
	s := d.space[dir]
	s.Free += d.ballast[path] - to
	d.space[dir], d.ballast[path] = s, to
}

// systemctl does what systemd does for set-property, to the files.
type systemctl struct {
	root  string
	calls []string
}

func (s *systemctl) Run(_ context.Context, argv ...string) ([]byte, error) {
	s.calls = append(s.calls, strings.Join(argv, " "))
	dir := s.root + "/sys/fs/cgroup/holdfast.slice"
	if argv[3] != "holdfast.slice" {
		dir += "/" + argv[3]
	}
	files := map[string]string{"MemoryMin": "memory.min", "MemoryLow": "memory.low", "CPUWeight": "cpu.weight", "IOWeight": "io.weight"}
	for _, p := range argv[4:] {
		key, value, _ := strings.Cut(p, "=")
		if key == "IOWeight" {
			value = "default " + value
		} else if strings.HasPrefix(key, "Memory") {
			var n int64
			fmt.Sscan(value, &n)
			value = fmt.Sprint(pages(n))
		}
		if err := os.WriteFile(filepath.Join(dir, files[key]), []byte(value+"\n"), 0o644); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func put(t testing.TB, root, name, content string) {
	t.Helper()
	at := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// group2 lays out a control group of version 2.
func group2(t testing.TB, root, path string) {
	t.Helper()
	for name, v := range map[string]string{"memory.min": "0\n", "memory.low": "0\n", "cpu.weight": "100\n", "io.weight": "default 100\n", "cpu.stat": "usage_usec 1\n"} {
		put(t, root, "sys/fs/cgroup/"+path+"/"+name, v)
	}
}

// values gives "file=content" of a group, sorted.
func values(t testing.TB, dir string, names ...string) string {
	t.Helper()
	sort.Strings(names)
	var out []string
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(data), "\n")
		out = append(out, name+"="+first)
	}
	return strings.Join(out, " ")
}

func codes(list []status.Condition) string {
	var out []string
	for _, c := range list {
		out = append(out, c.Code)
		if c.Text == "" || c.Remedy == "" || c.Severity == "" || strings.Contains(c.Text, "\n") {
			out = append(out, fmt.Sprintf("(incomplete: %+v)", c))
		}
	}
	return strings.Join(out, " ")
}
