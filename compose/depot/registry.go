// SPDX-License-Identifier: Apache-2.0

package depot

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/holdfast/holdfast/compose/lock"
)

const (
	// metaTag is the manifest whose layers are the trust metadata.
	metaTag = "tuf"
	// maxManifest: registries refuse more than 4 MiB (distribution-spec).
	maxManifest = 4 << 20
	// maxLayers of the metadata's manifest.
	maxLayers = 10_000
)

// manifestTypes are all that a registry may be asked for by digest.
var manifestTypes = strings.Join([]string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex,
	"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json"}, ", ")

// registry is one repository of an OCI registry.
type registry struct {
	*ranged
	remote *lock.Remote

	mu sync.Mutex
	// manifests are digests that the registry keeps as manifests, not blobs.
	manifests map[string]bool
	// meta are the layers of the metadata's manifest, by file name; nil before
	// it has been asked for.
	meta map[string]ocispec.Descriptor
}

func openRegistry(scheme, rest string, o Options) (Depot, error) {
	name := scheme + "://" + rest
	bad := fmt.Errorf("%q is no repository: write it like oci://registry.example.com/demo, without tag", name)
	host, path, ok := strings.Cut(rest, "/")
	named, err := reference.ParseNormalizedNamed(rest)
	if !ok || err != nil || !reference.IsNameOnly(named) || reference.Domain(named) != host || reference.Path(named) != path {
		return nil, bad
	}
	l := newLine(o, scheme == "oci")
	mirror := ""
	if scheme == "oci+http" {
		mirror, rest = "http://"+host, "registry.invalid/"+path
	}
	remote, err := lock.NewRemote(rest, mirror, capped{l.base})
	if err != nil {
		return nil, bad
	}
	r := &registry{remote: remote, manifests: map[string]bool{}}
	r.ranged = newRanged(name, l, r.ask)
	return r, nil
}

// ask asks for a blob, and where there is none for a manifest: only a registry
// knows which of its content is what.
func (r *registry) ask(ctx context.Context, digest string, offset, length int64) (lock.Part, error) {
	r.mu.Lock()
	manifest := r.manifests[digest]
	r.mu.Unlock()
	if !manifest {
		p, err := r.remote.Span(ctx, digest, offset, length)
		var said *lock.AnswerError
		if !errors.As(err, &said) || said.Status != http.StatusNotFound || offset+length > maxManifest {
			return p, err
		}
	}
	p, err := r.remote.Manifest(ctx, digest, manifestTypes)
	if err == nil {
		r.mu.Lock()
		r.manifests[digest] = true
		r.mu.Unlock()
	}
	return p, err
}

func (r *registry) Metadata(ctx context.Context, name string, limit int64) ([]byte, error) {
	if err := checkMeta(name); err != nil {
		return nil, err
	}
	// What begins a look for news must not come from an older answer.
	list, err := r.list(ctx, name == "timestamp.json" || strings.HasSuffix(name, ".root.json"))
	if err != nil {
		return nil, err
	}
	layer, ok := list[name]
	if !ok {
		return nil, missing(r.name, "metadata "+name)
	}
	if layer.Size > limit {
		return nil, fmt.Errorf("%s: %s %w: %d bytes of at most %d", r.name, name, errLong, layer.Size, limit)
	}
	if layer.Size < 1 {
		return nil, fmt.Errorf("%s: %s has %d bytes", r.name, name, layer.Size)
	}
	digest := layer.Digest.String()
	b, err := r.Blob(ctx, digest, 0, layer.Size)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	data, err := readAll(b, name, limit)
	if err != nil {
		return nil, err
	}
	if got := fmt.Sprintf("sha256:%x", sha256.Sum256(data)); got != digest {
		return nil, &Transient{fmt.Errorf("%s has other bytes under the name %s", r.name, digest)}
	}
	return data, nil
}

// list gives the layers of the metadata's manifest.
func (r *registry) list(ctx context.Context, fresh bool) (map[string]ocispec.Descriptor, error) {
	r.mu.Lock()
	list := r.meta
	r.mu.Unlock()
	if list != nil && !fresh {
		return list, nil
	}
	data, err := r.read(ctx, "the manifest tagged "+metaTag, maxManifest, func(ctx context.Context) (lock.Part, error) {
		return r.remote.Manifest(ctx, metaTag, manifestTypes)
	})
	var said *lock.AnswerError
	if errors.As(err, &said) && said.Status == http.StatusNotFound {
		return nil, missing(r.name, "releases: nothing is tagged "+metaTag)
	}
	if err != nil {
		return nil, err
	}
	if list, err = parseList(data); err != nil {
		return nil, fmt.Errorf("%s: the manifest tagged %s: %w", r.name, metaTag, err)
	}
	r.mu.Lock()
	r.meta = list
	r.mu.Unlock()
	return list, nil
}

// parseList reads the metadata's manifest.
func parseList(data []byte) (map[string]ocispec.Descriptor, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	if len(m.Layers) > maxLayers {
		return nil, fmt.Errorf("it has more than %d layers", maxLayers)
	}
	list := map[string]ocispec.Descriptor{}
	for _, layer := range m.Layers {
		name := layer.Annotations[ocispec.AnnotationTitle]
		if _, twice := list[name]; twice || !metaForm.MatchString(name) || !digestForm.MatchString(layer.Digest.String()) {
			return nil, fmt.Errorf("it has a layer %.80q with the digest %.80q, which is no metadata", name, layer.Digest)
		}
		list[name] = layer
	}
	return list, nil
}
