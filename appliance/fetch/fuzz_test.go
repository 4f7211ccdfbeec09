// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast/holdfast/compose/release"
)

// FuzzAnswer lets a registry say anything to a question about a blob, of which
// the box may have a part. What gets its name is the blob, and what is kept of
// another is no longer than it.
func FuzzAnswer(f *testing.F) {
	w := newWorld(f)
	blob := w.blobs(web)[w.own(web)][:2000]
	hash, image := digestOf(blob), w.digest(web)
	for _, s := range []struct {
		status                int
		length, span, retry   string
		body                  []byte
		have                  uint
		manifest, damagedPart bool
	}{
		{200, "2000", "", "", blob, 0, false, false},
		{206, "1000", "bytes 1000-1999/2000", "", blob[1000:], 1000, false, false},
		{206, "1500", "bytes 500-1999/*", "", blob[500:], 1000, false, false},
		{206, "1000", "bytes 1000-1999/2000", "", blob[1000:], 1000, false, true},
		{200, "2001", "", "", blob, 0, true, false},
		{200, "", "", "", append(bytes.Clone(blob), 'x'), 3, false, false},
		{429, "", "", "99999999999", nil, 0, true, false},
		{416, "", "", "", nil, 1999, false, false},
		{200, "-7", "bytes", "-1", blob[:10], 2000, false, false},
	} {
		f.Add(s.status, s.length, s.span, s.retry, s.body, s.have, s.manifest, s.damagedPart)
	}
	f.Fuzz(func(t *testing.T, status int, length, span, retry string, body []byte, have uint, manifest, damagedPart bool) {
		if status < 200 || status > 599 {
			t.Skip("no answer, but what comes before one")
		}
		wire := &wire{hosts: map[string]http.Handler{}}
		wire.plug("registry.test", http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/v2/" {
				return
			}
			for k, v := range map[string]string{"Content-Length": length, "Content-Range": span, "Retry-After": retry} {
				if v != "" {
					w.Header().Set(k, v)
				}
			}
			w.WriteHeader(status)
			w.Write(body)
		}))
		o := w.o
		o.Dir, o.Transport = t.TempDir(), wire
		s := New(w.rel, o)
		if err := s.store.open(); err != nil {
			t.Fatal(err)
		}
		part := bytes.Clone(blob[:have%uint(len(blob)+1)])
		if damagedPart && len(part) > 0 {
			part[len(part)/2] ^= 1
		}
		x := want{digest: hash, size: int64(len(blob))}
		if manifest {
			x.mediaType = "application/vnd.oci.image.manifest.v1+json"
		}
		if err := os.WriteFile(s.store.unverified(hash), part, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := s.store.resume(x)
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.round(context.Background(), release.Image{Ref: web, Digest: image}, x, p)
		var refused *RefusedError
		if err != nil && !errors.As(err, &refused) {
			t.Fatal(err)
		}
		if r.after > afterMax || r.after < 0 {
			t.Errorf("waits %s", r.after)
		}
		if !r.got {
			if p.n > x.size || len(r.answers) != 1 && refused == nil {
				t.Errorf("%d bytes kept, answers %q", p.n, r.answers)
			}
			if err := p.drop(true); err != nil {
				t.Fatal(err)
			}
			if st, err := os.Stat(s.store.unverified(hash)); err == nil && st.Size() > x.size {
				t.Errorf("%d bytes are kept of a blob of %d", st.Size(), x.size)
			}
			if s.store.has(hash, x.size) {
				t.Error("has a name without being fetched")
			}
			return
		}
		if err := p.finish(s.store, hash); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(o.Dir, blobDir, encoded(hash)))
		if err != nil || !bytes.Equal(got, blob) {
			t.Errorf("%d bytes got the blob's name: %v", len(got), err)
		}
	})
}

func digestOf(b []byte) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256(b))
}
