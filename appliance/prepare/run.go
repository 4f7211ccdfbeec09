// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/compose/depot"
	"github.com/holdfast/holdfast/compose/release"
	"github.com/holdfast/holdfast/images/chunk"
	"github.com/holdfast/holdfast/images/durable"
)

// Names on state and in a release's folder.
const (
	// UKIFile and BootFile are kernel image and systemd-boot in a release's
	// folder; they lie there from their fetching on until somebody removes
	// them.
	UKIFile  = "uki.efi"
	BootFile = "boot.efi"

	releasesDir = "releases"
	imagesDir   = "images"
	lockFile    = "upgrade/prepare.lock"

	stateVolume = "the state volume"
)

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// ReleaseDir is the folder of a release on state, by its manifest's digest.
func ReleaseDir(state, digest string) string {
	return filepath.Join(state, releasesDir, hexOf(digest))
}

// run is one run.
type run struct {
	q      Request
	depot  depot.Depot
	folder string
	desc   release.Description
	meter  meter
	// contents are folders of layouts whose blobs are copied.
	contents   []string
	buffers    pool
	runBuffers pool
}

// Run brings the release and returns when all of it is on the box and right.
// Its errors are *RefusedError, *SourceError, *UnreachableError, *NoRoomError,
// ErrBusy, the context's, or of the box's own disks.
func Run(ctx context.Context, q Request, report func(Progress)) (Result, error) {
	if !digestForm.MatchString(q.Digest) || q.ManifestSize < 1 || q.ManifestSize > release.MaxManifest {
		return Result{}, fmt.Errorf("a release manifest of %d bytes with the digest %q can't be asked for", q.ManifestSize, q.Digest)
	}
	unlock, err := alone(q.State)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	d, err := depot.Open(ctx, q.Ref, options(q))
	if err != nil {
		return Result{}, &SourceError{"the release", err}
	}
	defer d.Close()
	return from(ctx, d, q, report)
}

// from is Run at an opened place.
func from(ctx context.Context, d depot.Depot, q Request, report func(Progress)) (Result, error) {
	if !q.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, q.Deadline, errDeadline)
		defer cancel()
	}
	r := &run{q: q, depot: d, folder: ReleaseDir(q.State, q.Digest)}
	r.meter = meter{parts: map[string]Part{}, report: report}
	if q.RunningDigest != "" {
		r.contents = append(r.contents, ReleaseDir(q.State, q.RunningDigest))
	}
	r.contents = append(r.contents, q.Contents...)
	stop := r.meter.run()
	defer stop()
	if err := r.all(ctx); err != nil {
		return Result{}, err
	}
	return r.result(), nil
}

func options(q Request) depot.Options {
	o := depot.Options{Limit: q.Limit}
	if p := q.Proxy; p != nil {
		c := httpproxy.Config{HTTPProxy: p.HTTP, HTTPSProxy: p.HTTPS, NoProxy: strings.Join(p.NoProxy, ",")}
		choose := c.ProxyFunc()
		o.Proxy = func(req *http.Request) (*url.URL, error) { return choose(req.URL) }
	}
	if q.Stick != "" {
		o.Mount = func(context.Context) (string, func() error, error) {
			return q.Stick, func() error { return nil }, nil
		}
	}
	return o
}

// alone keeps a second run away: a daemon that was restarted may start one
// while the first still writes.
func alone(state string) (unlock func(), err error) {
	path := filepath.Join(state, lockFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, err
	}
	return func() { f.Close() }, nil
}

// all is the order of the work: what is small and says how much there is, room,
// then the large parts.
func (r *run) all(ctx context.Context) error {
	for _, dir := range []string{r.folder, ImagesDir(r.q.State)} {
		if err := makeLayout(dir); err != nil {
			return full(err, stateVolume)
		}
	}
	if err := r.describe(ctx); err != nil {
		return err
	}
	images, err := r.manifests(ctx)
	if err != nil {
		return err
	}
	var slot slotFile
	if r.q.Target != "" {
		if slot, err = openSlot(r.q.Target, r.q.Running); err != nil {
			return err
		}
		defer slot.Close()
	}
	if err := r.clones(ctx, images); err != nil {
		return err
	}
	if err := r.room(slot, images); err != nil {
		return err
	}
	rootIndex, ukiIndex, err := r.small(ctx)
	if err != nil {
		return err
	}
	if r.q.Target != "" {
		if err := r.uki(ctx, ukiIndex, filepath.Join(r.folder, UKIFile)); err != nil {
			return err
		}
		if err := r.boot(ctx); err != nil {
			return err
		}
		if err := r.root(ctx, slot, rootIndex); err != nil {
			return err
		}
	}
	if err := r.images(ctx, images); err != nil {
		return err
	}
	r.meter.step("end", "the release is on the box", 0)
	return nil
}

