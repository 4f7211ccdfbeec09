// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Record is a small file kept in two copies, PATH.1 and PATH.2, each with a
// sequence number and a checksum. A write goes over the older copy, in place:
// a cut anywhere in it leaves the newer one, and it needs no free room on a
// disk that is full. Reading takes the newest copy that is whole; a torn one
// is written over next.
type Record struct {
	Path string
	// Max bounds the content in bytes.
	Max int
}

// ErrDamaged is returned by Load where there are copies and none is whole.
var ErrDamaged = errors.New("both copies are damaged")

// recordMagic begins each copy: name and version of the format.
const recordMagic = "holdfast-record-1"

// maxHead bounds the first line of a copy: magic, sequence number, length and
// checksum.
const maxHead = len(recordMagic) + 20 + 20 + 64 + 4

// copyState is one copy as it is found.
type copyState struct {
	there   bool
	seq     uint64
	content []byte
	err     error // why it is not whole
}

// Load gives the newest content. It is fs.ErrNotExist when nothing was ever
// written whole, and ErrDamaged when what was written can't be read.
func (r Record) Load() ([]byte, error) {
	copies, err := r.read()
	if err != nil {
		return nil, err
	}
	newest, err := r.newest(copies)
	if err != nil {
		return nil, err
	}
	return copies[newest].content, nil
}

// Save writes content. Callers that read, change and write hold Lock.
func (r Record) Save(content []byte, mode fs.FileMode) error {
	if len(content) > r.Max {
		return fmt.Errorf("%s: %d bytes, at most %d are taken", r.Path, len(content), r.Max)
	}
	copies, err := r.read()
	if err != nil {
		return err
	}
	at, seq := 0, uint64(1)
	if newest, err := r.newest(copies); err == nil {
		at, seq = 1-newest, copies[newest].seq+1
	} else if errors.Is(err, ErrDamaged) {
		// Whoever writes over what can't be read has decided to.
		seq = max(copies[0].seq, copies[1].seq) + 1
	}
	return r.put(at, encodeCopy(seq, content), mode)
}

// Lock keeps other processes, and other holders in this one, from changing
// the record. It is let go of by unlock, or when the process ends.
func (r Record) Lock() (unlock func(), err error) {
	f, err := os.OpenFile(r.Path+".lock", os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

func (r Record) name(i int) string { return r.Path + "." + strconv.Itoa(i+1) }

// read reads both copies, until they were the same twice: between the two
// reads of a pair another process may have written both.
func (r Record) read() (out [2]copyState, err error) {
	for range 10 {
		last := out
		for i := range out {
			if out[i], err = r.readCopy(r.name(i)); err != nil {
				return out, err
			}
		}
		if last[0].there == out[0].there && last[1].there == out[1].there && last[0].seq == out[0].seq && last[1].seq == out[1].seq &&
			(last[0].err == nil) == (out[0].err == nil) && (last[1].err == nil) == (out[1].err == nil) {
			break
		}
	}
	return out, nil
}

func (r Record) readCopy(name string) (copyState, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return copyState{err: err}, nil
	} else if err != nil {
		return copyState{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(maxHead+r.Max)+1))
	if err != nil {
		// A block that can't be read is a damaged copy, not the end.
		return copyState{there: true, err: err}, nil
	}
	seq, content, err := decodeCopy(data, r.Max)
	return copyState{there: true, seq: seq, content: content, err: err}, nil
}

// newest is the index of the copy that counts.
func (r Record) newest(c [2]copyState) (int, error) {
	whole := [2]bool{c[0].err == nil, c[1].err == nil}
	switch {
	case whole[0] && whole[1]:
		if c[1].seq > c[0].seq {
			return 1, nil
		}
		return 0, nil
	case whole[0]:
		return 0, nil
	case whole[1]:
		return 1, nil
	case !c[1].there:
		// The second copy is made by the second write. Without it a torn
		// first one is the very first write, cut: nothing was ever saved.
		return 0, &fs.PathError{Op: "open", Path: r.name(0), Err: fs.ErrNotExist}
	}
	return 0, fmt.Errorf("%s: %w (%w; %w)", r.Path, ErrDamaged, c[0].err, c[1].err)
}

// put writes one copy in place and syncs it. The other copy is whole and
// stays so, whatever becomes of this one.
func (r Record) put(i int, data []byte, mode fs.FileMode) (err error) {
	name := r.name(i)
	_, err = os.Lstat(name)
	fresh := errors.Is(err, fs.ErrNotExist)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, mode)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	// What is left of a longer content is no part of it; a cut before this
	// leaves bytes after the end, which decodeCopy passes over.
	if err := f.Truncate(int64(len(data))); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if fresh {
		return SyncDir(filepath.Dir(name))
	}
	return nil
}

// encodeCopy is one copy: a line with magic, sequence number, length and
// checksum, then the content. The checksum covers the sequence number too.
func encodeCopy(seq uint64, content []byte) []byte {
	head := fmt.Sprintf("%s %d %d %s\n", recordMagic, seq, len(content), sumCopy(seq, content))
	return append([]byte(head), content...)
}

func decodeCopy(data []byte, limit int) (seq uint64, content []byte, err error) {
	line, rest, ok := bytes.Cut(data, []byte("\n"))
	fields := bytes.Split(line, []byte(" "))
	if !ok || len(line) > maxHead || len(fields) != 4 || string(fields[0]) != recordMagic {
		return 0, nil, errors.New("it does not begin as a record does")
	}
	seq, err = strconv.ParseUint(string(fields[1]), 10, 63)
	if err != nil || seq == 0 {
		return 0, nil, fmt.Errorf("sequence number %q is none", fields[1])
	}
	n, err := strconv.Atoi(string(fields[2]))
	if err != nil || n < 0 || n > limit || n > len(rest) {
		return 0, nil, fmt.Errorf("it says %q bytes and has %d, at most %d are taken", fields[2], len(rest), limit)
	}
	content = rest[:n:n]
	if string(fields[3]) != sumCopy(seq, content) {
		return 0, nil, errors.New("its checksum does not match")
	}
	return seq, content, nil
}

func sumCopy(seq uint64, content []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d\n", seq)
	h.Write(content)
	return hex.EncodeToString(h.Sum(nil))
}
