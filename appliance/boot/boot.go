// SPDX-License-Identifier: Apache-2.0

// Package boot keeps the kernel images (UKIs) and systemd-boot on the EFI
// system partition: which image boots next, how often it may try, and which
// one is kept for a rollback. It writes by itself, to a partition that nobody
// has mounted (images/esp), so that every change of a name is one write of one
// sector: after a cut there is the old name or the new one. It touches no EFI
// variable, boots nothing, and leaves files alone whose names are not its own.
package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/holdfast/holdfast/appliance/slot"
	"github.com/holdfast/holdfast/images/esp"
)

// Places of images on the ESP.
const (
	// Linux is where systemd-boot looks for images.
	Linux = "linux"
	// Kept is where no firmware looks.
	Kept = "kept"
)

// folders of the places.
var folders = map[string]string{Linux: "EFI/Linux", Kept: "EFI/holdfast"}

// loaders are the two copies of systemd-boot, in the order they are written:
// firmware that remembers an entry starts the first, all other the second.
var loaders = []string{"EFI/systemd/systemd-bootx64.efi", "EFI/BOOT/BOOTX64.EFI"}

// lockFile keeps processes of the box from having the ESP at the same time.
const lockFile = "run/holdfast/esp.lock"

// FS is the file system of the ESP. Paths are relative, with slashes; case
// does not count. What changes something is on disk when it returns.
type FS interface {
	// List gives the files of a folder, none where there is no such folder.
	List(dir string) ([]esp.Info, error)
	// Open reads a file of size bytes; fs.ErrNotExist where there is none.
	Open(name string) (r io.ReaderAt, size int64, err error)
	// Put writes a file of at most limit bytes, folders too. It appears under
	// its name, or takes the place of the one there, when it is whole.
	Put(name string, content io.Reader, limit int64) error
	// Rename gives a file another name in the same folder, in one write; a
	// file that has that name already is an error.
	Rename(from, to string) error
	// Remove removes a file; one that is not there is no error.
	Remove(name string) error
	// Free room in bytes.
	Free() (int64, error)
	Close() error
}

// Env is where the box is.
type Env struct {
	// Root goes before every path; "" on a box.
	Root string
}

// ESP is the open partition.
type ESP struct {
	fs     FS
	unlock func()
}

// On is the ESP on a file system that is open already.
func On(f FS) *ESP { return &ESP{fs: f, unlock: func() {}} }

// Open opens the ESP of the disk that the root is on, and waits while another
// process of the box has it. It refuses one that is mounted.
func Open(ctx context.Context, env Env) (*ESP, error) {
	root, err := slot.Running(env.Root)
	if err != nil {
		return nil, err
	}
	part, err := root.Sibling(env.Root, "esp")
	if err != nil {
		return nil, err
	}
	if part == "" {
		return nil, fmt.Errorf("disk %s has no partition labelled esp; nothing can be changed about what boots", root.Disk)
	}
	unlock, err := lock(ctx, filepath.Join("/", env.Root, lockFile))
	if err != nil {
		return nil, err
	}
	dev := filepath.Join("/", env.Root, "dev", part)
	// O_EXCL on a block device: the kernel keeps others from mounting it, and
	// refuses while it is mounted.
	f, err := os.OpenFile(dev, os.O_RDWR|syscall.O_EXCL|syscall.O_CLOEXEC, 0)
	if err != nil {
		unlock()
		if errors.Is(err, syscall.EBUSY) {
			err = fmt.Errorf("%s (esp) is mounted or in use; unmount it: umount %s", dev, dev)
		}
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		unlock()
		return nil, err
	}
	v, err := esp.Edit(f, size)
	if err != nil {
		f.Close()
		unlock()
		return nil, fmt.Errorf("%s: %w", dev, err)
	}
	return &ESP{fs: v, unlock: func() { f.Close(); unlock() }}, nil
}

// lock waits for the lock until ctx ends.
func lock(ctx context.Context, name string) (func(), error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() {
		for {
			err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			done <- err
			return
		}
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		go func() { <-done; f.Close() }()
		return nil, fmt.Errorf("the ESP is in use by another process of holdfast: %w", context.Cause(ctx))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return func() { f.Close() }, nil
}

// Close lets the ESP go.
func (e *ESP) Close() error {
	err := e.fs.Close()
	e.unlock()
	return err
}

// Free gives the room left in bytes.
func (e *ESP) Free() (int64, error) { return e.fs.Free() }

// exists says whether a file is there.
func (e *ESP) exists(name string) (bool, error) {
	_, _, err := e.fs.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
