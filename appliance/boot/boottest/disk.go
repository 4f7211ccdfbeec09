// SPDX-License-Identifier: Apache-2.0

// Package boottest is a model of what decides about a boot: the files on the
// EFI system partition, and the choice that systemd-boot 257 makes among them.
// The power can fail before and after every change of a file.
package boottest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/images/esp"
)

// ErrCut is what every call gives once the power has failed.
var ErrCut = errors.New("the power failed")

// Disk is the files of an ESP (boot.FS). The zero value is empty. Each change
// is whole or was not made; images/esp is tested apart to keep to that.
type Disk struct {
	// Files by path, as they were written; case does not count.
	Files map[string][]byte
	// Room bounds the sum of their bytes, 0 for none.
	Room int64
	// Cut stops before (even) or after (odd) the change number Cut/2, counted
	// from 0; it is off while Armed is false.
	Cut   int
	Armed bool
	// Changes made so far, as text.
	Changes []string

	dead bool
}

// Clone is a copy whose power has not failed.
func (d *Disk) Clone() *Disk {
	return &Disk{Files: maps.Clone(d.Files), Room: d.Room}
}

// Power brings it back after a cut.
func (d *Disk) Power() { d.dead, d.Armed, d.Changes = false, false, nil }

// Put0 puts a file there without any of this.
func (d *Disk) Put0(name string, content []byte) {
	if d.Files == nil {
		d.Files = map[string][]byte{}
	}
	if key, ok := d.key(name); ok {
		name = key
	}
	d.Files[name] = content
}

func (d *Disk) key(name string) (string, bool) {
	for k := range d.Files {
		if strings.EqualFold(k, name) {
			return k, true
		}
	}
	return "", false
}

// change makes a change unless the power fails before it.
func (d *Disk) change(text string, do func() error) error {
	if d.dead {
		return ErrCut
	}
	n := len(d.Changes)
	if d.Armed && d.Cut == 2*n {
		d.dead = true
		return ErrCut
	}
	if err := do(); err != nil {
		return err
	}
	d.Changes = append(d.Changes, text)
	if d.Armed && d.Cut == 2*n+1 {
		d.dead = true
		return ErrCut
	}
	return nil
}

// List implements boot.FS.
func (d *Disk) List(dir string) ([]esp.Info, error) {
	if d.dead {
		return nil, ErrCut
	}
	var out []esp.Info
	for _, name := range slices.Sorted(maps.Keys(d.Files)) {
		if strings.EqualFold(path.Dir(name), dir) {
			out = append(out, esp.Info{Name: path.Base(name), Size: int64(len(d.Files[name]))})
		}
	}
	return out, nil
}

// Open implements boot.FS.
func (d *Disk) Open(name string) (io.ReaderAt, int64, error) {
	if d.dead {
		return nil, 0, ErrCut
	}
	key, ok := d.key(name)
	if !ok {
		return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return bytes.NewReader(d.Files[key]), int64(len(d.Files[key])), nil
}

// Put implements boot.FS.
func (d *Disk) Put(name string, content io.Reader, limit int64) error {
	b, err := io.ReadAll(io.LimitReader(content, limit+1))
	if err != nil {
		return err
	}
	if int64(len(b)) > limit {
		return fmt.Errorf("more than %d bytes", limit)
	}
	if free, _ := d.Free(); d.Room > 0 && int64(len(b)) > free {
		return errors.New("no room left on the ESP")
	}
	return d.change("put "+name, func() error { d.Put0(name, b); return nil })
}

// Rename implements boot.FS.
func (d *Disk) Rename(from, to string) error {
	return d.change("rename "+from+" "+path.Base(to), func() error {
		key, ok := d.key(from)
		if !ok {
			return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
		}
		if _, taken := d.key(to); taken {
			return &fs.PathError{Op: "rename", Path: to, Err: fs.ErrExist}
		}
		d.Files[to] = d.Files[key]
		delete(d.Files, key)
		return nil
	})
}

// Remove implements boot.FS.
func (d *Disk) Remove(name string) error {
	key, ok := d.key(name)
	if !ok {
		if d.dead {
			return ErrCut
		}
		return nil
	}
	return d.change("remove "+name, func() error { delete(d.Files, key); return nil })
}

// Free implements boot.FS.
func (d *Disk) Free() (int64, error) {
	if d.dead {
		return 0, ErrCut
	}
	n := int64(0)
	for _, b := range d.Files {
		n += int64(len(b))
	}
	return max(d.Room-n, 0), nil
}

// Close implements boot.FS.
func (d *Disk) Close() error { return nil }
