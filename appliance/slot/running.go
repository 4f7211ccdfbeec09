// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/images/gpt"
)

// Root is the root file system this boot came from.
type Root struct {
	// Letter is the slot, "A" or "B".
	Letter string
	// Hash is the dm-verity root hash on the kernel command line.
	Hash string
	// Partition and Disk are kernel names, "vda2" and "vda".
	Partition string
	Disk      string
}

// Running finds the root that is mounted, below root ("" on a box), by
// following the kernel from the mount to its device-mapper device to the
// partition under it. Names on a second disk can't mislead it.
func Running(root string) (Root, error) {
	root = filepath.Join("/", root) // wherever this process works
	hash, err := commandLineHash(root)
	if err != nil {
		return Root{}, err
	}
	dev, err := mountedDevice(root, "/")
	if err != nil {
		return Root{}, err
	}
	sys, err := filepath.EvalSymlinks(filepath.Join(root, "sys/dev/block", dev))
	if err != nil {
		return Root{}, fmt.Errorf("the root's block device %s is not in sysfs: %w", dev, err)
	}
	below, err := os.ReadDir(filepath.Join(sys, "slaves"))
	if err != nil || len(below) != 1 {
		return Root{}, fmt.Errorf("the root is on %s, which is not one dm-verity device over one partition", filepath.Base(sys))
	}
	part := below[0].Name()
	partDir, err := filepath.EvalSymlinks(filepath.Join(root, "sys/class/block", part))
	if err != nil {
		return Root{}, err
	}
	r := Root{Hash: hash, Partition: part, Disk: filepath.Base(filepath.Dir(partDir))}
	table, err := r.table(root)
	if err != nil {
		return Root{}, err
	}
	label, err := partitionName(partDir, table)
	if err != nil {
		return Root{}, err
	}
	switch label {
	case "root-a":
		r.Letter = "A"
	case "root-b":
		r.Letter = "B"
	default:
		return Root{}, fmt.Errorf("the root is on partition %s labelled %q, want root-a or root-b", part, label)
	}
	return r, nil
}

// Sibling gives the kernel name ("vda5") of the partition with a GPT label on
// the disk the root is on; "" when there is none. Two of one label are an
// error: no one could say which is meant.
func (r Root) Sibling(root, label string) (string, error) {
	root = filepath.Join("/", root) // wherever this process works
	table, err := r.table(root)
	if err != nil {
		return "", err
	}
	disk := filepath.Join(root, "sys/class/block", r.Disk)
	entries, err := os.ReadDir(disk)
	if err != nil {
		return "", err
	}
	found := ""
	for _, e := range entries {
		dir := filepath.Join(disk, e.Name())
		if _, err := os.Stat(filepath.Join(dir, "partition")); err != nil {
			continue
		}
		name, err := partitionName(dir, table)
		if err != nil {
			return "", err
		}
		if name != label {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("disk %s has two partitions labelled %q, %s and %s; remove or rename one", r.Disk, label, found, e.Name())
		}
		found = e.Name()
	}
	return found, nil
}

// table reads the disk's own table. The kernel's copy will not do: it has no
// label for a partition that systemd-repart has just added.
func (r Root) table(root string) (gpt.Table, error) {
	name := filepath.Join("/", root, "dev", r.Disk)
	f, err := os.Open(name)
	if err != nil {
		return gpt.Table{}, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return gpt.Table{}, err
	}
	t, err := gpt.Decode(f, size)
	if err != nil {
		return gpt.Table{}, fmt.Errorf("partition table of %s: %w", name, err)
	}
	return t, nil
}

// partitionName finds a partition in the table by where it starts, which
// sysfs gives in 512-byte sectors whatever the disk's own are.
func partitionName(dir string, t gpt.Table) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "start"))
	if err != nil {
		return "", err
	}
	start, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return "", fmt.Errorf("%s/start: %w", dir, err)
	}
	for _, p := range t.Parts {
		if p.Offset == start*512 {
			return p.Label, nil
		}
	}
	return "", nil
}

func commandLineHash(root string) (string, error) {
	data, err := os.ReadFile(filepath.Join(root, "proc/cmdline"))
	if err != nil {
		return "", err
	}
	for word := range strings.FieldsSeq(string(data)) {
		if hash, ok := strings.CutPrefix(word, "roothash="); ok {
			if !hashShape.MatchString(hash) {
				return "", fmt.Errorf("roothash= on the kernel command line is %q, want 64 hex digits", hash)
			}
			return hash, nil
		}
	}
	return "", errors.New("no roothash= on the kernel command line: this is not a sealed root")
}

// mountedDevice gives the MAJOR:MINOR of what is mounted at a place; the last
// mount of several wins, as it does in the kernel.
func mountedDevice(root, place string) (string, error) {
	data, err := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return "", err
	}
	dev := ""
	for line := range strings.SplitSeq(string(data), "\n") {
		// proc(5): id parent major:minor root mountpoint options ...
		f := strings.Fields(line)
		if len(f) > 5 && f[4] == place {
			dev = f[2]
		}
	}
	if dev == "" {
		return "", fmt.Errorf("nothing is mounted at %s", place)
	}
	return dev, nil
}
