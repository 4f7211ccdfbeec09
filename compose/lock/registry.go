// SPDX-License-Identifier: Apache-2.0

package lock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/holdfast/holdfast/compose/stack"
)

const (
	// askFor bounds one question to a registry; layers are not fetched here.
	askFor = 2 * time.Minute
	// maxIndex bounds an index or manifest: registries refuse more than 4 MiB
	// (distribution-spec, "pushing manifests").
	maxIndex = 4 << 20
)

// platform is the one a box has.
var platform = v1.Platform{OS: "linux", Architecture: "amd64"}

// Annotations that name an image in an OCI layout: image-spec's, which tools
// fill with a tag or a whole reference, and containerd's whole reference.
const (
	annotationRef  = "org.opencontainers.image.ref.name"
	annotationName = "io.containerd.image.name"
)

// RegistryOptions say how registries are asked. Credentials come from the
// Docker configuration of whoever runs the program, if there is one.
type RegistryOptions struct {
	// Offline asks no registry: what no layout has is not found.
	Offline bool
	// Insecure allows plain HTTP and unverified TLS.
	Insecure bool
	// Transport replaces the default one.
	Transport http.RoundTripper
}

// NotFoundError is an image that no source has.
type NotFoundError struct {
	// Image is the reference as asked for, with the digest if there is one.
	Image string
	// Searched are the places, in order, each with why it had nothing.
	Searched []string
}

func (e *NotFoundError) Error() string {
	if len(e.Searched) == 0 {
		return e.Image + ": there is no source to take it from; name an OCI layout that has it, or allow registries"
	}
	return fmt.Sprintf("%s is in no source; searched %s; build or pull it, or name an OCI layout that has it",
		e.Image, strings.Join(e.Searched, ", "))
}

// ResolveImages pins references, as a Compose file writes them with or
// without a digest, to the manifest of their linux/amd64 image: from the
// first OCI layout that has it, else from its registry. The result is sorted
// by reference, each once. All images that are in no source are in the error.
func ResolveImages(ctx context.Context, refs []string, layouts []string, registry RegistryOptions) ([]Image, error) {
	var out []Image
	var errs []error
	for _, image := range refs {
		ref, dgst, err := stack.SplitImage(image)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		asking, stop := context.WithTimeoutCause(ctx, askFor, fmt.Errorf("no answer about %s within %s", image, askFor))
		im, err := resolve(asking, ref, dgst, layouts, registry)
		if cause := context.Cause(asking); err != nil && cause != nil {
			err = cause
		}
		stop()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, im)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return sortImages(out), nil
}

func resolve(ctx context.Context, ref, dgst string, layouts []string, registry RegistryOptions) (Image, error) {
	img, err := open(ctx, ref, dgst, layouts, registry)
	if err != nil {
		return Image{}, err
	}
	digest, err := img.Digest()
	if err != nil {
		return Image{}, fmt.Errorf("%s: %w", ref, err)
	}
	m, err := img.Manifest()
	if err != nil {
		return Image{}, fmt.Errorf("%s: %w", ref, err)
	}
	size, err := img.Size()
	if err != nil {
		return Image{}, fmt.Errorf("%s: %w", ref, err)
	}
	size += m.Config.Size
	for _, l := range m.Layers {
		size += l.Size
	}
	return Image{Ref: ref, Digest: digest.String(), Size: size}, nil
}

// Open returns the image that a lock pins, from the first OCI layout that has
// its digest, else from its registry; its layers are read when asked for. The
// manifest's digest is checked here, each layer's by whoever reads it.
func Open(ctx context.Context, img Image, layouts []string, registry RegistryOptions) (v1.Image, error) {
	got, err := open(ctx, img.Ref, img.Digest, layouts, registry)
	if err != nil {
		return nil, err
	}
	if d, err := got.Digest(); err != nil || d.String() != img.Digest {
		return nil, errors.Join(fmt.Errorf("%s: got the image %s where %s is locked", img.Ref, d, img.Digest), err)
	}
	return got, nil
}

// open finds an image, checks its manifest and that a box can run it.
func open(ctx context.Context, ref, dgst string, layouts []string, registry RegistryOptions) (v1.Image, error) {
	image := ref
	if dgst != "" {
		image += "@" + dgst
	}
	missing := &NotFoundError{Image: image}
	for _, dir := range layouts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		img, err := fromLayout(dir, ref, dgst)
		if err != nil {
			return nil, fmt.Errorf("%s: OCI layout %s: %w", image, dir, err)
		}
		if img != nil {
			return img, runnable(image, img)
		}
		why := "the OCI layout " + dir
		if _, err := os.Stat(dir); err != nil {
			why += " (no such folder)"
		}
		missing.Searched = append(missing.Searched, why)
	}
	if registry.Offline {
		return nil, missing
	}
	img, host, err := fromRegistry(ctx, image, registry)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		missing.Searched = append(missing.Searched, fmt.Sprintf("the registry %s (%s)", host, oneLine(err)))
		return nil, missing
	}
	return img, runnable(image, img)
}

