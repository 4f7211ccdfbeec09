// SPDX-License-Identifier: Apache-2.0

package stackimage

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Bounds on what packages may unpack to.
const (
	maxEntries = 200_000
	maxBytes   = 4 << 30
)

// spool keeps the bytes of all files of a layer in one temporary file.
type spool struct {
	f    *os.File
	next atomic.Int64
}

// blob is a file's content in the spool. Paths that share a blob are hard
// links of each other.
type blob struct{ at, size int64 }

// take copies exactly size bytes into the spool.
func (s *spool) take(r io.Reader, size int64) (*blob, error) {
	if size < 0 || size > maxBytes {
		return nil, fmt.Errorf("%d bytes are more than a layer can have", size)
	}
	b := &blob{at: s.next.Add(size) - size, size: size}
	if b.at+size > maxBytes {
		return nil, fmt.Errorf("the packages have more than %d bytes", int64(maxBytes))
	}
	_, err := io.CopyN(io.NewOffsetWriter(s.f, b.at), r, size)
	return b, err
}

func (s *spool) open(b *blob) *io.SectionReader { return io.NewSectionReader(s.f, b.at, b.size) }

// node is one path of a layer.
type node struct {
	mode     fs.FileMode
	uid, gid int
	mtime    int64
	target   string // of a symbolic link
	data     *blob  // of a file
	from     string // package or "recipe", for messages
}

// tree is a layer's content by absolute path.
type tree struct {
	nodes map[string]*node
	spool *spool
	epoch int64
}

// merged is where a path lies once /bin, /sbin, /lib and /lib64 are links to
// their namesakes below /usr, as base-files makes them.
func merged(p string) string {
	for _, d := range []string{"/bin", "/sbin", "/lib", "/lib64"} {
		if strings.HasPrefix(p, d+"/") {
			return "/usr" + p
		}
	}
	return p
}

// add puts a package's path into the tree. Two packages may share a folder;
// anything else that two bring is an error, as it is for dpkg.
func (t *tree) add(p string, n *node) error {
	p = merged(p)
	if n.mode.IsDir() {
		p = strings.TrimSuffix(merged(p+"/"), "/")
	}
	n.mtime = min(n.mtime, t.epoch)
	old, ok := t.nodes[p]
	switch {
	case !ok:
		t.nodes[p] = n
	case old.mode.IsDir() && n.mode.IsDir():
	default:
		return fmt.Errorf("%s is in %s and in %s", p, old.from, n.from)
	}
	return nil
}

// put adds a path of the recipe itself, which may only restate a folder.
func (t *tree) put(p string, n *node) error {
	if old, ok := t.nodes[p]; ok && (!old.mode.IsDir() || !n.mode.IsDir()) {
		return fmt.Errorf("%s is already in %s: drop that one first", p, old.from)
	}
	n.from, n.mtime = "the recipe", t.epoch
	t.nodes[p] = n
	return nil
}

// drop removes every path that matches pattern, with what lies below. A
// pattern that matches nothing is an error: it is a leftover.
func (t *tree) drop(pattern string) error {
	depth := strings.Count(pattern, "/")
	found := false
	for p := range t.nodes {
		parts := strings.Split(p, "/")
		if len(parts) <= depth {
			continue
		}
		ok, err := path.Match(pattern, strings.Join(parts[:depth+1], "/"))
		if err != nil {
			return err
		}
		if ok {
			found = true
			delete(t.nodes, p)
		}
	}
	if !found {
		return fmt.Errorf("drop %s matches nothing: remove it", pattern)
	}
	return nil
}

// parents adds the folders that lead to each path.
func (t *tree) parents() error {
	for _, p := range t.paths() {
		for d := path.Dir(p); d != "/"; d = path.Dir(d) {
			n, ok := t.nodes[d]
			if !ok {
				t.nodes[d] = &node{mode: fs.ModeDir | 0o755, mtime: t.epoch, from: "the recipe"}
			} else if !n.mode.IsDir() {
				return fmt.Errorf("%s lies below %s of %s, which is no folder", p, d, n.from)
			}
		}
	}
	return nil
}

// paths are sorted; a folder comes before what is in it.
func (t *tree) paths() []string {
	all := make([]string, 0, len(t.nodes))
	for p := range t.nodes {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

// write streams the tree as tar: same tree, same bytes.
func (t *tree) write(w io.Writer) error {
	tw := tar.NewWriter(w)
	written := map[*blob]string{}
	for _, p := range t.paths() {
		n := t.nodes[p]
		h := &tar.Header{Name: p[1:], Mode: tarMode(n.mode), Uid: n.uid, Gid: n.gid, ModTime: time.Unix(n.mtime, 0)}
		var body io.Reader
		switch {
		case n.mode.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		case n.mode&fs.ModeSymlink != 0:
			h.Typeflag, h.Linkname = tar.TypeSymlink, n.target
		case written[n.data] != "":
			h.Typeflag, h.Linkname = tar.TypeLink, written[n.data]
		default:
			h.Typeflag, h.Size = tar.TypeReg, n.data.size
			body = t.spool.open(n.data)
			written[n.data] = h.Name
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		if body != nil {
			if _, err := io.Copy(tw, body); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
		}
	}
	return tw.Close()
}

func tarMode(m fs.FileMode) int64 {
	v := int64(m.Perm())
	for bit, tarBit := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			v |= tarBit
		}
	}
	return v
}
