// SPDX-License-Identifier: Apache-2.0

// Package facts reads what this boot is: which slot, which root hash, whether
// the kernel still verifies it, which machine, which boot, how long ago the
// kernel started. It only reads, and a host that is no Holdfast box is no
// error: its facts are empty.
package facts

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/status"
)

// Facts are fixed for one boot, but for Root.Verified.
type Facts struct {
	BootID, MachineID string
	// Sealed is true on a machine that was booted with a root hash, whether or
	// not its root could be identified.
	Sealed bool
	// Slot is "A", "B" or "".
	Slot string
	Root status.Root
	// OS is IMAGE_VERSION of /etc/os-release, "" where there is none.
	OS string
}

// Read gathers the facts below root, "" on a box. problem says why the root
// could not be identified on a machine that was booted with a root hash.
func Read(root string) (f Facts, problem error) {
	f.BootID = line(root, "proc/sys/kernel/random/boot_id")
	f.MachineID = line(root, "etc/machine-id")
	f.OS = osRelease(root, "IMAGE_VERSION")
	f.Root.ReadOnly = readOnly(root)
	if !strings.Contains(line(root, "proc/cmdline"), "roothash=") {
		return f, nil // any Linux host
	}
	f.Sealed = true
	r, err := slot.Running(root)
	if err != nil {
		return f, err
	}
	f.Slot, f.Root.Hash = r.Letter, r.Hash
	f.Root.Verified, err = Verified(root, r.Hash)
	return f, err
}

// Uptime is the time since the kernel started, sleep included
// (CLOCK_BOOTTIME), in seconds.
func Uptime() float64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return float64(ts.Nano()) / float64(time.Second)
}

// line reads a one-line file of at most a page.
func line(root, name string) string {
	b, err := os.ReadFile(filepath.Join("/", root, name))
	if err != nil || len(b) > 4096 {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func osRelease(root, key string) string {
	b, err := os.ReadFile(filepath.Join("/", root, "etc/os-release"))
	if errors.Is(err, fs.ErrNotExist) {
		b, _ = os.ReadFile(filepath.Join("/", root, "usr/lib/os-release"))
	}
	for l := range strings.SplitSeq(string(b), "\n") {
		if v, ok := strings.CutPrefix(l, key+"="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return ""
}

// readOnly reports whether the file system at / is mounted read-only; both
// the mount and the super block may say so.
func readOnly(root string) bool {
	b, err := os.ReadFile(filepath.Join("/", root, "proc/self/mountinfo"))
	if err != nil {
		return false
	}
	ro := false
	for l := range strings.SplitSeq(string(b), "\n") {
		// proc(5): id parent major:minor root mountpoint options ... - type source super-options
		f := strings.Fields(l)
		if len(f) < 7 || f[4] != "/" {
			continue
		}
		ro = has(f[5], "ro") || has(f[len(f)-1], "ro")
	}
	return ro
}

func has(options, want string) bool {
	for o := range strings.SplitSeq(options, ",") {
		if o == want {
			return true
		}
	}
	return false
}
