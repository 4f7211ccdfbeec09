// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/appliance/slot/slottest"
)

// recorder runs nothing and remembers everything.
type recorder struct {
	ran  []string
	fail string
}

func (r *recorder) Run(_ context.Context, argv ...string) ([]byte, error) {
	line := strings.Join(argv, " ")
	r.ran = append(r.ran, line)
	if r.fail != "" && strings.HasPrefix(line, r.fail) {
		return nil, &CommandError{Argv: argv, Code: 32, Text: "no such\n superblock"}
	}
	return nil, nil
}

// superblock is the head of an XFS of n bytes.
func superblock(n int64) string {
	head := make([]byte, 512)
	copy(head, "XFSB")
	binary.BigEndian.PutUint32(head[4:], 4096)
	binary.BigEndian.PutUint64(head[8:], uint64(n/4096))
	return string(head)
}

// dataBox is a root with both volumes, each as large as its file system.
func dataBox(t *testing.T) string {
	t.Helper()
	root := slottest.Box(t, "root-a", "esp", "root-a", "root-b", "factory", "state")
	for _, name := range []string{stateName, firstData} {
		volume(t, root, name, 1*mib, 1*mib)
	}
	return root
}

func volume(t *testing.T, root, name string, bytes, xfs int64) {
	t.Helper()
	slottest.Put(t, root, device(name), superblock(xfs))
	if err := os.Truncate(filepath.Join(root, device(name)), bytes); err != nil {
		t.Fatal(err)
	}
}

func TestPlanData(t *testing.T) {
	text := func(m Mounts) string {
		var lines []string
		for _, s := range PlanData(m) {
			lines = append(lines, s.String())
		}
		return strings.Join(lines, "\n")
	}
	first := `mkdir 0755 /var/lib/holdfast/data
mount -t xfs -o prjquota,nodev,nosuid /dev/mapper/holdfast-data--1 /var/lib/holdfast/data
mkdir 0701 /var/lib/holdfast/data/volumes
mkdir 0700 /var/lib/holdfast/data/secrets
mkdir 0710 /var/lib/docker
mkdir 0701 /var/lib/docker/volumes
mount --bind /var/lib/holdfast/data/volumes /var/lib/docker/volumes`
	if got := text(Mounts{Data: firstData}); got != first {
		t.Errorf("first:\n%s\nwant\n%s", got, first)
	}
	again := text(Mounts{Data: firstData, Mounted: map[string]bool{dataPlace: true, volumesPlace: true}})
	if strings.Contains(again, "mount") {
		t.Errorf("mounts over a mount:\n%s", again)
	}
	grown := text(Mounts{Data: firstData, Grown: []string{"/var", dataPlace}})
	if mount, grow := strings.Index(grown, "mount -t xfs"), strings.Index(grown, "xfs_growfs -d "+dataPlace); grow < mount {
		t.Errorf("grows before it mounts:\n%s", grown)
	}
}

func TestDataFirstBoot(t *testing.T) {
	root, run := dataBox(t), &recorder{}
	env := Env{Root: root, Run: run}
	if err := Data(context.Background(), env); err != nil {
		t.Fatal(err)
	}
	rec, err := slot.Load(root)
	if err != nil || rec.Committed.Number != 1 || rec.Committed.Slot != "A" || rec.Committed.RootHash != slottest.Hash {
		t.Errorf("record %+v, %v", rec, err)
	}
	if len(run.ran) != 2 {
		t.Errorf("ran %v", run.ran)
	}
	info, err := os.Stat(filepath.Join(root, dataPlace, "secrets"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("secrets: %v, %v", info, err)
	}
}

func TestDataGrows(t *testing.T) {
	root, run := dataBox(t), &recorder{}
	volume(t, root, firstData, 2*mib, 1*mib)
	if err := Data(context.Background(), Env{Root: root, Run: run}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(run.ran, "\n"); !strings.Contains(got, "xfs_growfs -d "+dataPlace) || strings.Contains(got, "xfs_growfs -d /var\n") {
		t.Errorf("ran\n%s", got)
	}
}

func TestDataRefuses(t *testing.T) {
	for _, c := range []struct {
		name, want string
		change     func(root string)
	}{
		{"foreign root", "not the committed generation", func(root string) {
			slottest.Put(t, root, "proc/cmdline", "roothash="+strings.Repeat("cd", 32))
		}},
		{"damaged record", "not a generation record", func(root string) { slottest.Put(t, root, slot.Path, "{") }},
		{"no XFS", "no XFS on it", func(root string) { slottest.Put(t, root, device(firstData), strings.Repeat("\x00", 512)) }},
		{"lost volume", "is missing", func(root string) {
			if err := os.Remove(filepath.Join(root, device(firstData))); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		root := dataBox(t)
		if err := Data(context.Background(), Env{Root: root, Run: &recorder{}}); err != nil {
			t.Fatal(err)
		}
		c.change(root)
		run := &recorder{}
		if err := Data(context.Background(), Env{Root: root, Run: run}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if len(run.ran) > 0 {
			t.Errorf("%s: ran %v", c.name, run.ran)
		}
	}
}

func TestFactory(t *testing.T) {
	root, run := dataBox(t), &recorder{}
	if err := Factory(context.Background(), Env{Root: root, Run: run}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(run.ran, "\n"); got != "mount -t squashfs -o ro,nodev,nosuid,noexec /dev/vda4 /run/holdfast/factory" {
		t.Errorf("ran %s", got)
	}
	err := Factory(context.Background(), Env{Root: root, Run: &recorder{fail: "mount"}})
	if err == nil || !strings.Contains(err.Error(), "disk may be damaged") || strings.Contains(err.Error(), "\n") {
		t.Errorf("damaged factory: %v", err)
	}
}

func FuzzXFSSize(f *testing.F) {
	f.Add([]byte(superblock(1 * gib)))
	f.Fuzz(func(t *testing.T, head []byte) {
		if total, block, err := xfsSize(head); err == nil && (total <= 0 || block < 512) {
			t.Errorf("%x gave %d, %d", head, total, block)
		}
	})
}
