// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mebibytes reads "64M".
func mebibytes(t *testing.T, word string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSuffix(word, "M"))
	if err != nil || !strings.HasSuffix(word, "M") {
		t.Fatalf("%q is not in M", word)
	}
	return n
}

// TestSystemIsProtected: each unit that must go on when memory is short says
// so, and the slice they are in keeps as much as they do together: less does
// nothing, more takes from the stack.
func TestSystemIsProtected(t *testing.T) {
	units := []string{
		"docker.service.d/10-holdfast.conf", "containerd.service.d/10-holdfast.conf", "systemd-journald.service.d/10-holdfast.conf",
		"holdfast.service", "holdfast-sshd.service",
	}
	sum := 0
	for _, unit := range units {
		kept := words(t, unit, "MemoryMin")
		if len(kept) != 1 {
			t.Fatalf("%s has MemoryMin=%v", unit, kept)
		}
		sum += mebibytes(t, kept[0])
	}
	slice := words(t, "system.slice.d/10-holdfast.conf", "MemoryMin")
	if len(slice) != 1 || mebibytes(t, slice[0]) != sum {
		t.Errorf("system.slice has MemoryMin=%v, its units together %dM", slice, sum)
	}
	// Any other unit that claims some would take it from these.
	files := Spec().Files
	err := fs.WalkDir(files, "usr/lib/systemd/system", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		unit := strings.TrimPrefix(name, "usr/lib/systemd/system/")
		if strings.HasSuffix(path.Dir(unit), ".slice.d") || strings.HasPrefix(unit, "init.scope.d") || slices.Contains(units, unit) {
			return nil
		}
		if kept := words(t, unit, "MemoryMin"); len(kept) > 0 {
			t.Errorf("%s has MemoryMin=%v and is not in the sum", unit, kept)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for unit, most := range map[string]int{"holdfast.service": -500, "holdfast-sshd.service": -500} {
		score := words(t, unit, "OOMScoreAdjust")
		if len(score) != 1 {
			t.Fatalf("%s has OOMScoreAdjust=%v", unit, score)
		}
		if n, err := strconv.Atoi(score[0]); err != nil || n > most {
			t.Errorf("%s has OOMScoreAdjust=%v: a container goes no lower than -400", unit, score)
		}
	}
}

// TestSlices: those that containers are put into are there before the daemon
// is. What is in a slice says so by its name.
func TestSlices(t *testing.T) {
	for _, slice := range []string{"holdfast.slice", "holdfast-critical.slice", "holdfast-normal.slice", "holdfast-besteffort.slice"} {
		if _, err := fs.Stat(Spec().Files, "usr/lib/systemd/system/"+slice); err != nil {
			t.Error(err)
		}
		for _, key := range []string{"Wants", "After"} {
			if !slices.Contains(words(t, "holdfast.service", key), slice) {
				t.Errorf("holdfast.service lacks %s=%s", key, slice)
			}
		}
	}
	if got := words(t, "holdfast.slice", "TasksMax"); !slices.Equal(got, []string{"80%"}) {
		t.Errorf("TasksMax=%v", got)
	}
}

// TestKernelLimits: at least what stacks ask for that we know of.
func TestKernelLimits(t *testing.T) {
	data, err := fs.ReadFile(Spec().Files, "usr/lib/sysctl.d/60-holdfast.conf")
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]int{}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err == nil {
				has[strings.TrimSpace(key)] = n
			}
		}
	}
	for key, least := range map[string]int{"fs.inotify.max_user_watches": 128_000, "vm.max_map_count": 300_000, "fs.inotify.max_user_instances": 1024, "fs.aio-max-nr": 1 << 20} {
		if has[key] < least {
			t.Errorf("%s is %d, less than %d", key, has[key], least)
		}
	}
}

// TestProjectQuotas: disk budgets need them on state.
func TestProjectQuotas(t *testing.T) {
	options := words(t, "var.mount", "Options")
	if len(options) != 1 || !slices.Contains(strings.Split(options[0], ","), "prjquota") {
		t.Errorf("var.mount has Options=%v", options)
	}
}
