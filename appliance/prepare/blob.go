// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/images/durable"
)

const (
	// unverified ends the name of what is not whole or not verified yet.
	unverified = ".unverified"
	blobDir    = "blobs/sha256"
	// readSize is one read of a file or of the network.
	readSize = 128 << 10
	// syncEvery bounds what a power cut takes of a large file.
	syncEvery = 32 << 20
)

func hexOf(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

// blobIn is where a layout has a blob.
func blobIn(dir, digest string) string { return filepath.Join(dir, blobDir, hexOf(digest)) }

// whole says whether there is a regular file of that size.
func whole(path string, size int64) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode().IsRegular() && st.Size() == size
}

// partial is a file on its way: what there is of it, and the sum so far.
type partial struct {
	f      *os.File
	path   string
	sum    hash.Hash
	n      int64
	synced int64
	// old bytes are of an earlier run, and may be of another file.
	old  int64
	size int64
}

// resume opens what an earlier run left at path+unverified, and makes room for
// the whole.
func (r *run) resume(ctx context.Context, path string, size int64) (p *partial, err error) {
	p = &partial{path: path, sum: sha256.New(), size: size}
	if p.f, err = os.OpenFile(path+unverified, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, full(err, stateVolume)
	}
	defer func() {
		if err != nil {
			p.f.Close()
		}
	}()
	if err := reserve(p.f, size); err != nil {
		return nil, full(err, stateVolume)
	}
	if p.n, err = r.hash(ctx, p.sum, io.LimitReader(p.f, size+1)); err != nil || p.n > size {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := p.restart(); err != nil {
			return nil, err
		}
	}
	p.synced, p.old = p.n, p.n
	return p, nil
}

// reserve takes the room of a file without changing its length.
func reserve(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil // the room was looked at before
	}
	return err
}

