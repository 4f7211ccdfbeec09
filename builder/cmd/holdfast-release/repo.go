// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/holdfast/holdfast/compose/depot"
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
	repo name.Repository
}

func openRepo(ctx context.Context, to string) (dest, error) {
	scheme, rest, _ := strings.Cut(to, "://")
	var options []name.Option
	if scheme == "oci+http" {
		options = append(options, name.Insecure)
	}
	repo, err := name.NewRepository(rest, options...)
	if err != nil {
		return nil, usageError{fmt.Errorf("--to: %s is no repository, write it like oci://registry.example.com/demo: %w", to, err)}
	}
	d, err := depot.Open(ctx, to, depot.Options{Proxy: http.ProxyFromEnvironment})
	if err != nil {
		return nil, err
	}
	return &repoDest{Depot: d, repo: repo}, nil
}

func (r *repoDest) close() error { return r.Close() }

func (r *repoDest) options(ctx context.Context) []remote.Option {
	return []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
}

// release pushes each image by its digest, then the release by its version:
// a registry takes a manifest only when it has all that it names.
func (r *repoDest) release(ctx context.Context, l *local, out io.Writer) (n int64, err error) {
	var tag name.Tag
	if tag, err = name.NewTag(r.repo.Name()+":"+tagOf(l.desc.Version), r.nameOptions()...); err != nil {
		return 0, err
	}
	for _, im := range l.desc.Images {
		ref := r.repo.Digest(im.Digest)
		if have, err := r.has(ctx, ref); err != nil {
			return n, err
		} else if have {
			continue
		}
		img, err := imageAt(l.paths[im.Digest], im.Digest)
		if err != nil {
			return n, err
		}
		fmt.Fprintf(out, "%s: %s\n", l.name(), im.Ref)
		if err := remote.Write(ref, img, r.options(ctx)...); err != nil {
			return n, err
		}
		n += im.Size
	}
	img, err := imageAt(l.paths[l.digest], l.digest)
	if err != nil {
		return n, err
	}
	have, err := r.has(ctx, r.repo.Digest(l.digest))
	if err != nil {
		return n, err
	}
	fmt.Fprintf(out, "%s: system and stack\n", l.name())
	if err := remote.Write(tag, img, r.options(ctx)...); err != nil {
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

func (r *repoDest) nameOptions() []name.Option {
	if r.repo.Scheme() == "http" {
		return []name.Option{name.Insecure}
	}
	return nil
}

func (r *repoDest) has(ctx context.Context, ref name.Reference) (bool, error) {
	_, err := remote.Head(ref, r.options(ctx)...)
	var said *transport.Error
	if errors.As(err, &said) && said.StatusCode == http.StatusNotFound {
		return false, nil
	}
	return err == nil, err
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
	tag, err := name.NewTag(r.repo.Name()+":"+metadataTag, r.nameOptions()...)
	if err != nil {
		return err
	}
	return remote.Write(tag, img, r.options(ctx)...)
}

// tagOf is a version as a tag, which may not have a plus sign.
func tagOf(version string) string { return strings.ReplaceAll(version, "+", "_") }
