// SPDX-License-Identifier: Apache-2.0

package depot

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

// Bounds of a bundle: more members than any release has, and what one small
// member may be padded to with headers.
const maxMembers = 20_000

// bundle is one tar of a layout. Its headers are read once; what it holds is
// then read where it lies.
type bundle struct {
	file io.ReaderAt
	name string
	// members by name: "blobs/sha256/<hex>", "tuf/<name>".
	members map[string]span
	close   func() error
}

// span is where the bytes of a member lie.
type span struct{ at, size int64 }

func openBundle(ctx context.Context, path, name string) (Depot, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	b, err := scan(ctx, f, st.Size(), name)
	if err != nil {
		f.Close()
		return nil, err
	}
	b.close = f.Close
	return b, nil
}

// BundleError is a file that is no bundle, or one that somebody has tampered
// with.
type BundleError struct {
	// Place is the file, Text what is wrong with it.
	Place, Text string
}

func (e *BundleError) Error() string { return fmt.Sprintf("%s is no bundle: %s", e.Place, e.Text) }

// memberForm is all that a bundle may hold.
var memberForm = regexp.MustCompile(`^(oci-layout|index\.json|release\.sig|tuf/([1-9][0-9]{0,8}\.)?[a-z][a-z0-9_-]{0,63}\.json|blobs/sha256/[0-9a-f]{64})$`)

// folderForm are the folders above those.
var folderForm = regexp.MustCompile(`^(|tuf|blobs|blobs/sha256)$`)

// compressed are the first bytes of what people may have packed a bundle with.
var compressed = map[string]string{"gzip": "\x1f\x8b", "zstd": "\x28\xb5\x2f\xfd", "xz": "\xfd7zXZ", "bzip2": "BZh"}

// paxKeys are the extended headers that change nothing but what is checked
// here anyway; sparse members and links through them are refused.
var paxKeys = map[string]bool{"path": true, "size": true, "mtime": true, "atime": true, "ctime": true, "uid": true, "gid": true, "uname": true, "gname": true}

// scan reads the headers of all members.
func scan(ctx context.Context, f io.ReaderAt, size int64, name string) (*bundle, error) {
	bad := func(format string, args ...any) error {
		return &BundleError{name, fmt.Sprintf(format, args...)}
	}
	head := make([]byte, 8)
	if n, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	} else if head = head[:n]; n == 0 {
		return nil, bad("it is empty")
	}
	for how, magic := range compressed {
		if bytes.HasPrefix(head, []byte(magic)) {
			return nil, bad("it is compressed with %s; unpack that first, its blobs are compressed already", how)
		}
	}
	b := &bundle{file: f, name: name, members: map[string]span{}}
	src := io.NewSectionReader(f, 0, size)
	tr := tar.NewReader(src)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, bad("member %d: %v", n+1, err)
		}
		if n >= maxMembers {
			return nil, bad("it has more than %d members", maxMembers)
		}
		for key := range h.PAXRecords {
			if !paxKeys[key] {
				return nil, bad("member %d has the header %.40q, which no bundle has", n+1, key)
			}
		}
		path := strings.TrimPrefix(h.Name, "./")
		if h.Typeflag == tar.TypeDir && folderForm.MatchString(strings.TrimSuffix(path, "/")) {
			continue
		}
		if h.Typeflag != tar.TypeReg {
			return nil, bad("member %.80q is no plain file", h.Name)
		}
		if !memberForm.MatchString(path) {
			return nil, bad("member %.80q is no file of a release", h.Name)
		}
		if _, twice := b.members[path]; twice {
			return nil, bad("member %q is there twice", path)
		}
		// The reader has taken the header's blocks and nothing more.
		at, err := src.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if h.Size < 0 || at > size || h.Size > size-at {
			return nil, bad("it ends within %q: it has been cut off", path)
		}
		b.members[path] = span{at, h.Size}
	}
	if len(b.members) == 0 {
		return nil, bad("it holds no release")
	}
	return b, nil
}

func (b *bundle) Metadata(_ context.Context, name string, limit int64) ([]byte, error) {
	if err := checkMeta(name); err != nil {
		return nil, err
	}
	m, ok := b.members[metaDir+"/"+name]
	if !ok {
		return nil, missing(b.name, metaDir+"/"+name)
	}
	return readAll(io.NewSectionReader(b.file, m.at, m.size), name, limit)
}

func (b *bundle) Blob(_ context.Context, digest string, offset, length int64) (io.ReadCloser, error) {
	if err := checkSpan(digest, offset, length); err != nil {
		return nil, err
	}
	m, ok := b.members[blobPath(digest)]
	if !ok {
		return nil, missing(b.name, "blob "+digest)
	}
	if offset+length > m.size {
		return nil, short(b.name, digest, m.size, offset+length)
	}
	return io.NopCloser(io.NewSectionReader(b.file, m.at+offset, length)), nil
}

func (b *bundle) Offline() bool  { return true }
func (b *bundle) String() string { return b.name }

func (b *bundle) Close() error {
	if b.close == nil {
		return nil
	}
	return b.close()
}
