// SPDX-License-Identifier: Apache-2.0

package stackimage

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// Folders that no image needs; Debian policy allows to leave them out.
var unneeded = []string{"/usr/share/man", "/usr/share/info", "/usr/share/locale", "/usr/share/lintian",
	"/usr/share/bug", "/usr/share/doc-base", "/usr/share/apport", "/usr/share/vim", "/usr/share/bash-completion"}

// keep tells whether a path of a package enters a layer: of its documentation
// only the copyright, which its licence asks for, and links that lead to one.
func keep(p string, mode fs.FileMode) bool {
	for _, d := range unneeded {
		if p == d || strings.HasPrefix(p, d+"/") {
			return false
		}
	}
	rest, ok := strings.CutPrefix(p, "/usr/share/doc/")
	if !ok {
		return true
	}
	switch strings.Count(rest, "/") {
	case 0:
		return mode.IsDir() || mode&fs.ModeSymlink != 0
	case 1:
		return path.Base(rest) == "copyright"
	}
	return false
}

// deb is one package as read: its control stanza, and its paths before what no
// image needs is left out.
type deb struct {
	control string
	nodes   map[string]*node
}

// readTar reads the file system tar of one package; contents go to the spool.
// It refuses paths that leave the root, devices, and more than an image can be.
func readTar(r io.Reader, to *spool) (map[string]*node, error) {
	tr := tar.NewReader(r)
	own := map[string]*node{}
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return own, nil
		}
		if err != nil {
			return nil, err
		}
		p := path.Join("/", h.Name)
		if p == "/" {
			continue
		}
		if strings.Contains("/"+h.Name+"/", "/../") || len(p) > 4096 || len(own) >= maxEntries {
			return nil, fmt.Errorf("refused path %.100q", h.Name)
		}
		n := &node{mode: h.FileInfo().Mode(), uid: h.Uid, gid: h.Gid, mtime: h.ModTime.Unix()}
		switch h.Typeflag {
		case tar.TypeReg:
			// Also of what is left out later: a hard link to it may stay.
			if n.data, err = to.take(tr, h.Size); err != nil {
				return nil, fmt.Errorf("%s: %w", p, err)
			}
		case tar.TypeLink:
			first := own[path.Join("/", h.Linkname)]
			if first == nil || first.data == nil {
				return nil, fmt.Errorf("%s is a hard link to %q, which is not there", p, h.Linkname)
			}
			n.data, n.mode = first.data, first.mode
		case tar.TypeSymlink:
			n.mode, n.target = fs.ModeSymlink|0o777, h.Linkname
		case tar.TypeDir:
		default:
			return nil, fmt.Errorf("%s is a device or another kind that no image needs", p)
		}
		own[p] = n
	}
}

// settle adds what an image needs of one package to the tree.
func (t *tree) settle(pkg string, own map[string]*node) error {
	for _, p := range sortedKeys(own) {
		n := own[p]
		if !keep(p, n.mode) {
			continue
		}
		n.from = "package " + pkg
		if err := t.add(p, n); err != nil {
			return err
		}
	}
	return nil
}
