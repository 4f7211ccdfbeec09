// SPDX-License-Identifier: Apache-2.0

// Package fetch brings the images of a release that lists them and does not
// hold them (factory = seed): blob by blob from an OCI layout on the box, from
// a mirror, or from the image's own registry, whoever has it first.
//
// What a blob must be, digest and size, follows from the signed description;
// a source is trusted with nothing, and no more is read from it than that
// size. A blob lies under an unverified name until it is whole and right, is
// gone on with after a broken connection or a lost power, and is removed once
// the engine has its image. Transient errors are retried for ever; the package
// refuses only what no source can mend, and starts nothing.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast/holdfast/appliance/supervise"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/compose/release"
)

const (
	// stall is how long a registry may say nothing before it is asked anew.
	stall = time.Minute
	// workers fetch blobs of one image side by side, as many as Docker does.
	workers = 3
	// damagedTries is how often a copy that went bad is fetched anew before
	// the disk, not the source, must be at fault.
	damagedTries = 5
)

// Options say where images may come from. Only Dir is needed.
type Options struct {
	// Dir is the folder on state for blobs that are being fetched.
	Dir string
	// Layouts are OCI layout folders, looked through in this order before the
	// network is; they need not be there, and may come while the box waits.
	Layouts []string
	// Mirrors are addresses, "https://HOST[:PORT][/PREFIX]", to ask in this
	// order before a registry ("docker.io") itself. It is called for each
	// round, because the configuration may change while a box waits.
	Mirrors func(registry string) []string
	// Proxy chooses the proxy of each request; nil uses none.
	Proxy func(*http.Request) (*url.URL, error)

	// Transport replaces the default one, and Proxy with it.
	Transport http.RoundTripper
	// Free is the room, in bytes, on the file system of a folder.
	Free func(dir string) (int64, error)
	// Jitter in [0,1) spreads retries.
	Jitter func() float64
}

// Source fetches the images of one release. It implements supervise.Fetcher;
// its methods are called from one goroutine.
type Source struct {
	rel    *release.Release
	o      Options
	images map[string]release.Image
	store  *store
	meter  meter

	mu sync.Mutex
	// remotes that were asked before, by reference and mirror: they know how
	// they want to be asked.
	remotes map[[2]string]*lock.Remote

	needed []string
	// planned is true once the manifests of all needed images are at hand and
	// there is room for them.
	planned bool
}

var _ supervise.Fetcher = (*Source)(nil)

