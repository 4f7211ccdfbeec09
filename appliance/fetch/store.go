// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/holdfast/holdfast/images/durable"
)

// Folders below a store: blobs by digest, as in an OCI layout, and those that
// are not whole or not verified yet, under the same names.
const (
	blobDir       = "blobs/sha256"
	unverifiedDir = "unverified"
)

// store is where blobs are: a folder of its own, whose blobs were verified
// before they got their names, and OCI layouts that others made, whose blobs
// are verified before they are used. As a file system it has all of them.
type store struct {
	dir     string
	layouts []string

	mu sync.Mutex
	// judged are files of layouts that were read: right, or wrong.
	judged map[string]bool
}

func (s *store) open() error {
	for _, d := range []string{blobDir, unverifiedDir} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o700); err != nil {
			return err
		}
	}
	return nil
}

func encoded(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

func (s *store) blob(digest string) string { return filepath.Join(s.dir, blobDir, encoded(digest)) }

func (s *store) unverified(digest string) string {
	return filepath.Join(s.dir, unverifiedDir, encoded(digest))
}

// places are the files that a blob may be in.
func (s *store) places(digest string) []string {
	out := []string{s.blob(digest)}
	for _, l := range s.layouts {
		out = append(out, filepath.Join(l, blobDir, encoded(digest)))
	}
	return out
}

// find opens a blob where it lies, whole by its length.
func (s *store) find(digest string, size int64) (*os.File, error) {
	for _, path := range s.places(digest) {
		if right, known := s.judgement(path); known && !right {
			continue
		}
		// A layout is anybody's folder: no waiting for a pipe.
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() && (size < 0 || st.Size() == size) {
			return f, nil
		}
		f.Close()
	}
	return nil, fs.ErrNotExist
}

func (s *store) judgement(path string) (right, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	right, known = s.judged[path]
	return right, known
}

func (s *store) judge(path string, right bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.judged == nil {
		s.judged = map[string]bool{}
	}
	s.judged[path] = right
}

// verified says whether there is a right copy of a blob. One of a layout is
// read for that, once: the engine does not take kindly to a load that breaks
// off in the middle.
func (s *store) verified(ctx context.Context, w want) (bool, error) {
	for {
		f, err := s.find(w.digest, w.size)
		if err != nil {
			return false, nil
		}
		right, known := s.judgement(f.Name())
		if !known && f.Name() == s.blob(w.digest) {
			right, known = true, true
		}
		if !known {
			sum := sha256.New()
			stop := context.AfterFunc(ctx, func() { f.Close() }) // ends the read
			_, err := io.Copy(sum, f)
			stop()
			if ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			right = err == nil && fmt.Sprintf("sha256:%x", sum.Sum(nil)) == w.digest
			s.judge(f.Name(), right)
		}
		f.Close()
		if right {
			return true, nil
		}
	}
}

func (s *store) has(digest string, size int64) bool {
	f, err := s.find(digest, size)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// read reads a small blob.
func (s *store) read(digest string, size int64) ([]byte, error) {
	f, err := s.find(digest, size)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, size))
}

// Open implements fs.FS for names like "blobs/sha256/<hex>".
func (s *store) Open(name string) (fs.File, error) {
	hex, ok := strings.CutPrefix(name, blobDir+"/")
	if !ok || !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	f, err := s.find("sha256:"+hex, -1)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return f, nil
}

// distrust lets go of the copy of a blob that was read last: ours is removed,
// another's is passed by from now on.
func (s *store) distrust(digest string) error {
	f, err := s.find(digest, -1)
	if err != nil {
		return nil // it is gone already
	}
	f.Close()
	if f.Name() == s.blob(digest) {
		return os.Remove(f.Name())
	}
	s.judge(f.Name(), false)
	return nil
}

// forgive looks at every file again: somebody may have put a right one there.
func (s *store) forgive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judged = nil
}

// partial is how much there is of a blob that is not whole.
func (s *store) partial(digest string) int64 {
	st, err := os.Stat(s.unverified(digest))
	if err != nil {
		return 0
	}
	return st.Size()
}

// sweep removes the store's blobs, whole or not, that keep does not name; nil
// keeps all but what is no blob.
func (s *store) sweep(keep func(digest string) bool) error {
	left := 0
	for _, d := range []string{blobDir, unverifiedDir} {
		entries, err := os.ReadDir(filepath.Join(s.dir, d))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if len(e.Name()) == sha256.Size*2 && (keep == nil || keep("sha256:"+e.Name())) {
				left++
				continue
			}
			if err := os.RemoveAll(filepath.Join(s.dir, d, e.Name())); err != nil {
				return err
			}
		}
	}
	if left > 0 {
		return nil
	}
	return os.RemoveAll(s.dir)
}

// partialBlob is a blob on its way: what there is of it, and the sum so far.
type partialBlob struct {
	f    *os.File
	sum  hash.Hash
	n    int64
	path string
	// synced is how much is on disk for sure.
	synced int64
	// mixed is true when the bytes come from more than one answer.
	mixed bool
}

// syncEvery bounds what a power cut takes of a large blob.
const syncEvery = 32 << 20

// resume opens what an earlier try left of a blob; of bytes beyond its size
// nothing is kept.
func (s *store) resume(w want) (p *partialBlob, err error) {
	p = &partialBlob{sum: sha256.New(), path: s.unverified(w.digest)}
	if p.f, err = os.OpenFile(p.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	p.n, err = io.Copy(p.sum, io.LimitReader(p.f, w.size+1))
	p.synced, p.mixed = p.n, p.n > 0
	// A whole one that is still here is one whose check was cut off or failed.
	if err != nil || p.n > w.size {
		err = p.restart()
	}
	if err != nil {
		p.f.Close()
		return nil, err
	}
	return p, nil
}

// restart forgets all bytes.
func (p *partialBlob) restart() error {
	p.sum.Reset()
	p.n, p.synced, p.mixed = 0, 0, false
	if err := p.f.Truncate(0); err != nil {
		return err
	}
	_, err := p.f.Seek(0, io.SeekStart)
	return err
}

func (p *partialBlob) Write(b []byte) (int, error) {
	n, err := p.f.Write(b)
	p.sum.Write(b[:n])
	if p.n += int64(n); err == nil && p.n-p.synced >= syncEvery {
		err = p.f.Sync()
		p.synced = p.n
	}
	return n, err
}

// right says whether the bytes are the digest's.
func (p *partialBlob) right(digest string) bool {
	return fmt.Sprintf("sha256:%x", p.sum.Sum(nil)) == digest
}

// finish gives a whole and right blob its name.
func (p *partialBlob) finish(s *store, digest string) error {
	if err := errors.Join(p.f.Sync(), p.f.Close()); err != nil {
		return err
	}
	return durable.Rename(p.path, s.blob(digest))
}

// drop ends the work on a blob; what is kept of it is on disk.
func (p *partialBlob) drop(keep bool) error {
	if keep && p.n > 0 {
		return errors.Join(p.f.Sync(), p.f.Close())
	}
	return errors.Join(p.f.Close(), os.Remove(p.path))
}
