// SPDX-License-Identifier: Apache-2.0

package powercut

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Programs are the trees that programs of Debian are taken from, in order of
// search. They run through the tree's own loader, as in package qa/vm.
type Programs []string

// Run runs a program and gives what it printed.
func (p Programs) Run(ctx context.Context, name string, args ...string) (string, error) {
	for _, tree := range p {
		for _, dir := range []string{"usr/sbin", "usr/bin"} {
			path := filepath.Join(tree, dir, name)
			if _, err := os.Stat(path); err != nil {
				continue
			}
			// A program that is a script or a link out of the tree fails with
			// the loader's own words.
			cmd := exec.CommandContext(ctx, filepath.Join(tree, "usr/lib64/ld-linux-x86-64.so.2"),
				append([]string{"--argv0", name, "--library-path", filepath.Join(tree, "usr/lib/x86_64-linux-gnu"), path}, args...)...)
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Run(); err != nil {
				return out.String(), fmt.Errorf("%s: %w: %s", name, err, lastLines(out.String(), 5))
			}
			return out.String(), nil
		}
	}
	return "", fmt.Errorf("no tree has %s: %s", name, strings.Join(p, ", "))
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}

// loop attaches size bytes of a file from offset on to a loop device, all of
// it where size is 0. The device goes when the last user closes it.
func loop(path string, offset, size int64, readOnly bool) (*os.File, error) {
	flags := os.O_RDWR
	if readOnly {
		flags = os.O_RDONLY
	}
	back, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	defer back.Close()
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: loop devices need root", err)
	}
	defer ctl.Close()
	conf := unix.LoopConfig{Fd: uint32(back.Fd())}
	conf.Info.Offset, conf.Info.Sizelimit, conf.Info.Flags = uint64(offset), uint64(size), unix.LO_FLAGS_AUTOCLEAR
	if readOnly {
		conf.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	for range 64 { // another process may take the free one first
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("no free loop device: %w", err)
		}
		dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), flags, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &conf)
		if err == nil {
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("set up %s: %w", dev.Name(), err)
		}
	}
	return nil, errors.New("every loop device that was free was taken by another process")
}

// Mount mounts a part of a file; unmount it when done.
func Mount(path string, offset, size int64, dir, kind, data string, readOnly bool) (unmount func() error, err error) {
	dev, err := loop(path, offset, size, readOnly)
	if err != nil {
		return nil, err
	}
	defer dev.Close() // the mount holds it
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if readOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount(dev.Name(), dir, kind, flags, data); err != nil {
		return nil, fmt.Errorf("mount %s: %w", kind, err)
	}
	return func() error { return unix.Unmount(dir, 0) }, nil
}
