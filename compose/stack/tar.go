// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"archive/tar"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// header is the ustar header of an entry: nothing of the host is in it.
func (f file) header() *tar.Header {
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: f.rel, Mode: int64(f.mode), Size: f.size,
		ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR,
	}
	if f.dir {
		h.Typeflag, h.Name, h.Size = tar.TypeDir, f.rel+"/", 0
	}
	return h
}

// Tar writes the stack's files as a ustar archive: every Compose, env, label,
// config, secret and mounted file, sorted by path, owner 0, time 0, mode 0755
// where a file is executable and 0644 elsewhere. It holds all that Load needs,
// and equal files make equal bytes on any host.
func (s *Stack) Tar(w io.Writer) error {
	root, err := os.OpenRoot(s.Dir)
	if err != nil {
		return fmt.Errorf("stack folder: %w", err)
	}
	defer root.Close()
	tw := tar.NewWriter(w)
	files := slices.SortedFunc(slices.Values(s.files), func(a, b file) int { return cmp.Compare(a.rel, b.rel) })
	for _, f := range files {
		if err := tw.WriteHeader(f.header()); err != nil {
			return fmt.Errorf("stack folder: %s: %w", f.rel, err)
		}
		if f.dir {
			continue
		}
		if err := copyFile(tw, root, f); err != nil {
			return fmt.Errorf("stack folder: %s: %w", f.rel, err)
		}
	}
	return tw.Close()
}

func copyFile(w io.Writer, root *os.Root, f file) error {
	r, err := root.Open(f.rel)
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(w, io.LimitReader(r, f.size))
	if err != nil {
		return err
	}
	if extra, _ := io.CopyN(io.Discard, r, 1); n != f.size || extra != 0 {
		return errors.New("the file changed since the stack was loaded; load it again")
	}
	return nil
}

// Digest is "sha256:" and the hash of Tar in hex.
func (s *Stack) Digest() (string, error) {
	h := sha256.New()
	if err := s.Tar(h); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// Unpack writes a tar made by Tar into dir, which must be empty or missing.
// It takes nothing that Tar does not write: plain files and folders with
// local names, in bounds. Each file is synced; making the folders durable
// under their final name is the caller's.
func Unpack(r io.Reader, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if d, err := os.ReadDir(dir); err != nil || len(d) > 0 {
		return cmp.Or(err, fmt.Errorf("stack tar: %s is not empty", dir))
	}
	bounded := io.LimitReader(r, maxBytes+(maxFiles+2)*2*512)
	tr := tar.NewReader(bounded)
	var count int
	var sum int64
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("stack tar: %w", err)
		}
		name := strings.TrimSuffix(h.Name, "/")
		count, sum = count+1, sum+h.Size
		switch {
		case !filepath.IsLocal(name) || name == ".":
			return fmt.Errorf("stack tar: %q is no name of a stack's file", h.Name)
		case count > maxFiles || h.Size < 0 || sum > maxBytes:
			return fmt.Errorf("stack tar: more than %d files or %d MiB", maxFiles, maxBytes>>20)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			// The umask goes for folders too; see unpackFile.
			if err = root.Mkdir(name, 0o755); err == nil {
				err = root.Chmod(name, 0o755)
			}
		case tar.TypeReg:
			err = unpackFile(root, name, h, tr)
		default:
			err = errors.New("neither a plain file nor a folder")
		}
		if err != nil {
			return fmt.Errorf("stack tar: %s: %w", name, err)
		}
	}
}

func unpackFile(root *os.Root, name string, h *tar.Header, r io.Reader) error {
	mode := fs.FileMode(0o644)
	if h.Mode&0o111 != 0 {
		mode = 0o755
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	// The mode given above went through the umask, and a service may run as
	// any user.
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}