// New prepares a source for a release.
func New(rel *release.Release, o Options) *Source {
	if o.Transport == nil {
		o.Transport = &http.Transport{
			Proxy:       o.Proxy,
			DialContext: (&net.Dialer{Timeout: 30 * time.Second}).DialContext, TLSHandshakeTimeout: 30 * time.Second,
			ForceAttemptHTTP2: true, MaxIdleConnsPerHost: workers, IdleConnTimeout: 90 * time.Second,
			// Blobs are compressed as they are, and sizes must stay what they are.
			DisableCompression: true,
		}
	}
	if o.Free == nil {
		o.Free = free
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	if o.Mirrors == nil {
		o.Mirrors = func(string) []string { return nil }
	}
	s := &Source{rel: rel, o: o, images: map[string]release.Image{}, remotes: map[[2]string]*lock.Remote{}}
	s.store = &store{dir: o.Dir, layouts: o.Layouts}
	for _, im := range rel.Description().Images {
		s.images[im.Digest] = im
	}
	return s
}

// remote is where one image is asked for: a mirror, or "" for its own registry.
func (s *Source) remote(ref, mirror string) (*lock.Remote, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := [2]string{ref, mirror}
	if r := s.remotes[key]; r != nil {
		return r, nil
	}
	r, err := lock.NewRemote(ref, mirror, s.o.Transport)
	if err == nil {
		s.remotes[key] = r
	}
	return r, err
}

func free(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// RefusedError is an image that no source has or hands out. Asking again is of
// use only when somebody has changed something.
type RefusedError struct {
	// Image is the reference, Answers what each source said.
	Image   string
	Answers []string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s cannot be had: %s", e.Image, join(e.Answers))
}

// NoRoomError is a disk that is too small for the images.
type NoRoomError struct {
	// Need and Free are bytes; Need is 0 where the disk filled up meanwhile.
	Need, Free int64
}

func (e *NoRoomError) Error() string {
	if e.Need == 0 {
		return "the state volume filled up while the images were fetched"
	}
	return fmt.Sprintf("the images need at least %s on the state volume, and %s are free", size(e.Need), size(e.Free))
}

// Need implements supervise.Fetcher.
func (s *Source) Need(digests []string) error {
	for _, d := range digests {
		if _, ok := s.images[d]; !ok {
			return fmt.Errorf("the release has no image with the digest %s", d)
		}
	}
	s.needed, s.planned = slices.Clone(digests), false
	s.store.forgive()
	s.meter.start(0, 0)
	return s.sweep()
}

// Loaded implements supervise.Fetcher.
func (s *Source) Loaded(digest string) error {
	s.needed = slices.DeleteFunc(s.needed, func(d string) bool { return d == digest })
	return s.sweep()
}

// sweep removes what no needed image has. While the manifest of one is not at
// hand nobody knows what that is, and all stays.
func (s *Source) sweep() error {
	keep := map[string]bool{}
	for _, d := range s.needed {
		blobs, err := s.manifest(d)
		if err != nil {
			return s.store.sweep(nil)
		}
		keep[d] = true
		for _, b := range blobs {
			keep[b.Digest] = true
		}
	}
	return s.store.sweep(func(digest string) bool { return keep[digest] })
}

// manifest reads the manifest of an image that is at hand.
func (s *Source) manifest(digest string) ([]release.Blob, error) {
	im := s.images[digest]
	raw, err := s.store.read(digest, im.Manifest)
	if err != nil {
		return nil, err
	}
	return im.Blobs(raw)
}

// Fetch implements supervise.Fetcher. Its errors are *RefusedError,
// *NoRoomError, the context's, or of the state volume.
func (s *Source) Fetch(ctx context.Context, digest string, report func(supervise.Fetching)) error {
	im, ok := s.images[digest]
	if !ok {
		return fmt.Errorf("the release has no image with the digest %s", digest)
	}
	if err := s.store.open(); err != nil {
		return full(err)
	}
	stop := s.meter.run(report)
	defer stop()
	if !s.planned {
		if err := s.plan(ctx); err != nil {
			return err
		}
		s.planned = true
	}
	blobs, err := s.fetchManifest(ctx, im)
	if err != nil {
		return err
	}
	return s.fetchAll(ctx, im, blobs)
}

// plan brings the manifests of all needed images, so that what is missing of
// them is known before the first large blob, and looks whether it fits.
func (s *Source) plan(ctx context.Context) error {
	sizes := map[string]int64{}
	var most int64
	for _, d := range s.needed {
		im := s.images[d]
		blobs, err := s.fetchManifest(ctx, im)
		if err != nil {
			return err
		}
		missing := map[string]int64{}
		for _, b := range blobs {
			sizes[b.Digest] = b.Size
			if !s.store.has(b.Digest, b.Size) {
				missing[b.Digest] = b.Size - s.store.partial(b.Digest)
			}
		}
		most = max(most, sum(missing))
	}
	var total, done int64
	for d, n := range sizes {
		switch {
		case s.store.has(d, n):
			done += n
		default:
			done += s.store.partial(d)
		}
		total += n
	}
	s.meter.start(done, total)
	// The largest image while it is fetched, then the engine's copy of each
	// blob, and what it unpacks them to, which is never less than that.
	need := most + 2*total
	room, err := s.o.Free(s.o.Dir)
	if err != nil {
		return err
	}
	if need > room {
		return &NoRoomError{need, room}
	}
	return nil
}

func sum(m map[string]int64) (n int64) {
	for v := range maps.Values(m) {
		n += v
	}
	return n
}

// fetchManifest brings one manifest, and reads what it names.
func (s *Source) fetchManifest(ctx context.Context, im release.Image) ([]release.Blob, error) {
	for try := 1; ; try++ {
		if err := s.ensure(ctx, im, want{digest: im.Digest, size: im.Manifest, mediaType: im.MediaType}); err != nil {
			return nil, err
		}
		blobs, err := s.manifest(im.Digest)
		if err == nil {
			return blobs, nil
		}
		if err := s.store.distrust(im.Digest); err != nil {
			return nil, err
		}
		if try == damagedTries {
			return nil, fmt.Errorf("%s: its manifest: %w", im.Ref, err)
		}
	}
}

// fetchAll brings blobs side by side; the first that cannot be had ends all.
func (s *Source) fetchAll(ctx context.Context, im release.Image, blobs []release.Blob) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan want, len(blobs))
	queued := map[string]bool{}
	for _, b := range blobs {
		if !queued[b.Digest] {
			queued[b.Digest] = true
			queue <- want{digest: b.Digest, size: b.Size}
		}
	}
	close(queue)
	var wg sync.WaitGroup
	for range min(workers, len(queue)) {
		wg.Go(func() {
			for w := range queue {
				if ctx.Err() != nil {
					return
				}
				if err := s.ensure(ctx, im, w); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// WriteImage implements supervise.Source: it streams an image that Fetch has
// brought, each blob verified once more.
func (s *Source) WriteImage(ctx context.Context, w io.Writer, digest string, progress func(done, total int64)) error {
	err := s.rel.WithBlobs(s.store).WriteImage(ctx, w, digest, progress)
	var bad *release.CorruptError
	if !errors.As(err, &bad) {
		return err
	}
	if err := s.store.distrust(bad.Blob); err != nil {
		return err
	}
	// No longer a *release.CorruptError: that is a damaged factory.
	return fmt.Errorf("%w: blob %s: %v", supervise.ErrCopyDamaged, bad.Blob, bad.Err)
}