func runnable(image string, img v1.Image) error {
	c, err := img.ConfigFile()
	if err != nil {
		return fmt.Errorf("%s: image config: %w", image, err)
	}
	if c.OS != platform.OS || c.Architecture != platform.Architecture {
		return fmt.Errorf("%s is for %s/%s; a box is %s", image, c.OS, c.Architecture, platform.String())
	}
	return nil
}

func fromRegistry(ctx context.Context, image string, o RegistryOptions) (v1.Image, string, error) {
	opts := []name.Option{}
	if o.Insecure {
		opts = append(opts, name.Insecure)
	}
	ref, err := name.ParseReference(image, opts...)
	if err != nil {
		return nil, "?", err
	}
	remoteOpts := []remote.Option{remote.WithContext(ctx), remote.WithPlatform(platform),
		remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	if o.Transport != nil {
		remoteOpts = append(remoteOpts, remote.WithTransport(o.Transport))
	}
	img, err := remote.Image(ref, remoteOpts...)
	return img, ref.Context().RegistryStr(), err
}

// fromLayout finds an image in an OCI layout, nil where it has none: by
// digest where one is given, else by the annotations that name it.
func fromLayout(dir, ref, dgst string) (v1.Image, error) {
	st, err := os.Stat(filepath.Join(dir, "index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if st.Size() > maxIndex {
		return nil, fmt.Errorf("index.json has more than %d MiB", maxIndex>>20)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	wanted := func(d v1.Descriptor) bool { return d.Digest.String() == dgst }
	if dgst == "" {
		full := ref
		if n, err := reference.ParseNormalizedNamed(ref); err == nil {
			full = reference.TagNameOnly(n).String()
		}
		wanted = func(d v1.Descriptor) bool {
			a, b := d.Annotations[annotationRef], d.Annotations[annotationName]
			return a == ref || b == ref || a == full || b == full
		}
	}
	found, parent, err := search(index, wanted, dgst != "", 0)
	if err != nil || found == nil {
		return nil, err
	}
	if found.MediaType.IsIndex() {
		sub, err := parent.ImageIndex(found.Digest)
		if err != nil {
			return nil, err
		}
		forBox := func(d v1.Descriptor) bool {
			return d.MediaType.IsImage() && d.Platform != nil && d.Platform.OS == platform.OS && d.Platform.Architecture == platform.Architecture
		}
		child, _, err := search(sub, forBox, false, 0)
		if err != nil {
			return nil, err
		}
		if child == nil {
			return nil, fmt.Errorf("the index %s has no image for %s", found.Digest, platform.String())
		}
		found, parent = child, sub
	}
	img, err := parent.Image(found.Digest)
	if err != nil {
		return nil, err
	}
	// A layout is a folder anybody may have written to, and go-containerregistry
	// believes its file names.
	raw, err := img.RawManifest()
	if err != nil {
		return nil, err
	}
	if h, _, err := v1.SHA256(strings.NewReader(string(raw))); err != nil || h != found.Digest {
		return nil, fmt.Errorf("the manifest %s is damaged: it hashes to %s", found.Digest, h)
	}
	return img, nil
}

// search finds the one descriptor that is wanted, and the index that holds
// it; deep looks into indexes inside. Two different ones are an error.
func search(index v1.ImageIndex, wanted func(v1.Descriptor) bool, deep bool, depth int) (*v1.Descriptor, v1.ImageIndex, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return nil, nil, err
	}
	var found *v1.Descriptor
	for _, d := range m.Manifests {
		if !wanted(d) || !d.MediaType.IsImage() && !d.MediaType.IsIndex() {
			continue
		}
		if found != nil && found.Digest != d.Digest {
			return nil, nil, fmt.Errorf("both %s and %s have this name", found.Digest, d.Digest)
		}
		found = &d
	}
	if found != nil || !deep || depth > 2 {
		return found, index, nil
	}
	for _, d := range m.Manifests {
		if !d.MediaType.IsIndex() {
			continue
		}
		sub, err := index.ImageIndex(d.Digest)
		if err != nil {
			return nil, nil, err
		}
		if found, parent, err := search(sub, wanted, deep, depth+1); err != nil || found != nil {
			return found, parent, err
		}
	}
	return nil, nil, nil
}
