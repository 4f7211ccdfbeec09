// SPDX-License-Identifier: Apache-2.0

//go:build engine

package enforce

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/appliance/enforce/quota"
	"github.com/holdfast/holdfast/compose/budget"
)

// xfs gives a folder on an XFS with project quotas: below HOLDFAST_XFS, else
// on a loop device of its own. It skips where the kernel has none, as many
// hosts' have; the virtual machines' tests run this in a box.
func xfs(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("HOLDFAST_XFS"); dir != "" {
		at, err := os.MkdirTemp(dir, "enforce-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(at) })
		return at
	}
	mkfs, err := exec.LookPath("mkfs.xfs")
	if err != nil {
		t.Skip("no mkfs.xfs here")
	}
	dir := t.TempDir()
	file, at := filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 512<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), mkfs, "-q", file).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.xfs: %v: %s", err, out)
	}
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "xfs", "-o", "loop,prjquota", file, at).CombinedOutput(); err != nil {
		t.Skipf("this kernel mounts no XFS with project quotas: %v: %s", err, out)
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// fill writes to a file until the disk says no, and gives how much went in.
func fill(t *testing.T, path string, most int64) int64 {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	var n int64
	for n < most {
		m, err := f.Write(block)
		n += int64(m)
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	return n
}

// TestXFS: a volume stops at its budget, to the block; its neighbour does not
// notice; what was in it counts; numbers stay.
func TestXFS(t *testing.T) {
	dir := xfs(t)
	var volumes []Volume
	for _, name := range []string{"small", "free", "large"} {
		path := filepath.Join(dir, "volumes", name, "_data")
		if err := os.MkdirAll(path+"/deep/er", 0o755); err != nil {
			t.Fatal(err)
		}
		volumes = append(volumes, Volume{name, path})
	}
	small, free := volumes[0].Path, volumes[1].Path
	// What is there before the first Apply, with what must not be followed.
	if err := os.WriteFile(small+"/deep/er/old", make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(free, small+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(small+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	b := &budget.Budget{Volumes: []budget.Volume{{Name: "small", Bytes: 20 << 20}, {Name: "large", Bytes: 60 << 20}}}
	config := Config{Root: t.TempDir(), Kept: filepath.Join(dir, "projects.json")}
	apply := func() string {
		e := New(config)
		e.Apply(t.Context(), b, nil, volumes)
		return fmt.Sprint(e.told["volumes"])
	}
	if got := apply(); got != "[]" {
		t.Fatal(got)
	}
	u, err := quota.Get(small)
	if err != nil || u.Limit != 20<<20 || u.Used < 4<<20 || u.Used > 5<<20 {
		t.Fatalf("%+v, %v", u, err)
	}
	n := fill(t, small+"/deep/new", 64<<20)
	if n < 15<<20 || n > 16<<20 {
		t.Errorf("%d KiB went into a volume with 16 MiB left", n>>10)
	}
	if got := apply(); !strings.Contains(got, "volume-full") {
		t.Errorf("a full volume: %s", got)
	}
	if n := fill(t, free+"/file", 30<<20); n < 30<<20 {
		t.Errorf("the volume without a budget stops at %d KiB", n>>10)
	}
	if n := fill(t, volumes[2].Path+"/file", 50<<20); n < 50<<20 {
		t.Errorf("the neighbour stops at %d KiB", n>>10)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(small, &st); err != nil || int64(st.Blocks)*st.Bsize != 20<<20 {
		t.Errorf("df in the volume says %d bytes, %v", int64(st.Blocks)*st.Bsize, err)
	}
	if u, err := quota.Get(free); err != nil || u.Limit != 0 || u.Used < 30<<20 {
		t.Errorf("without a budget: %+v, %v", u, err)
	}
	// Room that is given back can be used; a smaller budget holds at once.
	if err := os.Remove(small + "/deep/new"); err != nil {
		t.Fatal(err)
	}
	if got := apply(); got != "[]" {
		t.Error(got)
	}
	b.Volumes[0].Bytes = 8 << 20
	apply()
	if n := fill(t, small+"/again", 64<<20); n < 3<<20 || n > 4<<20 {
		t.Errorf("%d KiB went into a volume with 4 MiB left", n>>10)
	}
	if err := os.Rename(small+"/again", small+"/deep/er/again"); err != nil {
		t.Errorf("rename within a volume: %v", err)
	}
	before, _, err := quota.Project(small)
	if err != nil {
		t.Fatal(err)
	}
	// Made anew under its old name: the number and the budget are back.
	if err := os.RemoveAll(small); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := apply(); got != "[]" {
		t.Error(got)
	}
	if after, inherits, err := quota.Project(small); after != before || !inherits || err != nil {
		t.Errorf("project %d, then %d, %v, %v", before, after, inherits, err)
	}
	if n := fill(t, small+"/new", 64<<20); n < 7<<20 || n > 8<<20 {
		t.Errorf("%d KiB went into a new volume of 8 MiB", n>>10)
	}
}

// TestRealGroups writes shares into groups of this machine, where they are of
// version 2, and finds them there; on a machine with systemd they outlast its
// reload.
func TestRealGroups(t *testing.T) {
	if !New(Config{}).groups.V2() {
		t.Skip("control groups of version 1 here")
	}
	out, err := exec.CommandContext(t.Context(), "docker", "ps", "-q", "--no-trunc").Output()
	ids := strings.Fields(string(out))
	if err != nil || len(ids) == 0 {
		t.Skipf("no containers run here: %v", err)
	}
	e := New(Config{})
	g, ok, err := e.groups.Group(ids[0], 0)
	if err != nil || !ok {
		t.Fatalf("%s: %v, %v", ids[0], ok, err)
	}
	t.Logf("%s is %s", ids[0][:12], g.Path)
	was := Share{CPUWeight: 100, IOWeight: 100}
	want := Share{MemoryMin: 3<<20 + 5, MemoryLow: 7 << 20, CPUWeight: 77, IOWeight: 66}
	if err := set(g, want); err != nil {
		t.Fatal(err)
	}
	defer set(g, was)
	check := func(when string) {
		t.Helper()
		if missing, err := differs(g.Tops[""]+g.Path, want); err != nil || len(missing) > 0 {
			t.Errorf("%s: %+v, %v", when, missing, err)
		}
	}
	check("written")
	if got := values(t, g.Tops[""]+g.Path, "memory.min", "memory.low", "cpu.weight"); got != "cpu.weight=77 memory.low=7340032 memory.min=3145728" {
		t.Error(got)
	}
	if out, err := exec.CommandContext(t.Context(), "systemctl", "daemon-reload").CombinedOutput(); err != nil {
		t.Logf("no systemd: %s", out)
		return
	}
	check("after a reload of systemd")
}
