// SPDX-License-Identifier: Apache-2.0

package firstboot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/holdfast/holdfast/appliance/slot"
)

const (
	dataPlace    = "/var/lib/holdfast/data"
	dockerPlace  = "/var/lib/docker"
	volumesPlace = dockerPlace + "/volumes"
	containerd   = "/var/lib/containerd"
	factoryPlace = "/run/holdfast/factory"

	// Engines holds one store for each engine, by its id.
	Engines = "/var/lib/holdfast/engines"
	// engineFile is baked: the engine's id.
	engineFile = "/usr/lib/holdfast/engine"
	// volumesNotes is what the engine keeps open below its volumes: their
	// labels, by name. volumesKept is where it is led to, in its own store:
	// else the data could not be unmounted while the engine runs.
	volumesNotes = dataPlace + "/volumes/metadata.db"
	volumesKept  = dockerPlace + "/volumes.db"

	// noEngine is the id where the root says none.
	noEngine  = "default"
	maxEngine = 4 << 10
)

// Engine is the id of the root's container engine, which names its store:
// an older engine never opens what a newer one wrote.
func Engine(root string) (string, error) { return engine(Env{Root: root}) }

func engine(env Env) (string, error) {
	f, err := os.Open(env.path(engineFile))
	if errors.Is(err, fs.ErrNotExist) {
		return noEngine, nil
	} else if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxEngine))
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(data))
	if !engineShape.MatchString(id) {
		return "", fmt.Errorf("%s says %q, which is no name of a store", engineFile, id)
	}
	return id, nil
}

// engineShape is that of a record's engine (slot.Generation.Engine).
var engineShape = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$`)

// Mounts is what a plan of mounts starts from.
type Mounts struct {
	// Data is the device of the data of the generation that runs.
	Data string
	// Linked is true where the engine's notes of volumes are led away already.
	Linked bool
	// Engine is the id of the container engine of the root that runs.
	Engine string
	// Mounted are the mount points there are.
	Mounted map[string]bool
	// Grown are mount points whose volume is larger than its file system;
	// for data, which may not be mounted yet, by the size on the volume.
	Grown []string
}

// PlanData says how the data of a generation gets to its place. It is pure.
func PlanData(m Mounts) []Step {
	steps := []Step{{Folder: dataPlace, Mode: 0o755}}
	if !m.Mounted[dataPlace] {
		// nouuid: a snapshot has the id of its origin, and the kernel may
		// still remember that one.
		steps = append(steps, Step{Argv: []string{"mount", "-t", "xfs", "-o", "prjquota,nodev,nosuid,nouuid", m.Data, dataPlace}})
	}
	// XFS grows only while it is mounted, and before anything writes there. A
	// cut during it is undone or redone by the file system's own log.
	for _, place := range m.Grown {
		steps = append(steps, Step{Text: "growing the file system at " + place, Argv: []string{"xfs_growfs", "-d", place}})
	}
	steps = append(steps,
		Step{Folder: dataPlace + "/volumes", Mode: 0o701},
		Step{Folder: dataPlace + "/secrets", Mode: 0o700})
	if !m.Linked {
		// The data's notes, where it has any of before, are made anew: the
		// engine finds volumes by their folders.
		steps = append(steps, Step{Argv: []string{"ln", "--symbolic", "--force", "--no-dereference", volumesKept, volumesNotes}})
	}
	store := Engines + "/" + m.Engine
	steps = append(steps, Step{Folder: Engines, Mode: 0o711}, Step{Folder: store, Mode: 0o711})
	for _, e := range []struct {
		dir, place string
		mode       os.FileMode
	}{{store + "/docker", dockerPlace, 0o710}, {store + "/containerd", containerd, 0o711}} {
		steps = append(steps, Step{Folder: e.dir, Mode: e.mode}, Step{Folder: e.place, Mode: e.mode})
		if !m.Mounted[e.place] {
			// Private: what the engine mounts below is not to appear in the
			// store's own place as well.
			steps = append(steps, Step{Argv: []string{"mount", "--make-private", "--bind", e.dir, e.place}})
		}
	}
	steps = append(steps, Step{Folder: volumesPlace, Mode: 0o701})
	if !m.Mounted[volumesPlace] {
		// Bind, not a link: Docker resolves links and would then record
		// paths that name the generation's place.
		steps = append(steps, Step{Argv: []string{"mount", "--bind", dataPlace + "/volumes", volumesPlace}})
	}
	return steps
}

// Factory mounts the factory partition of the root's own disk, read-only.
func Factory(ctx context.Context, env Env) error {
	root, err := slot.Running(env.Root)
	if err != nil {
		return err
	}
	part, err := root.Sibling(env.Root, "factory")
	if err != nil {
		return err
	}
	if part == "" {
		return fmt.Errorf("disk %s has no factory partition; its releases have to come from elsewhere", root.Disk)
	}
	at, err := mounted(env)
	if err != nil {
		return err
	}
	steps := []Step{{Folder: factoryPlace, Mode: 0o755}}
	if !at[factoryPlace] {
		steps = append(steps, Step{Argv: []string{"mount", "-t", "squashfs", "-o", "ro,nodev,nosuid,noexec", "/dev/" + part, factoryPlace}})
	}
	if err := env.act(ctx, steps); err != nil {
		return fmt.Errorf("the factory partition can't be read, the disk may be damaged: %w", err)
	}
	return nil
}

func mounted(env Env) (map[string]bool, error) {
	data, err := os.ReadFile(env.path("proc/self/mountinfo"))
	if err != nil {
		return nil, err
	}
	at := map[string]bool{}
	for line := range strings.SplitSeq(string(data), "\n") {
		if f := strings.Fields(line); len(f) > 4 {
			at[f[4]] = true
		}
	}
	return at, nil
}

// shorter says whether the XFS on a volume is smaller than the volume.
func shorter(env Env, dev string) (bool, error) {
	f, err := os.Open(env.path(dev))
	if err != nil {
		return false, fmt.Errorf("volume %s is missing, state is damaged: %w", dev, err)
	}
	defer f.Close()
	head := make([]byte, 16)
	if _, err := io.ReadFull(f, head); err != nil {
		return false, fmt.Errorf("read %s: %w", dev, err)
	}
	fsBytes, block, err := xfsSize(head)
	if err != nil {
		return false, fmt.Errorf("volume %s: %w", dev, err)
	}
	volume, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	return volume-fsBytes >= block, nil
}

// xfsSize reads the size of a file system in bytes, and of its blocks, from
// the first bytes of its superblock: magic, block size, data blocks, big
// endian (XFS Algorithms & Data Structures, "Superblocks").
func xfsSize(head []byte) (total, block int64, err error) {
	if len(head) < 16 || string(head[:4]) != "XFSB" {
		return 0, 0, fmt.Errorf("no XFS on it, state is damaged; run xfs_repair from a rescue system")
	}
	size, blocks := binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint64(head[8:])
	if size < 512 || size > 64<<10 || size&(size-1) != 0 || blocks == 0 || blocks > 1<<46 {
		return 0, 0, fmt.Errorf("XFS superblock says %d blocks of %d bytes, state is damaged; run xfs_repair from a rescue system", blocks, size)
	}
	return int64(blocks) * int64(size), int64(size), nil
}
