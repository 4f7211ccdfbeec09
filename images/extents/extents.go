// SPDX-License-Identifier: Apache-2.0

// Package extents reads and copies the data runs of sparse files, so that work
// on a disk image costs what its data costs and not what its length says. It
// needs a local Linux file system; on one without SEEK_DATA a file is one run.
package extents

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// Block is the granularity of holes in bytes: what every usual Linux file
	// system allocates.
	Block = 4096
	// chunk is read at a time: large enough to hide the system call, small
	// enough to stay in the second-level cache between read and write.
	chunk = 1 << 20
)

// Run is a stretch of a file that may hold data, in bytes.
type Run struct {
	Offset int64
	Length int64
}

// Runs lists the data of f in order; what lies between is holes that read as
// zero. It leaves the file offset where SEEK_DATA put it: use ReadAt.
func Runs(f *os.File) ([]Run, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := st.Size()
	var runs []Run
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			return append(runs, Run{at, size - at}), nil
		}
		if err != nil {
			return nil, fmt.Errorf("find data in %s: %w", f.Name(), err)
		}
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("find holes in %s: %w", f.Name(), err)
		}
		// A file that shrinks meanwhile must not make this loop for ever.
		if hole <= data {
			return nil, fmt.Errorf("find holes in %s: it changes while it is read", f.Name())
		}
		if data >= size {
			break
		}
		runs = append(runs, Run{data, min(hole, size) - data})
		at = hole
	}
	return runs, nil
}

// Total is the sum of the lengths of runs in bytes.
func Total(runs []Run) int64 {
	var n int64
	for _, r := range runs {
		n += r.Length
	}
	return n
}

// Copy puts the whole of src at dstOff in dst. Holes of src and blocks of zeros
// become holes in dst, also where dst held something else before. dst grows to
// dstOff + size of src when shorter, unless it is a block device. It returns the
// bytes written as data. progress (may be nil) hears data bytes of src done and
// in all, about once per MiB. Copy does not sync.
func Copy(ctx context.Context, dst, src *os.File, dstOff int64, progress func(done, total int64)) (written int64, err error) {
	st, err := src.Stat()
	if err != nil {
		return 0, err
	}
	size := st.Size()
	runs, err := Runs(src)
	if err != nil {
		return 0, err
	}
	if err := empty(dst, dstOff, size); err != nil {
		return 0, err
	}
	c := copier{dst: dst, src: src, shift: dstOff, inKernel: true}
	total, done := Total(runs), int64(0)
	buf := make([]byte, chunk)
	for _, r := range runs {
		for at, end := r.Offset, r.Offset+r.Length; at < end; {
			if err := ctx.Err(); err != nil {
				return c.written, err
			}
			// Stay aligned to blocks of src, so that its zero blocks are seen.
			n := min(end-at, chunk-at%Block)
			if _, err := io.ReadFull(io.NewSectionReader(src, at, n), buf[:n]); err != nil {
				return c.written, fmt.Errorf("read %s: %w", src.Name(), err)
			}
			if err := c.put(buf[:n], at); err != nil {
				return c.written, err
			}
			at += n
			done += n
			if progress != nil {
				progress(done, total)
			}
		}
	}
	return c.written, nil
}

// empty makes dst hold zeros, and no storage where it can, at [off, off+n), and
// long enough to cover it.
func empty(dst *os.File, off, n int64) error {
	st, err := dst.Stat()
	if err != nil {
		return err
	}
	regular := st.Mode().IsRegular()
	if old := min(st.Size(), off+n) - off; regular && old > 0 {
		if err := zero(dst, off, old); err != nil {
			return err
		}
	} else if !regular {
		if err := zero(dst, off, n); err != nil {
			return err
		}
	}
	if regular && st.Size() < off+n {
		return dst.Truncate(off + n)
	}
	return nil
}

func zero(dst *os.File, off, n int64) error {
	err := unix.Fallocate(int(dst.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("clear %s: %w", dst.Name(), err)
	}
	zeros := make([]byte, min(n, chunk))
	for done := int64(0); done < n; {
		k, err := dst.WriteAt(zeros[:min(n-done, chunk)], off+done)
		if err != nil {
			return fmt.Errorf("clear %s: %w", dst.Name(), err)
		}
		done += int64(k)
	}
	return nil
}

// copier writes the blocks of src that are not zero.
type copier struct {
	dst, src *os.File
	shift    int64
	written  int64
	// inKernel is true until copy_file_range turns out not to work between
	// these two files. Where it does, XFS and btrfs share the blocks.
	inKernel bool
}

func (c *copier) put(b []byte, at int64) error {
	for i := 0; i < len(b); {
		j := i
		for j < len(b) && isZero(b[j:min(j+Block, len(b))]) {
			j = min(j+Block, len(b))
		}
		i = j
		for j < len(b) && !isZero(b[j:min(j+Block, len(b))]) {
			j = min(j+Block, len(b))
		}
		if err := c.write(b[i:j], at+int64(i)); err != nil {
			return fmt.Errorf("write %s: %w", c.dst.Name(), err)
		}
		c.written += int64(j - i)
		i = j
	}
	return nil
}

func (c *copier) write(b []byte, at int64) error {
	for c.inKernel && len(b) > 0 {
		from, to := at, at+c.shift
		n, err := unix.CopyFileRange(int(c.src.Fd()), &from, int(c.dst.Fd()), &to, len(b), 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n > 0 {
			b, at = b[n:], at+int64(n)
			continue
		}
		switch {
		case err == nil, errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS),
			errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPERM), errors.Is(err, unix.EIO):
			c.inKernel = false
		default:
			return err
		}
	}
	if len(b) == 0 {
		return nil
	}
	_, err := c.dst.WriteAt(b, at+c.shift)
	return err
}

func isZero(b []byte) bool { return string(b) == zeroBlock[:len(b)] }

var zeroBlock = string(make([]byte, Block))

// HashSparse is sha256 over the whole content of f, holes as zeros. progress
// (may be nil) hears bytes done and in all. Holes cost hashing but no reading.
func HashSparse(ctx context.Context, f *os.File, progress func(done, total int64)) ([32]byte, error) {
	var sum [32]byte
	st, err := f.Stat()
	if err != nil {
		return sum, err
	}
	runs, err := Runs(f)
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	buf, zeros := make([]byte, chunk), make([]byte, chunk)
	at := int64(0)
	feed := func(end int64, hole bool) error {
		for at < end {
			if err := ctx.Err(); err != nil {
				return err
			}
			b := zeros[:min(end-at, chunk)]
			if !hole {
				b = buf[:len(b)]
				if _, err := io.ReadFull(io.NewSectionReader(f, at, int64(len(b))), b); err != nil {
					return fmt.Errorf("read %s: %w", f.Name(), err)
				}
			}
			h.Write(b)
			at += int64(len(b))
			if progress != nil {
				progress(at, st.Size())
			}
		}
		return nil
	}
	for _, r := range append(runs, Run{Offset: st.Size()}) {
		if err := feed(r.Offset, true); err != nil {
			return sum, err
		}
		if err := feed(r.Offset+r.Length, false); err != nil {
			return sum, err
		}
	}
	return [32]byte(h.Sum(sum[:0])), nil
}
