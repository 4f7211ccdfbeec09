// SPDX-License-Identifier: Apache-2.0

// Package slottest makes a folder that looks to appliance/slot like the root
// of a running box: sysfs, mountinfo, command line and a disk with a GPT.
package slottest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/images/gpt"
)

// Hash is the root hash of a Box.
var Hash = strings.Repeat("ab", 32)

// DiskSize is the size of a Box's disk in bytes.
const DiskSize = 64 << 20

// Box makes such a folder: disk vda, 1 MiB partitions with the labels in
// order, the root on the one labelled rootLabel. The kernel knows where each
// begins and nothing of labels, as after systemd-repart.
func Box(t testing.TB, rootLabel string, labels ...string) string {
	t.Helper()
	root := t.TempDir()
	table := gpt.Table{DiskGUID: gpt.MustGUID("11111111-2222-3333-4444-555555555555")}
	rootPart := ""
	for i, label := range labels {
		p := gpt.Part{
			Label: label, Type: gpt.TypeESP, UUID: gpt.MustGUID(fmt.Sprintf("aaaaaaaa-0000-0000-0000-%012d", i+1)),
			Offset: int64(i+1) << 20, Size: 1 << 20,
		}
		table.Parts = append(table.Parts, p)
		name := fmt.Sprintf("vda%d", i+1)
		dir := "sys/devices/pci0/block/vda/" + name
		Put(t, root, dir+"/partition", fmt.Sprintln(i+1))
		Put(t, root, dir+"/start", fmt.Sprintln(p.Offset/512))
		Put(t, root, dir+"/size", fmt.Sprintln(p.Size/512))
		link(t, root, "sys/class/block/"+name, "../../devices/pci0/block/vda/"+name)
		if label == rootLabel {
			rootPart = name
		}
	}
	Put(t, root, "sys/devices/pci0/block/vda/queue/rotational", "0\n")
	link(t, root, "sys/class/block/vda", "../../devices/pci0/block/vda")
	Put(t, root, "sys/devices/virtual/block/dm-0/dm/name", "root\n")
	link(t, root, "sys/devices/virtual/block/dm-0/slaves/"+rootPart, "../../../../pci0/block/vda/"+rootPart)
	link(t, root, "sys/dev/block/254:0", "../../devices/virtual/block/dm-0")
	Put(t, root, "proc/cmdline", "root=/dev/mapper/root ro roothash="+Hash+" quiet\n")
	Put(t, root, "proc/self/mountinfo", "22 1 254:0 / / ro,relatime - squashfs /dev/mapper/root ro\n")
	disk(t, root, table)
	return root
}

// Put writes a file below root, folders and all.
func Put(t testing.TB, root, name, text string) {
	t.Helper()
	name = filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// record is slot.Path; that package's tests use this one.
const record = "var/lib/holdfast/generation.json"

// NoRecord removes the generation record, all copies of it.
func NoRecord(t testing.TB, root string) {
	t.Helper()
	for _, end := range []string{"", ".1", ".2"} {
		if err := os.Remove(filepath.Join(root, record+end)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// Record puts a text in the place of the generation record.
func Record(t testing.TB, root, text string) {
	t.Helper()
	NoRecord(t, root)
	Put(t, root, record, text)
}

func link(t testing.TB, root, name, target string) {
	t.Helper()
	name = filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func disk(t testing.TB, root string, table gpt.Table) {
	t.Helper()
	head, tail, err := gpt.Encode(table, DiskSize)
	if err != nil {
		t.Fatal(err)
	}
	Put(t, root, "dev/vda", "")
	f, err := os.OpenFile(filepath.Join(root, "dev/vda"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(DiskSize); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(tail, DiskSize-int64(len(tail))); err != nil {
		t.Fatal(err)
	}
}
