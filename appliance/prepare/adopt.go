// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/compose/release"
)

// adopt copies a blob from another file of the box into p, if one is it.
func (r *run) adopt(ctx context.Context, b release.PartBlob, p *partial, others []string) (bool, error) {
	for _, other := range others {
		src, err := openWhole(other, b.Size)
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
	if took, err := r.clone(ctx, src, b, p); took || err != nil {
		return took, err
	}
	if err := p.restart(); err != nil {
		return false, err
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

// clone takes a file's bytes by reference; it says no where the file system
// can't, or they are wrong.
func (r *run) clone(ctx context.Context, src *os.File, b release.PartBlob, p *partial) (bool, error) {
	if err := p.empty(); err != nil {
		return false, err
	}
	if unix.IoctlFileClone(int(p.f.Fd()), int(src.Fd())) != nil {
		return false, nil
	}
	n, err := r.hash(ctx, p.sum, io.LimitReader(p.f, b.Size+1))
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return err == nil && n == b.Size && p.right(b.Digest), nil
}

// clones takes by reference what it can of blobs on the box: before room is
// looked at, because they need none.
func (r *run) clones(ctx context.Context, blobs []release.PartBlob) error {
	for _, b := range blobs {
		path := blobIn(ImagesDir(r.q.State), b.Digest)
		if whole(path, b.Size) || allocated(path+unverified) > 0 || r.inLayouts(b) {
			continue
		}
		for _, other := range blobsIn(r.contents, b.Digest) {
			src, err := openWhole(other, b.Size)
			if err != nil {
				continue
			}
			took, err := r.cloneTo(ctx, src, b, path)
			src.Close()
			if err != nil {
				return err
			}
			if took {
				break
			}
		}
	}
	return nil
}

func (r *run) cloneTo(ctx context.Context, src *os.File, b release.PartBlob, path string) (bool, error) {
	f, err := os.OpenFile(path+unverified, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, full(err, stateVolume)
	}
	p := &partial{f: f, path: path, sum: sha256.New(), size: b.Size}
	took, err := r.clone(ctx, src, b, p)
	if took {
		return true, p.finish()
	}
	return false, errors.Join(err, f.Close(), os.Remove(path+unverified))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
