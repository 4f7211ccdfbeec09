// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"encoding/binary"
	"strings"
	"testing"

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

func TestPlanData(t *testing.T) {
	text := func(m Mounts) string {
		var lines []string
		for _, s := range PlanData(m) {
			lines = append(lines, s.String())
		}
		return strings.Join(lines, "\n")
	}
	first := `mkdir 0755 /var/lib/holdfast/data
mount -t xfs -o prjquota,nodev,nosuid,nouuid /dev/mapper/holdfast-data--1 /var/lib/holdfast/data
mkdir 0701 /var/lib/holdfast/data/volumes
mkdir 0700 /var/lib/holdfast/data/secrets
ln --symbolic --force --no-dereference /var/lib/docker/volumes.db /var/lib/holdfast/data/volumes/metadata.db
mkdir 0711 /var/lib/holdfast/engines
mkdir 0711 /var/lib/holdfast/engines/e1
mkdir 0710 /var/lib/holdfast/engines/e1/docker
mkdir 0710 /var/lib/docker
mount --make-private --bind /var/lib/holdfast/engines/e1/docker /var/lib/docker
mkdir 0711 /var/lib/holdfast/engines/e1/containerd
mkdir 0711 /var/lib/containerd
mount --make-private --bind /var/lib/holdfast/engines/e1/containerd /var/lib/containerd
mkdir 0701 /var/lib/docker/volumes
mount --bind /var/lib/holdfast/data/volumes /var/lib/docker/volumes`
	if got := text(Mounts{Data: "/dev/mapper/holdfast-data--1", Engine: "e1"}); got != first {
		t.Errorf("first:\n%s\nwant\n%s", got, first)
	}
	again := text(Mounts{Data: "/dev/mapper/holdfast-data--1", Mounted: map[string]bool{dataPlace: true, volumesPlace: true, dockerPlace: true, containerd: true}})
	if strings.Contains(again, "mount") {
		t.Errorf("mounts over a mount:\n%s", again)
	}
	grown := text(Mounts{Data: "/dev/mapper/holdfast-data--1", Grown: []string{"/var", dataPlace}})
	if mount, grow := strings.Index(grown, "mount -t xfs"), strings.Index(grown, "xfs_growfs -d "+dataPlace); grow < mount {
		t.Errorf("grows before it mounts:\n%s", grown)
	}
}

func TestFactory(t *testing.T) {
	root, run := slottest.Box(t, "root-a", "esp", "root-a", "root-b", "factory", "state"), &recorder{}
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
