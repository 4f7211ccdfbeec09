// SPDX-License-Identifier: Apache-2.0

package marketplace

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

const (
	// maxEntries and maxPath bound a tree: a box has some 8,000 names.
	maxEntries = 2 << 20
	maxPath    = 4096
	// maxKept is the largest file whose content is kept, keptTotal the most in
	// all, in bytes.
	maxKept   = 32 << 20
	keptTotal = 128 << 20
	// maxTotal bounds what is looked through in bytes.
	maxTotal = 256 << 30
	// maxLinks is how many symbolic links one path may lead through, as in Linux.
	maxLinks = 40
)

// Entry is one name of a tree.
type Entry struct {
	// Path has no leading slash.
	Path string
	// Type is the type of tar: '0' file, '5' folder, '2' symbolic link, ...
	Type byte
	// Mode are permissions and the set-id and sticky bits, as in stat(2).
	Mode     int64
	UID, GID int
	Size     int64
	// Link is where a symbolic link points.
	Link string
	// Capability says that the file gives its process capabilities.
	Capability bool
}

func (e *Entry) file() bool { return e.Type == tar.TypeReg }

// Tree is what was seen of a file system.
type Tree struct {
	entries map[string]*Entry
	paths   []string // sorted
	content map[string][]byte
	secrets []secret
	// metadata are files that name the metadata address, and whether they
	// know of session tokens.
	metadata []metadataUser
	layers   int
	// total are bytes of files, those in layers included.
	total int64
	// buffer is the scanner's, for one file after the other.
	buffer []byte
}

// ReadRoot reads the tar stream of a root file system.
func ReadRoot(r io.Reader) (*Tree, error) { return read(r, false) }

// ReadFactory reads the tar stream of the factory file system: an OCI layout,
// of which the layers are opened too.
func ReadFactory(r io.Reader) (*Tree, error) { return read(r, true) }

func read(r io.Reader, layers bool) (*Tree, error) {
	t := &Tree{entries: map[string]*Entry{}, content: map[string][]byte{}}
	if err := t.add(tar.NewReader(r), layers); err != nil {
		return nil, fmt.Errorf("reading the file system: %w", err)
	}
	t.folders()
	for p := range t.entries {
		t.paths = append(t.paths, p)
	}
	slices.Sort(t.paths)
	t.buffer = nil
	return t, nil
}

func (t *Tree) add(tr *tar.Reader, layers bool) error {
	var kept int64
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		p := path.Clean("/" + h.Name)[1:]
		if p == "" {
			continue
		}
		if len(p) > maxPath {
			return fmt.Errorf("a path has %d bytes", len(p))
		}
		if len(t.entries) >= maxEntries {
			return fmt.Errorf("more than %d names", maxEntries)
		}
		if h.Typeflag == tar.TypeGNUSparse {
			return fmt.Errorf("%s is sparse", h.Name)
		}
		if h.Typeflag == tar.TypeLink {
			t.hardLink(p, path.Clean("/" + h.Linkname)[1:])
			continue
		}
		_, capable := h.PAXRecords["SCHILY.xattr.security.capability"]
		e := &Entry{Path: p, Type: h.Typeflag, Mode: h.Mode & 0o7777, UID: h.Uid, GID: h.Gid, Size: h.Size, Link: h.Linkname, Capability: capable}
		t.entries[p] = e
		if !e.file() {
			continue
		}
		if err := t.count(h); err != nil {
			return err
		}
		s := scanner{tree: t, path: p}
		if layers && strings.HasPrefix(p, "blobs/sha256/") {
			if err := t.layer(p, tr); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
			continue
		}
		if !keep(p) || h.Size > maxKept {
			if err := s.scan(tr); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
			continue
		}
		if kept += h.Size; kept > keptTotal {
			return fmt.Errorf("more than %d MiB of configuration", keptTotal>>20)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		t.content[p] = b
		s.see(b)
	}
}

