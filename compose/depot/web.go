// SPDX-License-Identifier: Apache-2.0

package depot

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/holdfast/holdfast/compose/lock"
)

// web is a layout in a folder of a web server.
type web struct {
	*ranged
	base *url.URL
}

func openWeb(ref string, o Options) (Depot, error) {
	u, err := url.Parse(ref)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is no address of a folder: write it like https://updates.example.com/demo", redact(ref))
	}
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/"), ""
	w := &web{base: u}
	w.ranged = newRanged(u.Redacted(), newLine(o, u.Scheme == "https"), func(ctx context.Context, digest string, offset, length int64) (lock.Part, error) {
		return w.get(ctx, blobPath(digest), fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	})
	return w, nil
}

func (w *web) get(ctx context.Context, name, span string) (lock.Part, error) {
	u := *w.base
	u.Path += "/" + name
	return lock.Get(ctx, w.line.client, u.String(), "", span)
}

func (w *web) Metadata(ctx context.Context, name string, limit int64) ([]byte, error) {
	if err := checkMeta(name); err != nil {
		return nil, err
	}
	b, err := w.read(ctx, name, limit, func(ctx context.Context) (lock.Part, error) {
		return w.get(ctx, metaDir+"/"+name, "")
	})
	var said *lock.AnswerError
	// Object stores hide what is not there behind 403.
	if errors.As(err, &said) && (said.Status == http.StatusNotFound || said.Status == http.StatusForbidden || said.Status == http.StatusGone) {
		return nil, missing(w.name, metaDir+"/"+name)
	}
	return b, err
}
