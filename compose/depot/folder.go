// SPDX-License-Identifier: Apache-2.0

package depot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// folder is a layout in a folder. Links in it must stay within it.
type folder struct {
	root *os.Root
	name string
	// stick is true on a removable disk: like a bundle it may come without a
	// timestamp, because a person has brought it.
	stick bool
}

func openFolder(dir, name string, stick bool) (Depot, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f := &folder{root: root, name: name}
	if stick {
		_, err := root.Stat(metaDir + "/timestamp.json")
		f.stick = errors.Is(err, fs.ErrNotExist)
	}
	return f, nil
}

// open opens a regular file without waiting for whatever else has its name.
func (f *folder) open(name string) (*os.File, int64, error) {
	file, err := f.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, missing(f.name, name)
	}
	if err != nil {
		return nil, 0, err
	}
	st, err := file.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: %s is no file", f.name, name)
	}
	if err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, st.Size(), nil
}

func (f *folder) Metadata(_ context.Context, name string, limit int64) ([]byte, error) {
	if err := checkMeta(name); err != nil {
		return nil, err
	}
	file, _, err := f.open(metaDir + "/" + name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readAll(file, name, limit)
}

func (f *folder) Blob(_ context.Context, digest string, offset, length int64) (io.ReadCloser, error) {
	if err := checkSpan(digest, offset, length); err != nil {
		return nil, err
	}
	file, size, err := f.open(blobPath(digest))
	if err != nil {
		return nil, err
	}
	if offset+length > size {
		file.Close()
		return nil, short(f.name, digest, size, offset+length)
	}
	return section{io.NewSectionReader(file, offset, length), file}, nil
}

// section is a part of a file, which is closed with it.
type section struct {
	*io.SectionReader
	io.Closer
}

// short is the refusal of a blob that has fewer bytes than it must have.
func short(place, digest string, have, want int64) error {
	return fmt.Errorf("%s has %d bytes of blob %s where at least %d are signed; it is not a whole copy of the release", place, have, digest, want)
}

func (f *folder) Offline() bool  { return f.stick }
func (f *folder) String() string { return f.name }
func (f *folder) Close() error   { return f.root.Close() }