// count adds a file to the total. A sparse one is refused: a few bytes of it
// stand for any length, and nothing that reads a squashfs makes one.
func (t *Tree) count(h *tar.Header) error {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return fmt.Errorf("%s is sparse", h.Name)
		}
	}
	if t.total += h.Size; h.Size < 0 || t.total > maxTotal || t.total < 0 {
		return fmt.Errorf("more than %d GiB to look through", int64(maxTotal)>>30)
	}
	return nil
}

// folders adds those that the stream leaves out.
func (t *Tree) folders() {
	missing := map[string]bool{}
	for p := range t.entries {
		for dir := path.Dir(p); dir != "." && t.entries[dir] == nil && !missing[dir]; dir = path.Dir(dir) {
			missing[dir] = true
		}
	}
	for dir := range missing {
		t.entries[dir] = &Entry{Path: dir, Type: tar.TypeDir, Mode: 0o755}
	}
}

// hardLink gives a second name to what the stream had before.
func (t *Tree) hardLink(p, to string) {
	old := t.entries[to]
	if old == nil {
		return
	}
	e := *old
	e.Path = p
	t.entries[p] = &e
	if b, ok := t.content[to]; ok {
		t.content[p] = b
	}
}

// keep tells which files the checks read as a whole.
func keep(p string) bool {
	for _, dir := range []string{"etc/", "usr/etc/", "usr/lib/systemd/", "lib/systemd/", "usr/local/lib/systemd/", "var/lib/dbus/"} {
		if strings.HasPrefix(p, dir) {
			return true
		}
	}
	return p == "usr/lib/os-release" || strings.HasSuffix(p, "/dpkg/status")
}

// resolve follows the symbolic links of a path, the last one too, and gives
// the path inside the tree; what leads nowhere is "".
func (t *Tree) resolve(p string) string {
	left := strings.Split(strings.Trim(p, "/"), "/")
	at := ""
	for links := 0; len(left) > 0; {
		name := left[0]
		left = left[1:]
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			at = strings.TrimPrefix(path.Dir("/"+at), "/")
			continue
		}
		next := path.Join(at, name)
		e := t.entries[next]
		if e == nil {
			return ""
		}
		if e.Type != tar.TypeSymlink {
			at = next
			continue
		}
		if links++; links > maxLinks || len(e.Link) > maxPath {
			return ""
		}
		if strings.HasPrefix(e.Link, "/") {
			at = ""
		}
		left = append(strings.Split(strings.Trim(e.Link, "/"), "/"), left...)
	}
	return at
}

// read is the content of a kept file, through links.
func (t *Tree) read(p string) ([]byte, bool) {
	b, ok := t.content[t.resolve(p)]
	return b, ok
}

// stat is the entry of a path itself, nil when there is none.
func (t *Tree) stat(p string) *Entry { return t.entries[p] }

// match lists the entries below and including a pattern of path.Match, or all
// for which want says so, in order.
func (t *Tree) match(want func(e *Entry) bool) []*Entry {
	var out []*Entry
	for _, p := range t.paths {
		if e := t.entries[p]; want(e) {
			out = append(out, e)
		}
	}
	return out
}

// below lists files, not folders, under a folder.
func (t *Tree) below(dir string) []*Entry {
	return t.match(func(e *Entry) bool { return strings.HasPrefix(e.Path, dir+"/") && e.Type != tar.TypeDir })
}

// glob lists kept files by a pattern of path.Match.
func (t *Tree) glob(pattern string) []string {
	var out []string
	for _, p := range t.paths {
		if ok, err := path.Match(pattern, p); err == nil && ok {
			if _, has := t.read(p); has {
				out = append(out, p)
			}
		}
	}
	return out
}

// String prints an entry as ls would.
func (e *Entry) String() string {
	mode := fs.FileMode(e.Mode & 0o777)
	for bit, set := range map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if e.Mode&bit != 0 {
			mode |= set
		}
	}
	if e.Type == tar.TypeDir {
		mode |= fs.ModeDir
	}
	return fmt.Sprintf("%s %d:%d /%s", mode, e.UID, e.GID, e.Path)
}
