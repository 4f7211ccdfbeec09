// SPDX-License-Identifier: Apache-2.0

//go:build engine

package enforce

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/appliance/enforce/quota"
)

// TestOverlay: an overlay whose upper and work folders are a project of their
// own, inside the store's, does all that a container does with files, up to its
// limit and no further.
func TestOverlay(t *testing.T) {
	dir := xfs(t)
	store := filepath.Join(dir, "store")
	at := map[string]string{}
	for _, name := range []string{"1/fs", "2/fs", "2/work", "merged"} {
		at[name] = filepath.Join(store, name)
		if err := os.MkdirAll(at[name]+"/etc", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.Remove(at["2/work"] + "/etc")
	for i := range 3 {
		if err := os.WriteFile(fmt.Sprintf("%s/etc/f%d", at["1/fs"], i), make([]byte, 100_000), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const all, layer = storeProject + 500, storeProject + 501
	if err := quota.Adopt(t.Context(), store, all); err != nil {
		t.Skip(err)
	}
	for _, name := range []string{"2/work", "2/fs"} {
		if err := quota.Adopt(t.Context(), at[name], layer); err != nil {
			t.Fatal(err)
		}
	}
	if err := quota.SetLimit(store, layer, 10<<20); err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", at["1/fs"], at["2/fs"], at["2/work"])
	merged := at["merged"]
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(merged, unix.MNT_DETACH)
	etc := merged + "/etc"
	for name, do := range map[string]func() error{
		"copy up":       func() error { return os.WriteFile(etc+"/f0", []byte("x"), 0o644) },
		"chmod":         func() error { return os.Chmod(etc+"/f1", 0o600) },
		"remove":        func() error { return os.Remove(etc + "/f2") },
		"new and moved": func() error { os.WriteFile(etc+"/n", nil, 0o644); return os.Rename(etc+"/n", merged+"/n") },
		"folders":       func() error { return os.MkdirAll(merged+"/a/b/c", 0o755) },
		"link":          func() error { return os.Symlink("x", etc+"/l") },
		"fifo":          func() error { return unix.Mkfifo(etc+"/p", 0o600) },
	} {
		if err := do(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := fill(t, merged+"/a/b/c/big", 64<<20); n < 9<<20 || n > 10<<20 {
		t.Errorf("%d KiB went into a layer of 10 MiB", n>>10)
	}
	if u, err := quota.Get(at["1/fs"]); err != nil || u.Limit != 0 {
		t.Errorf("the store: %+v, %v", u, err)
	}
	if n := fill(t, at["1/fs"]+"/next", 20<<20); n < 20<<20 {
		t.Errorf("the store stops at %d KiB with the layer", n>>10)
	}
}

// TestRealLayers asks the machine's containerd for the layer of a container
// that runs, and holds the answer against what is mounted.
func TestRealLayers(t *testing.T) {
	if _, err := os.Stat(containerdSocket); err != nil {
		t.Skip("no containerd at its usual place")
	}
	out, err := exec.CommandContext(t.Context(), "docker", "ps", "-q", "--no-trunc").Output()
	ids := strings.Fields(string(out))
	if err != nil || len(ids) == 0 {
		t.Skipf("no containers run here: %v", err)
	}
	mounted, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		dirs, err := NewContainerd("").Dirs(t.Context(), id)
		if err != nil || len(dirs) != 2 || !strings.Contains(string(mounted), "upperdir="+dirs[1]+",workdir="+dirs[0]) {
			t.Errorf("%s: %v, %v", id, dirs, err)
		}
	}
	if dirs, err := NewContainerd("").Dirs(t.Context(), strings.Repeat("0", 64)); err != nil || len(dirs) != 0 {
		t.Errorf("a container that is not: %v, %v", dirs, err)
	}
}
