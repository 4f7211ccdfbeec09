// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/holdfast/holdfast/compose/depot"
	"github.com/holdfast/holdfast/compose/lock"
	"github.com/holdfast/holdfast/compose/trust"
)

// Media types of the metadata in a registry.
const (
	metadataType       = "application/vnd.holdfast.tuf.v1+json"
	metadataConfigType = "application/vnd.holdfast.tuf.config.v1+json"
	metadataTag        = "tuf"
	titleAnnotation    = "org.opencontainers.image.title"
)

// repoDest is one repository of an OCI registry.
type repoDest struct {
	depot.Depot
	push *lock.Push
}

func openRepo(ctx context.Context, to string) (dest, error) {
	scheme, rest, _ := strings.Cut(to, "://")
	push, err := lock.NewPush(rest, scheme == "oci+http")
	if err != nil {
		return nil, usageError{fmt.Errorf("--to: %w", err)}
	}
	d, err := depot.Open(ctx, to, depot.Options{Proxy: http.ProxyFromEnvironment})
	if err != nil {
		return nil, err
	}
	return &repoDest{Depot: d, push: push}, nil
}

func (r *repoDest) close() error { return r.Close() }

// release pushes each image by its digest, then the release by its version.
func (r *repoDest) release(ctx context.Context, l *local, out io.Writer) (n int64, err error) {
	for _, im := range l.desc.Images {
		if have, err := r.push.Has(ctx, im.Digest); err != nil {
			return n, err
		} else if have {
			continue
		}
		img, err := imageAt(l.paths[im.Digest], im.Digest)
		if err != nil {
			return n, err
		}
		fmt.Fprintf(out, "%s: %s\n", l.name(), im.Ref)
		if err := r.push.Put(ctx, im.Digest, img); err != nil {
			return n, err
		}
		n += im.Size
	}
	img, err := imageAt(l.paths[l.digest], l.digest)
	if err != nil {
		return n, err
	}
	have, err := r.push.Has(ctx, l.digest)
	if err != nil {
		return n, err
	}
	fmt.Fprintf(out, "%s: system and stack\n", l.name())
	if err := r.push.Put(ctx, tagOf(l.desc.Version), img); err != nil {
		return n, err
	}
	if !have {
		m, err := img.Manifest()
		if err != nil {
			return n, err
		}
		for _, layer := range m.Layers {
			n += layer.Size
		}
	}
	return n, nil
}

// imageAt is an image, or the release, in the layout that its manifest is in.
func imageAt(manifest, digest string) (v1.Image, error) {
	h, err := v1.NewHash(digest)
	if err != nil {
		return nil, err
	}
	dir := strings.TrimSuffix(manifest, "/"+blobName(digest))
	p, err := layout.FromPath(dir)
	if err != nil {
		return nil, err
	}
	return blobImage{p, h}, nil
}

// metadata pushes all files as one manifest: its tag moves at once.
func (r *repoDest) metadata(ctx context.Context, files []trust.File) error {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), metadataConfigType)
	for _, f := range files {
		var err error
		img, err = mutate.Append(img, mutate.Addendum{
			Layer: static.NewLayer(f.Data, metadataType), Annotations: map[string]string{titleAnnotation: f.Name},
		})
		if err != nil {
			return err
		}
	}
	return r.push.Put(ctx, metadataTag, img)
}

// tagOf is a version as a tag, which may not have a plus sign.
func tagOf(version string) string { return strings.ReplaceAll(version, "+", "_") }
