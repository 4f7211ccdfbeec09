// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// adoptFiles and adoptDepth bound what Adopt walks.
const (
	adoptFiles = 5_000_000
	adoptDepth = 200
)

// Adopt makes a folder and all that is in it part of a project. A folder joins
// before it is listed, so what is created in it meanwhile is either listed or
// joins by itself. Links are not followed and no other file system is entered;
// what is neither file nor folder takes no room and stays as it is. Where the
// folder is of the project already, nothing is walked.
func Adopt(ctx context.Context, path string, id uint32) error {
	has, inherits, err := Project(path)
	if err != nil {
		return err
	}
	if has == id && inherits {
		return nil
	}
	fd, err := open(path)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return pathError("stat", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		unix.Close(fd)
		return pathError("set the project of", path, unix.ENOTDIR)
	}
	// The top alone joins last, or a walk that was cut off would not be done
	// again. What was made in it since it was listed is found by a second look.
	a := adoption{ctx: ctx, id: id, device: st.Dev, left: adoptFiles}
	if err := a.folder(fd, path, 0); err != nil {
		return err
	}
	if err := SetProject(path, id); err != nil {
		return err
	}
	if fd, err = open(path); err != nil {
		return err
	}
	a.again = true
	return a.folder(fd, path, 0)
}

type adoption struct {
	ctx    context.Context
	id     uint32
	device uint64
	left   int
	// again leaves out the folders that have joined.
	again bool
}

// folder takes over fd.
func (a *adoption) folder(fd int, path string, depth int) error {
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	if depth > adoptDepth {
		return fmt.Errorf("set the project of %s: more than %d folders deep", path, adoptDepth)
	}
	for {
		entries, err := dir.ReadDir(256)
		for _, e := range entries {
			if err := a.ctx.Err(); err != nil {
				return err
			}
			if a.left--; a.left < 0 {
				return fmt.Errorf("set the project of %s: more than %d files", path, adoptFiles)
			}
			if err := a.entry(fd, path, e, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || err == nil && len(entries) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (a *adoption) entry(dir int, path string, e os.DirEntry, depth int) error {
	if !e.IsDir() && !e.Type().IsRegular() {
		return nil
	}
	name := filepath.Join(path, e.Name())
	fd, err := unix.Openat(dir, e.Name(), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil // gone, or something else by now
	}
	if err != nil {
		return pathError("open", name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return pathError("stat", name, err)
	}
	kind := st.Mode & unix.S_IFMT
	if st.Dev != a.device || kind != unix.S_IFDIR && kind != unix.S_IFREG {
		unix.Close(fd)
		return nil
	}
	if x, err := attributes(fd); a.again && err == nil && x.project == a.id {
		return unix.Close(fd)
	}
	if err := set(fd, name, a.id, kind == unix.S_IFDIR); err != nil {
		unix.Close(fd)
		return err
	}
	if kind == unix.S_IFDIR {
		return a.folder(fd, name, depth+1)
	}
	return unix.Close(fd)
}
