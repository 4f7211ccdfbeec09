// SPDX-License-Identifier: Apache-2.0

package lock

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Push writes to one repository, with the credentials of the Docker
// configuration of whoever runs the program.
type Push struct {
	repo    name.Repository
	options []name.Option
}

// NewPush is the repository HOST/PATH; insecure allows plain HTTP. Nothing is
// asked yet.
func NewPush(ref string, insecure bool) (*Push, error) {
	p := &Push{}
	if insecure {
		p.options = append(p.options, name.Insecure)
	}
	var err error
	if p.repo, err = name.NewRepository(ref, p.options...); err != nil {
		return nil, fmt.Errorf("%q is no repository, write it like registry.example.com/demo: %w", ref, err)
	}
	return p, nil
}

// Has says whether a manifest is there, by its digest.
func (p *Push) Has(ctx context.Context, digest string) (bool, error) {
	_, err := remote.Head(p.repo.Digest(digest), remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	var said *transport.Error
	if errors.As(err, &said) && said.StatusCode == http.StatusNotFound {
		return false, nil
	}
	return err == nil, err
}

// Put writes a manifest under a tag or its digest, and first all blobs it names
// that are not there yet: a registry takes it only when it has them.
func (p *Push) Put(ctx context.Context, as string, img v1.Image) error {
	var ref name.Reference = p.repo.Digest(as)
	if !strings.Contains(as, ":") {
		tag, err := name.NewTag(p.repo.Name()+":"+as, p.options...)
		if err != nil {
			return err
		}
		ref = tag
	}
	return remote.Write(ref, img, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
}
