// SPDX-License-Identifier: Apache-2.0

package depot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Folders and files of a layout.
const (
	blobDir = "blobs/sha256"
	metaDir = "tuf"
	// USB is the reference of a removable disk: its folder StickFolder is a
	// layout, or holds one bundle.
	USB = "usb:"
	// StickFolder is the folder that is looked at on a removable disk.
	StickFolder = "holdfast"
	// BundleSuffix ends the name of a bundle on a removable disk.
	BundleSuffix = ".bundle"
)

// Options say how a place is reached; the zero value is right for a file.
type Options struct {
	// Proxy chooses the proxy of each request; nil uses none.
	Proxy func(*http.Request) (*url.URL, error)
	// Limit in bytes per second for what comes over the network; 0 is none.
	Limit int64
	// Transport replaces the default one, and Proxy with it.
	Transport http.RoundTripper
	// Mount makes the first removable disk that has a folder StickFolder
	// readable, for USB, and says where; release undoes that.
	Mount func(ctx context.Context) (dir string, release func() error, err error)
}

var (
	digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	metaForm   = regexp.MustCompile(`^([1-9][0-9]{0,8}\.)?[a-z][a-z0-9_-]{0,63}\.json$`)
)

// Open opens the place that ref names: a folder, a bundle file, http:// or
// https:// and the address of a folder, oci://HOST/REPOSITORY (oci+http:// where
// the registry has no TLS), or USB. Nothing is asked over the network yet.
func Open(ctx context.Context, ref string, o Options) (Depot, error) {
	scheme, rest, isURL := strings.Cut(ref, "://")
	switch {
	case ref == "":
		return nil, errors.New("no place to fetch releases from is given: write a folder, a bundle, an https:// address or oci://HOST/REPOSITORY")
	case ref == USB:
		return openUSB(ctx, o)
	case !isURL:
		return openPath(ctx, ref)
	case scheme == "https", scheme == "http":
		return openWeb(ref, o)
	case scheme == "oci", scheme == "oci+http":
		return openRegistry(scheme, rest, o)
	}
	return nil, fmt.Errorf("%q: %s:// is not known; write a path, https://, http://, oci:// or usb:", redact(ref), scheme)
}

// openPath opens a folder or a bundle.
func openPath(ctx context.Context, path string) (Depot, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s is neither a folder nor a bundle: there is no such file", path)
	case err != nil:
		return nil, err
	case st.IsDir():
		return openFolder(path, path, false)
	case st.Mode().IsRegular():
		return openBundle(ctx, path, path)
	}
	return nil, fmt.Errorf("%s is neither a folder nor a bundle", path)
}

// stick is a depot on a removable disk, which is let go with it.
type stick struct {
	Depot
	release func() error
}

func (s *stick) Close() error { return errors.Join(s.Depot.Close(), s.release()) }

func openUSB(ctx context.Context, o Options) (_ Depot, err error) {
	if o.Mount == nil {
		return nil, errors.New("usb: removable disks are mounted on a box only; name the folder instead")
	}
	dir, release, err := o.Mount(ctx)
	if err != nil {
		return nil, fmt.Errorf("usb: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, release())
		}
	}()
	d, err := openStick(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("usb: %w", err)
	}
	return &stick{d, release}, nil
}

// openStick opens the layout or the one bundle below a mounted disk.
func openStick(ctx context.Context, dir string) (Depot, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if st, err := root.Stat(StickFolder + "/" + metaDir); err == nil && st.IsDir() {
		return openFolder(filepath.Join(dir, StickFolder), USB, true)
	}
	f, err := root.Open(StickFolder)
	if err != nil {
		return nil, fmt.Errorf("the disk has no folder %q: %w", StickFolder, err)
	}
	defer f.Close()
	entries, err := f.ReadDir(1000)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	found := ""
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), BundleSuffix) || !e.Type().IsRegular() {
			continue
		}
		if found != "" {
			return nil, fmt.Errorf("the folder %q has more than one bundle, %s and %s; leave the one that is meant", StickFolder, found, e.Name())
		}
		found = e.Name()
	}
	if found == "" {
		return nil, fmt.Errorf("the folder %q has neither releases (%s/) nor a bundle (*%s)", StickFolder, metaDir, BundleSuffix)
	}
	return openBundle(ctx, filepath.Join(dir, StickFolder, found), USB+" "+found)
}

// redact is an address without its password.
func redact(ref string) string {
	if u, err := url.Parse(ref); err == nil {
		return u.Redacted()
	}
	return ref
}

// checkMeta refuses what is no name of a metadata file.
func checkMeta(name string) error {
	if !metaForm.MatchString(name) {
		return fmt.Errorf("%q is no name of trust metadata", name)
	}
	return nil
}

// checkSpan refuses what is no span of a blob.
func checkSpan(digest string, offset, length int64) error {
	if !digestForm.MatchString(digest) {
		return fmt.Errorf("%q is no digest", digest)
	}
	if offset < 0 || length < 0 || offset+length < offset {
		return fmt.Errorf("blob %s: bytes %d to %d+%d are no span", digest, offset, offset, length)
	}
	return nil
}

func blobPath(digest string) string {
	return blobDir + "/" + strings.TrimPrefix(digest, "sha256:")
}

// readAll reads a file of metadata, of at most limit bytes.
func readAll(r io.Reader, name string, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s %w: %d bytes", name, errLong, limit)
	}
	return b, nil
}

// errLong is a file that is larger than its reader takes. compose/trust tells
// it by its method: no server that is merely away says it.
var errLong error = longError{}

type longError struct{}

func (longError) Error() string { return "has more than is taken" }

// TooLarge marks the error for who does not know this package.
func (longError) TooLarge() {}

// missing is the error for what a place does not have; errors.Is finds
// fs.ErrNotExist.
func missing(place, what string) error {
	return &missingError{place, what}
}

type missingError struct{ place, what string }

func (e *missingError) Error() string { return fmt.Sprintf("%s has no %s", e.place, e.what) }
func (e *missingError) Is(target error) bool {
	return target == fs.ErrNotExist
}
