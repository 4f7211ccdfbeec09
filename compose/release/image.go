// SPDX-License-Identifier: Apache-2.0

package release

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CorruptError is a blob of an image that is not what the signed description
// says. The image must not be run.
type CorruptError struct {
	// Image is the reference, Blob the digest of the bad blob.
	Image, Blob string
	// Err says what is wrong with it.
	Err error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("the image %s is corrupt: blob %s: %v", e.Image, e.Blob, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// WriteImage streams one image, by manifest digest, as the tar of an OCI
// layout that `docker load` takes, under every reference that the release has
// for it. progress, which may be nil, hears the image's bytes so far and in
// all.
//
// Each blob is hashed while it streams. index.json comes last and the tar is
// ended only after it, so a bad blob, a *CorruptError, leaves the reader with
// an archive that names no image.
func (r *Release) WriteImage(ctx context.Context, w io.Writer, digest string, progress func(done, total int64)) error {
	var refs []Image
	for _, im := range r.desc.Images {
		if im.Digest == digest {
			refs = append(refs, im)
		}
	}
	if len(refs) == 0 {
		return fmt.Errorf("release: no image has the digest %s", digest)
	}
	if progress == nil {
		progress = func(int64, int64) {}
	}
	s := &streamer{r: r, tar: tar.NewWriter(w), image: refs[0], progress: progress}
	idx := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, im := range refs {
		d, err := im.descriptor()
		if err != nil {
			return err
		}
		idx.Manifests = append(idx.Manifests, d)
	}
	last, err := json.Marshal(idx)
	if err != nil {
		return err
	}
	if err := s.plain("oci-layout", layoutFile); err != nil {
		return err
	}
	if err := s.blobs(ctx); err != nil {
		return err
	}
	if err := s.plain("index.json", last); err != nil {
		return err
	}
	return s.tar.Close()
}

// VerifyImage reads all blobs of one image and checks them.
func (r *Release) VerifyImage(ctx context.Context, digest string, progress func(done, total int64)) error {
	return r.WriteImage(ctx, io.Discard, digest, progress)
}

// streamer is one WriteImage.
type streamer struct {
	r        *Release
	tar      *tar.Writer
	image    Image
	done     int64
	progress func(done, total int64)
}

func (s *streamer) corrupt(blob string, err error) error {
	return &CorruptError{Image: s.image.Ref, Blob: blob, Err: err}
}

// blobs streams layers, config and manifest, in this order: the manifest
// comes when all it names is there.
func (s *streamer) blobs(ctx context.Context) error {
	// A file system that finds a damaged block fails the read, so an error
	// here is damage too.
	raw, err := s.r.blob(s.image.Digest, s.image.Manifest)
	if err != nil {
		return s.corrupt(s.image.Digest, err)
	}
	blobs, err := s.image.Blobs(raw)
	if err != nil {
		return s.corrupt(s.image.Digest, err)
	}
	streamed := map[string]bool{}
	for _, b := range blobs {
		if streamed[b.Digest] { // two equal layers are one blob
			s.add(b.Size)
			continue
		}
		streamed[b.Digest] = true
		if err := s.stream(ctx, b); err != nil {
			return err
		}
	}
	if err := s.plain(blobPath(s.image.Digest), raw); err != nil {
		return err
	}
	s.add(int64(len(raw)))
	return nil
}

func (s *streamer) add(n int64) {
	s.done += n
	s.progress(s.done, s.image.Size)
}

// stream copies one blob into the tar.
func (s *streamer) stream(ctx context.Context, b Blob) error {
	f, err := s.r.fsys.Open(blobPath(b.Digest))
	if err != nil {
		return s.corrupt(b.Digest, err)
	}
	defer f.Close()
	if err := s.tar.WriteHeader(header(blobPath(b.Digest), b.Size)); err != nil {
		return err
	}
	sum := sha256.New()
	buf := make([]byte, 256<<10)
	var n int64
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		got, err := f.Read(buf)
		if n += int64(got); n > b.Size {
			return s.corrupt(b.Digest, fmt.Errorf("longer than %d bytes", b.Size))
		}
		sum.Write(buf[:got])
		ended := errors.Is(err, io.EOF)
		if err != nil && !ended {
			return s.corrupt(b.Digest, err)
		}
		if ended && n != b.Size {
			return s.corrupt(b.Digest, fmt.Errorf("%d bytes instead of %d", n, b.Size))
		}
		// The last bytes are held back until the sum is right, so that the
		// archive's reader never has the whole of a bad blob.
		if n == b.Size && !bytes.Equal(sum.Sum(nil), hexDigest(b.Digest)) {
			return s.corrupt(b.Digest, fmt.Errorf("it hashes to sha256:%x", sum.Sum(nil)))
		}
		if _, err := s.tar.Write(buf[:got]); err != nil {
			return err
		}
		if got > 0 {
			s.add(int64(got))
		}
		if ended {
			return nil
		}
	}
}

// plain writes a small member whose bytes are known to be right.
func (s *streamer) plain(name string, data []byte) error {
	if err := s.tar.WriteHeader(header(name, int64(len(data)))); err != nil {
		return err
	}
	_, err := s.tar.Write(data)
	return err
}

func header(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)}
}

func hexDigest(dgst string) []byte {
	b, _ := hex.DecodeString(strings.TrimPrefix(dgst, "sha256:"))
	return b
}