// hash sums up a file.
func (r *run) hash(ctx context.Context, sum io.Writer, from io.Reader) (n int64, err error) {
	buf := r.buffers.get(readSize)
	defer r.buffers.put(buf)
	for {
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		got, err := from.Read(buf)
		sum.Write(buf[:got])
		n += int64(got)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// restart forgets all bytes.
func (p *partial) restart() error {
	p.sum.Reset()
	p.n, p.synced, p.old = 0, 0, 0
	if err := p.f.Truncate(0); err != nil {
		return err
	}
	_, err := p.f.Seek(0, io.SeekStart)
	return errors.Join(err, full(reserve(p.f, p.size), stateVolume))
}

func (p *partial) write(b []byte) error {
	n, err := p.f.Write(b)
	p.sum.Write(b[:n])
	if p.n += int64(n); err == nil && p.n-p.synced >= syncEvery {
		err = unix.Fdatasync(int(p.f.Fd()))
		p.synced = p.n
	}
	return full(err, stateVolume)
}

func (p *partial) right(digest string) bool {
	return fmt.Sprintf("sha256:%x", p.sum.Sum(nil)) == digest
}

// finish gives a whole and right file its name.
func (p *partial) finish() error {
	if err := errors.Join(p.f.Sync(), p.f.Close()); err != nil {
		return full(err, stateVolume)
	}
	return durable.Rename(p.path+unverified, p.path)
}

// leave keeps what there is for the next run.
func (p *partial) leave() error { return errors.Join(p.f.Sync(), p.f.Close()) }

// bring makes the blob b a file at path: from there, from another place of the
// box, or from the depot, going on where an earlier run ended. What has its
// final name was verified before it got it.
func (r *run) bring(ctx context.Context, what string, b release.PartBlob, path string) error {
	return r.bringFrom(ctx, what, b, path, r.contents)
}

// anew is bring for a small file, which is verified wherever it is.
func (r *run) anew(ctx context.Context, what string, b release.PartBlob, path string) error {
	if whole(path, b.Size) {
		if right, err := r.fileIs(ctx, path, b); err != nil {
			return err
		} else if !right {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return r.bring(ctx, what, b, path)
}

func (r *run) bringFrom(ctx context.Context, what string, b release.PartBlob, path string, dirs []string) (err error) {
	if whole(path, b.Size) {
		r.meter.done(b.Size, true)
		return nil
	}
	p, err := r.resume(ctx, path, b.Size)
	if err != nil {
		return err
	}
	named := false
	defer func() {
		if !named {
			err = errors.Join(err, p.leave())
		}
	}()
	if p.n < b.Size {
		took, err := r.adopt(ctx, b, p, dirs)
		if err != nil {
			return err
		}
		if took {
			named = true
			r.meter.done(b.Size, true)
			return p.finish()
		}
	}
	r.meter.done(p.n, true)
	for {
		err := r.span(ctx, what, b.Digest, p.n, b.Size-p.n, func(data []byte) error {
			r.meter.done(int64(len(data)), false)
			return p.write(data)
		})
		if err != nil {
			return err
		}
		if p.right(b.Digest) {
			named = true
			return p.finish()
		}
		mixed := p.old > 0
		r.meter.undo(p.old, p.n-p.old)
		if err := p.restart(); err != nil {
			return err
		}
		if !mixed {
			return &RefusedError{what, fmt.Sprintf("is not what is signed: %s has other bytes under the name %s", r.depot, b.Digest)}
		}
	}
}

// adopt copies a blob from another place of the box into p, if one has it.
func (r *run) adopt(ctx context.Context, b release.PartBlob, p *partial, dirs []string) (bool, error) {
	for _, dir := range dirs {
		src, err := openWhole(blobIn(dir, b.Digest), b.Size)
		if err != nil {
			continue
		}
		took, err := r.copy(ctx, src, b, p)
		src.Close()
		if took || err != nil {
			return took, err
		}
		if err := p.restart(); err != nil {
			return false, err
		}
	}
	return false, nil
}

// openWhole opens a regular file of that size without waiting for whatever else
// has its name.
func openWhole(path string, size int64) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() != size {
		f.Close()
		return nil, os.ErrNotExist
	}
	return f, nil
}

// copy takes a file's bytes: by reference where the file system can, so that
// they take no room twice.
func (r *run) copy(ctx context.Context, src *os.File, b release.PartBlob, p *partial) (bool, error) {
	if err := p.restart(); err != nil {
		return false, err
	}
	if unix.IoctlFileClone(int(p.f.Fd()), int(src.Fd())) == nil {
		n, err := r.hash(ctx, p.sum, io.LimitReader(p.f, b.Size+1))
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		return err == nil && n == b.Size && p.right(b.Digest), nil
	}
	var failed error
	n, err := r.hash(ctx, writerFunc(func(data []byte) (int, error) {
		if failed == nil {
			failed = p.write(data)
		}
		return len(data), nil
	}), io.LimitReader(src, b.Size))
	switch {
	case failed != nil:
		return false, failed
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	}
	return err == nil && n == b.Size && p.right(b.Digest), nil
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// read reads a small blob into memory and checks it: from path where it is
// there, else it is brought there, from dirs if one has it.
func (r *run) read(ctx context.Context, what string, b release.PartBlob, path string, dirs []string) ([]byte, error) {
	for try := 0; ; try++ {
		if err := r.bringFrom(ctx, what, b, path, dirs); err != nil {
			return nil, err
		}
		f, err := openWhole(path, b.Size)
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(io.LimitReader(f, b.Size+1))
		f.Close()
		if err == nil && fmt.Sprintf("sha256:%x", sha256.Sum256(data)) == b.Digest {
			return data, nil
		}
		// It went bad on this box's disk.
		r.meter.undo(b.Size, 0)
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		if try > 0 {
			return nil, fmt.Errorf("%s goes bad on this box's disk again and again; look at `holdfast doctor`", what)
		}
	}
}
