// SPDX-License-Identifier: Apache-2.0

package gcetar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/holdfast/holdfast/images/extents"
)

// maxTail bounds what follows the end of the archive: zeros up to a whole
// record, and tar can be told to have long ones.
const maxTail = 1 << 20

// Image is a disk in a tar.gz, open for reading.
type Image struct {
	// Size is the length of the disk in bytes, a multiple of Unit.
	Size int64
	// Runs are its data; between them it is zeros.
	Runs []extents.Run

	tar io.Reader
}

// Open reads the headers: of what Write makes, and of what GNU tar makes with
// --format=oldgnu, with or without -S. Its errors say what Compute Engine would
// not take.
func Open(r io.Reader) (*Image, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("not a gzip file: %w", err)
	}
	return open(z)
}

func open(tar io.Reader) (*Image, error) {
	i := &Image{tar: tar}
	h := make([]byte, block)
	if _, err := io.ReadFull(tar, h); err != nil {
		return nil, fmt.Errorf("the archive ends in its first header: %w", whole(err))
	}
	if err := i.header(h); err != nil {
		return nil, err
	}
	return i, nil
}

func (i *Image) header(h []byte) error {
	if want, err := parse(h[offSum:offType]); err != nil || want != sum(h) {
		return errors.New("not a tar archive: the checksum of its first header is wrong")
	}
	if string(h[offMagic:offMagic+len(magic)]) != magic {
		return fmt.Errorf("the archive is not in the GNU format: make it with tar --format=oldgnu")
	}
	if name, _, _ := bytes.Cut(h[offName:offMode], []byte{0}); string(name) != Member {
		return fmt.Errorf("the first member is %q, it must be %q", name, Member)
	}
	stored, err := parse(h[offSize:offMTime])
	if err != nil {
		return fmt.Errorf("size of %s: %w", Member, err)
	}
	switch h[offType] {
	case typeSparse:
		if err := i.sparse(h); err != nil {
			return err
		}
	case '0', 0:
		i.Size, i.Runs = stored, []extents.Run{{Length: stored}}
	default:
		return fmt.Errorf("%s is no plain file but of type %q", Member, h[offType])
	}
	if i.Size <= 0 || i.Size%Unit != 0 || i.Size > MaxSize {
		return fmt.Errorf("%s has %d bytes, which is no whole number of GiB up to %d", Member, i.Size, MaxSize/Unit)
	}
	if n := len(i.Runs); n > 0 && end(i.Runs[n-1]) > i.Size || extents.Total(i.Runs) != stored {
		return fmt.Errorf("the list of holes of %s does not fit its size", Member)
	}
	return nil
}

// sparse reads the real size and the list of data.
func (i *Image) sparse(h []byte) (err error) {
	if i.Size, err = parse(h[offReal:endReal]); err != nil {
		return fmt.Errorf("real size of %s: %w", Member, err)
	}
	list, more := h[offSparse:offMore], h[offMore] != 0
	for {
		done, err := i.add(list)
		if err != nil {
			return fmt.Errorf("the list of holes of %s: %w", Member, err)
		}
		if !more {
			return nil
		}
		if done {
			return fmt.Errorf("the list of holes of %s goes on after its end", Member)
		}
		b := make([]byte, block)
		if _, err := io.ReadFull(i.tar, b); err != nil {
			return fmt.Errorf("the archive ends in the list of holes: %w", whole(err))
		}
		list, more = b[:offMoreExt], b[offMoreExt] != 0
	}
}

// add takes over the entries of one header; done means that the list ends here.
func (i *Image) add(list []byte) (done bool, err error) {
	for ; len(list) >= entry; list = list[entry:] {
		if list[12] == 0 {
			return true, nil
		}
		at, err := parse(list[:12])
		if err != nil {
			return false, err
		}
		n, err := parse(list[12:entry])
		if err != nil {
			return false, err
		}
		last := int64(0)
		if k := len(i.Runs); k > 0 {
			last = end(i.Runs[k-1])
		}
		switch {
		case at < last || at > i.Size || n > i.Size-at:
			return false, fmt.Errorf("%d bytes at %d are out of order", n, at)
		case at%block != 0 || n%block != 0:
			return false, fmt.Errorf("%d bytes at %d are no whole sectors", n, at)
		case len(i.Runs) == maxRuns:
			return false, fmt.Errorf("more than %d entries", maxRuns)
		}
		if n > 0 { // an empty one at the end says where the file ends
			i.Runs = append(i.Runs, extents.Run{Offset: at, Length: n})
		}
	}
	return false, nil
}

// Each calls f with the data in order, in pieces of at most 1 MiB that are
// valid until f returns, and then checks that nothing but zeros follows and
// that gzip's checksum fits. It can be called once.
func (i *Image) Each(f func(off int64, b []byte) error) error {
	buf := make([]byte, 1<<20)
	for _, r := range i.Runs {
		for at := r.Offset; at < end(r); {
			b := buf[:min(int64(len(buf)), end(r)-at)]
			if _, err := io.ReadFull(i.tar, b); err != nil {
				return fmt.Errorf("read %s at %d: %w", Member, at, whole(err))
			}
			if err := f(at, b); err != nil {
				return err
			}
			at += int64(len(b))
		}
	}
	n, zeros := 0, make([]byte, block)
	for {
		_, err := io.ReadFull(i.tar, buf[:block])
		if err == io.EOF && n >= 2*block {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %s: %w", Member, whole(err))
		}
		if !bytes.Equal(buf[:block], zeros) {
			return fmt.Errorf("there is more than %s in the archive", Member)
		}
		if n += block; n > maxTail {
			return fmt.Errorf("the archive goes on for more than %d bytes after its end", maxTail)
		}
	}
}

// parse reads a number: octal, or GNU's base-256.
func parse(b []byte) (int64, error) {
	if b[0]&0x80 != 0 {
		if len(b) < 12 || b[0] != 0x80 || len(bytes.Trim(b[1:len(b)-8], "\x00")) > 0 {
			return 0, errors.New("a number is out of range")
		}
		n := binary.BigEndian.Uint64(b[len(b)-8:])
		if n > 1<<62 {
			return 0, errors.New("a number is out of range")
		}
		return int64(n), nil
	}
	n, err := strconv.ParseUint(strings.Trim(string(b), " \x00"), 8, 62)
	if err != nil {
		return 0, fmt.Errorf("%q is no octal number", b)
	}
	return int64(n), nil
}

func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
