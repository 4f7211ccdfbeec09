// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestLayout: the kernel's structures, whose sizes are part of its calls.
func TestLayout(t *testing.T) {
	var d diskQuota
	if n := unsafe.Sizeof(d); n != 112 {
		t.Errorf("fs_disk_quota has %d bytes, not 112", n)
	}
	if n := unsafe.Offsetof(d.blocks); n != 40 {
		t.Errorf("d_bcount is at %d, not 40", n)
	}
	if n := unsafe.Offsetof(d.rtHard); n != 72 {
		t.Errorf("d_rtb_hardlimit is at %d, not 72", n)
	}
	if n := unsafe.Sizeof(fsxattr{}); n != 28 {
		t.Errorf("fsxattr has %d bytes, not 28", n)
	}
	for request, number := range map[uintptr]uintptr{getXattr: 31, setXattr: 32} {
		if request>>16&0x3fff != 28 || request>>8&0xff != 'X' || request&0xff != number {
			t.Errorf("ioctl %#x is not 'X' %d of 28 bytes", request, number)
		}
	}
}

// TestNone: a file system without project quotas says so, and nothing changes;
// what is no folder of ours is not followed.
func TestNone(t *testing.T) {
	dir := "/dev/shm"
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no tmpfs here")
	}
	dir, err := os.MkdirTemp(dir, "quota-test-")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(dir)
	if _, err := Get(dir); !errors.Is(err, ErrNone) {
		t.Errorf("Get: %v", err)
	}
	if _, err := OfProject(dir, 7); !errors.Is(err, ErrNone) {
		t.Errorf("OfProject: %v", err)
	}
	if err := SetLimit(dir, 7, 1<<20); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), dir) {
		t.Errorf("SetLimit: %v", err)
	}
	for _, bad := range []struct {
		id    uint32
		limit int64
	}{{0, 1}, {7, -1}} {
		if err := SetLimit(dir, bad.id, bad.limit); err == nil || errors.Is(err, ErrNone) {
			t.Errorf("SetLimit of %+v: %v", bad, err)
		}
	}
	if _, _, err := Project(filepath.Join(dir, "not there")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Project: %v", err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/", link); err != nil {
		t.Fatal(err)
	}
	if err := SetProject(link, 7); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a link is followed: %v", err)
	}
}

func TestNumbers(t *testing.T) {
	if bytesOf(3) != 1536 || bytesOf(math.MaxUint64) != math.MaxInt64 || clamp(math.MaxUint64) != math.MaxInt64 {
		t.Error("numbers do not stay in their type")
	}
	if err := none(unix.EACCES); errors.Is(err, ErrNone) || none(nil) != nil {
		t.Errorf("%v", err)
	}
}