// makeLayout makes the folders of a layout, durably: a blob that is on disk
// must not be in a folder that is not.
func makeLayout(dir string) error {
	blobs := filepath.Join(dir, blobDir)
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	for d := filepath.Dir(blobs); ; d = filepath.Dir(d) {
		if err := durable.SyncDir(d); err != nil {
			return err
		}
		if d == filepath.Dir(dir) {
			break
		}
	}
	return durable.SyncDir(filepath.Dir(filepath.Dir(dir)))
}

// describe brings the manifest and the description.
func (r *run) describe(ctx context.Context) error {
	r.meter.step("description", "the release's description", r.q.ManifestSize)
	m := release.PartBlob{Digest: r.q.Digest, Size: r.q.ManifestSize}
	raw, err := r.read(ctx, "the release manifest", m, blobIn(r.folder, m.Digest), r.contents)
	if err != nil {
		return err
	}
	config, layers, err := release.ParseManifest(raw)
	if err != nil {
		return &RefusedError{"its manifest", "can't be used: " + err.Error()}
	}
	if raw, err = r.read(ctx, "the release's description", config, blobIn(r.folder, config.Digest), r.contents); err != nil {
		return err
	}
	if r.desc, err = release.ParseDescription(raw); err == nil {
		err = r.desc.Matches(layers)
	}
	if err != nil {
		return &RefusedError{"its description", "can't be used: " + err.Error()}
	}
	if r.desc.Parts == nil {
		return &RefusedError{"its description", "names no kernel image and no root: it is a factory's, not one to upgrade to"}
	}
	// The folder is a layout from now on; what is missing in it is missed by
	// whoever opens it. Written before room is looked at: nothing after that
	// needs any but what was taken.
	if err := durable.WriteFile(filepath.Join(r.folder, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
		return full(err, stateVolume)
	}
	stack := layers[0].PartBlob
	return r.anew(ctx, "the stack's files", stack, blobIn(r.folder, stack.Digest))
}

// small brings what is small besides: chunk indexes and the bill of materials.
func (r *run) small(ctx context.Context) (root, uki chunk.Index, err error) {
	p := r.desc.Parts
	r.meter.step("description", "the chunk indexes", p.RootChunks.Size+p.UKIChunks.Size+p.SBOM.Size)
	if root, err = r.index(ctx, "the root image's chunk index", p.RootChunks, p.Root.Size); err != nil {
		return root, uki, err
	}
	if uki, err = r.index(ctx, "the kernel image's chunk index", p.UKIChunks, p.UKI.Size); err != nil {
		return root, uki, err
	}
	return root, uki, r.anew(ctx, "the bill of materials", p.SBOM, blobIn(r.folder, p.SBOM.Digest))
}

func (r *run) index(ctx context.Context, what string, b release.PartBlob, size int64) (chunk.Index, error) {
	raw, err := r.read(ctx, what, b, blobIn(r.folder, b.Digest), r.contents)
	if err != nil {
		return chunk.Index{}, err
	}
	x, err := chunk.Decode(raw, size)
	if err == nil && x.Size != size {
		err = fmt.Errorf("it is of a file of %d bytes, not %d", x.Size, size)
	}
	if err != nil {
		return chunk.Index{}, &RefusedError{what, "can't be used: " + err.Error()}
	}
	return x, nil
}

// boot brings systemd-boot, which seldom changes: also from the running
// release's folder.
func (r *run) boot(ctx context.Context) error {
	p, path := r.desc.Parts.Boot, filepath.Join(r.folder, BootFile)
	r.meter.step("boot", "the boot loader", p.Size)
	var others []string
	if r.q.RunningDigest != "" {
		others = append(others, filepath.Join(ReleaseDir(r.q.State, r.q.RunningDigest), BootFile))
	}
	return r.anew(ctx, "the boot loader", p, path, others...)
}

func (r *run) result() Result {
	r.meter.mu.Lock()
	defer r.meter.mu.Unlock()
	delete(r.meter.parts, "end")
	out := Result{Folder: r.folder, Name: r.desc.Name, Version: r.desc.Version, RootHash: r.desc.OS.RootHash,
		Fetched: r.meter.p.Fetched, Reused: r.meter.p.Reused, Parts: r.meter.parts}
	if r.q.Target != "" {
		out.UKI, out.Boot = filepath.Join(r.folder, UKIFile), filepath.Join(r.folder, BootFile)
	}
	return out
}

// fileIs says whether a file is the blob.
func (r *run) fileIs(ctx context.Context, path string, b release.PartBlob) (bool, error) {
	f, err := openWhole(path, b.Size)
	if err != nil {
		return false, nil
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := r.hash(ctx, sum, f); err != nil {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		return false, nil
	}
	return fmt.Sprintf("sha256:%x", sum.Sum(nil)) == b.Digest, nil
}

// finish gives a whole and right file its name.
func finish(f *os.File, path string) error {
	if err := f.Sync(); err != nil {
		return full(err, stateVolume)
	}
	return durable.Rename(path+unverified, path)
}

var _ io.ReaderAt = slotFile{}
