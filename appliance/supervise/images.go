// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
)

// Images is what loading images needs of an engine.
type Images interface {
	HasImage(ctx context.Context, ref string) (bool, error)
	LoadImage(ctx context.Context, r io.Reader, limit time.Duration) error
}

// Image is one image the stack needs.
type Image struct {
	// Ref as the Compose file writes it; for people.
	Ref string
	// Pinned is NAME@DIGEST, what the engine must resolve.
	Pinned string
	Digest string
	// Size in bytes of manifest, config and layers.
	Size int64
}

// Source streams an image as the OCI-layout tar that docker load takes. It
// checks each blob while it streams and fails before the tar is complete when
// one is bad.
type Source interface {
	WriteImage(ctx context.Context, w io.Writer, digest string, progress func(done, total int64)) error
}

// Fetcher is a Source whose images lie elsewhere: each is brought to the box,
// and verified, before the engine is offered it.
type Fetcher interface {
	Source
	// Need says which images, by digest, will be asked for. What the source
	// keeps of others is removed.
	Need(digests []string) error
	// Fetch returns when all of one image is at hand, however long that takes,
	// or with why it can't be had. report is called from one goroutine.
	Fetch(ctx context.Context, digest string, report func(Fetching)) error
	// Loaded says that the engine has an image: its bytes are of no more use.
	Loaded(digest string) error
}

// ErrCopyDamaged is what WriteImage of a Fetcher says when its own copy of a
// blob went bad: it has let go of it, and fetches it anew.
var ErrCopyDamaged = errors.New("the fetched copy is damaged")

// Fetching is how far a Fetcher is with all images that are needed.
type Fetching struct {
	// Done and Total are bytes, Rate bytes a second over the last seconds.
	Done, Total, Rate int64
	// Left is how long the rest takes at this rate, 0 where nobody knows.
	Left time.Duration
	// Waiting is why no bytes come, "" while they do.
	Waiting string
}

// Progress tells how far the loading of one image is.
type Progress struct {
	Image string
	// Done and Total are bytes of the image, Number of Count the images.
	Done, Total   int64
	Number, Count int
	// End is true once the image is loaded and resolves.
	End bool
	// Fetching is set while the image is being fetched, before it is loaded.
	Fetching *Fetching
}

// LoadLimit bounds the load of an image of size bytes: five minutes for the
// engine, and the slowest disk worth waiting for, 2 MB/s, for the bytes.
func LoadLimit(size int64) time.Duration {
	return 5*time.Minute + time.Duration(size/2_000_000)*time.Second
}

// loadTries is how often one image is offered to the engine. A load that was
// cut off, by a power cut say, leaves the part of the blob it was in, and the
// next load resumes there without a look at it: containerd 1.7 then stores a
// wrong blob and says that the right one is missing. That used the rest up,
// so the load after it begins anew.
const loadTries = 3

// LoadImages makes every image resolve in the engine. One that resolves
// already is not read again. Nothing of an image that fails its check is
// taken by the engine: the error is the source's.
func LoadImages(ctx context.Context, e Images, src Source, images []Image, report func(Progress)) error {
	var missing []Image
	for _, im := range images {
		ok, err := e.HasImage(ctx, im.Pinned)
		if err != nil {
			return err
		}
		if !ok {
			missing = append(missing, im)
		}
	}
	fetcher, _ := src.(Fetcher)
	if fetcher != nil {
		var need []string
		for _, im := range missing {
			need = append(need, im.Digest)
		}
		if err := fetcher.Need(need); err != nil {
			return err
		}
	}
	loaded := map[string]bool{}
	for i, im := range missing {
		// One load brings all names of an image.
		if loaded[im.Digest] {
			if ok, err := e.HasImage(ctx, im.Pinned); err != nil {
				return err
			} else if ok {
				continue
			}
		}
		p := Progress{Image: im.Ref, Total: im.Size, Number: i + 1, Count: len(missing)}
		for try := 1; ; try++ {
			if fetcher != nil {
				at := p
				err := fetcher.Fetch(ctx, im.Digest, func(f Fetching) {
					at.Fetching = &f
					report(at)
				})
				if err != nil {
					return fmt.Errorf("image %s: %w", im.Ref, err)
				}
			}
			again, err := loadOne(ctx, e, src, im, func(done, total int64) {
				p.Done, p.Total = done, total
				report(p)
			})
			if err == nil {
				break
			}
			if !again || try == loadTries {
				return err
			}
		}
		p.Done, p.End = p.Total, true
		report(p)
		if fetcher != nil && !loaded[im.Digest] {
			if err := fetcher.Loaded(im.Digest); err != nil {
				return err
			}
		}
		loaded[im.Digest] = true
	}
	return nil
}

// loadOne offers an image once; again says whether another try makes sense.
func loadOne(ctx context.Context, e Images, src Source, im Image, progress func(done, total int64)) (again bool, err error) {
	r, w := io.Pipe()
	bad := make(chan error, 1)
	go func() {
		err := src.WriteImage(ctx, w, im.Digest, progress)
		w.CloseWithError(err) // nil closes with io.EOF: the tar is complete
		bad <- err
	}()
	err = e.LoadImage(ctx, r, LoadLimit(im.Size))
	// Ends a writer that the engine has stopped reading from.
	r.CloseWithError(errors.New("the engine stopped reading"))
	cause := <-bad
	if err != nil {
		// The source's own error says more than what the engine made of the
		// broken stream, unless it only echoes ours.
		if cause != nil && errors.Is(err, cause) {
			return errors.Is(cause, ErrCopyDamaged), fmt.Errorf("image %s: %w", im.Ref, cause)
		}
		again = !errors.Is(err, engine.ErrUnreachable) && ctx.Err() == nil
		return again, fmt.Errorf("image %s: %w", im.Ref, err)
	}
	if cause != nil {
		return errors.Is(cause, ErrCopyDamaged), fmt.Errorf("image %s: %w", im.Ref, cause)
	}
	ok, err := e.HasImage(ctx, im.Pinned)
	if err != nil {
		return false, err
	}
	if !ok {
		return true, fmt.Errorf("image %s: the engine took it and does not resolve %s: it must use the containerd image store (\"features\": {\"containerd-snapshotter\": true} in daemon.json)", im.Ref, im.Pinned)
	}
	return false, nil
}
