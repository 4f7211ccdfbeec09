// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// entry is one file, link or folder that a bake adds to the root.
type entry struct {
	// path without leading slash.
	path string
	mode fs.FileMode
	// link is a symbolic link's target.
	link string
	data []byte
}

// overlay lists what is added to the root, sorted by path. trust is the
// release's certificate, trustRoot the root of TUF's roles (nil for none),
// engine the name of the container engine.
func overlay(o OS, trust, trustRoot []byte, engine string) ([]entry, error) {
	byPath := map[string]entry{}
	add := func(e entry) { byPath[e.path] = e }
	for _, d := range o.Dirs {
		add(entry{path: strings.Trim(d, "/"), mode: fs.ModeDir | 0o755})
	}
	err := fs.WalkDir(o.Files, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(o.Files, p)
		if err != nil {
			return err
		}
		mode, ok := o.Modes[p]
		if !ok {
			mode = 0o644
		}
		add(entry{path: p, mode: mode, data: b})
		return nil
	})
	if err != nil {
		return nil, err
	}
	for p, target := range o.Links {
		add(entry{path: strings.Trim(p, "/"), mode: fs.ModeSymlink | 0o777, link: target})
	}
	add(entry{path: "usr/bin/holdfast", mode: 0o755, data: o.Supervisor})
	add(entry{path: "usr/lib/holdfast/trust/release.pem", mode: 0o644, data: trust})
	if trustRoot != nil {
		add(entry{path: "usr/lib/holdfast/trust/root.json", mode: 0o644, data: trustRoot})
	}
	if engine != "" {
		add(entry{path: "usr/lib/holdfast/engine", mode: 0o644, data: []byte(engine + "\n")})
	}
	list := make([]entry, 0, len(byPath))
	for _, e := range byPath {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.path, b.path) })
	return list, nil
}

// overlayHash identifies what overlay adds.
func overlayHash(list []entry) string {
	h := sha256.New()
	for _, e := range list {
		fmt.Fprintf(h, "%q %o %q %d\n", e.path, e.mode, e.link, len(e.data))
		h.Write(e.data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// merge streams the root tar with the overlay on it: removed paths are left
// out, replaced ones too, the package database moves to where the sealed root
// keeps it, and no file is newer than the epoch.
func merge(dst io.Writer, src io.Reader, add []entry, o OS, epoch int64) error {
	at := time.Unix(epoch, 0).UTC()
	replaced := make(map[string]bool, len(add))
	for _, e := range add {
		replaced[e.path] = true
	}
	dirs := map[string]bool{".": true, "": true}
	tr, tw := tar.NewReader(src), tar.NewWriter(dst)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the root tar: %w", err)
		}
		name := moved(path.Clean(strings.TrimPrefix(h.Name, "./")), o.Move)
		if name == "." || removed(name, o.Remove) || replaced[name] && h.Typeflag != tar.TypeDir {
			continue
		}
		if err := addParents(tw, name, dirs, at); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeDir {
			dirs[name] = true
		}
		h.Name = name
		if h.Typeflag == tar.TypeLink {
			h.Linkname = moved(path.Clean(strings.TrimPrefix(h.Linkname, "./")), o.Move)
			if removed(h.Linkname, o.Remove) {
				return fmt.Errorf("/%s is a hard link to /%s, which is removed", name, h.Linkname)
			}
		}
		clean(h, at)
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("/%s: %w", name, err)
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return fmt.Errorf("/%s: %w", name, err)
		}
	}
	for _, e := range add {
		if e.mode.IsDir() && dirs[e.path] {
			continue
		}
		if err := addParents(tw, e.path, dirs, at); err != nil {
			return err
		}
		if err := addEntry(tw, e, at); err != nil {
			return err
		}
		if e.mode.IsDir() {
			dirs[e.path] = true
		}
	}
	return tw.Close()
}

// clean keeps of a header what a read-only root needs.
func clean(h *tar.Header, at time.Time) {
	if h.ModTime.After(at) {
		h.ModTime = at
	}
	h.ModTime = h.ModTime.Truncate(time.Second)
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	h.Uname, h.Gname = "", ""
	h.Format = tar.FormatPAX
}

func addParents(tw *tar.Writer, p string, dirs map[string]bool, at time.Time) error {
	d := path.Dir(p)
	if dirs[d] {
		return nil
	}
	if err := addParents(tw, d, dirs, at); err != nil {
		return err
	}
	dirs[d] = true
	return addEntry(tw, entry{path: d, mode: fs.ModeDir | 0o755}, at)
}

func addEntry(tw *tar.Writer, e entry, at time.Time) error {
	h := &tar.Header{Name: e.path, Mode: int64(e.mode.Perm()), ModTime: at, Format: tar.FormatPAX}
	switch {
	case e.mode.IsDir():
		h.Typeflag = tar.TypeDir
	case e.mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
	default:
		h.Typeflag, h.Size = tar.TypeReg, int64(len(e.data))
	}
	if err := tw.WriteHeader(h); err != nil {
		return fmt.Errorf("/%s: %w", e.path, err)
	}
	_, err := tw.Write(e.data)
	return err
}

// moved is where name lies in the image.
func moved(name string, move map[string]string) string {
	for from, to := range move {
		if rest, ok := strings.CutPrefix(name+"/", from+"/"); ok {
			return path.Join(to, rest)
		}
	}
	return name
}

// removed is true where name or one of its parents matches a pattern of
// path.Match; patterns have no leading slash.
func removed(name string, patterns []string) bool {
	for _, p := range patterns {
		p = strings.TrimPrefix(p, "/")
		for n := name; n != "." && n != ""; n = path.Dir(n) {
			if ok, _ := path.Match(p, n); ok {
				return true
			}
		}
	}
	return false
}
