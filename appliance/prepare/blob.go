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
func (r *run) resume(ctx context.Context, path string, size int64) (*partial, error) {
	f, err := os.OpenFile(path+unverified, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, full(err, stateVolume)
	}
	p := &partial{f: f, path: path, sum: sha256.New(), size: size}
	err = full(reserve(f, size), stateVolume)
	if err == nil {
		p.n, err = r.hash(ctx, p.sum, io.LimitReader(f, size+1))
		// What can't be read, or is too long, is of no use.
		if ctx.Err() == nil && (err != nil || p.n > size) {
			err = p.restart()
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
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

// restart forgets all bytes, and makes room for the whole.
func (p *partial) restart() error {
	return errors.Join(p.empty(), full(reserve(p.f, p.size), stateVolume))
}

func (p *partial) empty() error {
	p.sum.Reset()
	p.n, p.synced, p.old = 0, 0, 0
	if err := p.f.Truncate(0); err != nil {
		return err
	}
	_, err := p.f.Seek(0, io.SeekStart)
	return err
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
	return r.bringFrom(ctx, what, b, path, blobsIn(r.contents, b.Digest))
}

// blobsIn are the places of a blob in several layouts.
func blobsIn(dirs []string, digest string) []string {
	out := make([]string, 0, len(dirs))
	for _, dir := range dirs {
		out = append(out, blobIn(dir, digest))
	}
	return out
}

// anew is bring for a small file, which is verified wherever it is; others are
// more places that it may be in.
func (r *run) anew(ctx context.Context, what string, b release.PartBlob, path string, others ...string) error {
	if whole(path, b.Size) {
		if right, err := r.fileIs(ctx, path, b); err != nil {
			return err
		} else if !right {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return r.bringFrom(ctx, what, b, path, append(others, blobsIn(r.contents, b.Digest)...))
}

func (r *run) bringFrom(ctx context.Context, what string, b release.PartBlob, path string, others []string) (err error) {
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
		took, err := r.adopt(ctx, b, p, others)
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

// read reads a small blob into memory and checks it: from path where it is
// there, else it is brought there, from dirs if one of these layouts has it.
func (r *run) read(ctx context.Context, what string, b release.PartBlob, path string, dirs []string) ([]byte, error) {
	for try := 0; ; try++ {
		if err := r.bringFrom(ctx, what, b, path, blobsIn(dirs, b.Digest)); err != nil {
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
