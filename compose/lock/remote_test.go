// SPDX-License-Identifier: Apache-2.0

package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// hub is a registry that gives a token to anybody and wants it back, over TLS.
func hub(t *testing.T, next http.Handler) *httptest.Server {
	t.Helper()
	var srv *httptest.Server
	srv = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch {
		case q.URL.Path == "/token":
			if s := q.URL.Query().Get("scope"); s != "repository:shop/web:pull" {
				t.Errorf("asked for a token for %q", s)
			}
			json.NewEncoder(w).Encode(map[string]string{"token": "anybody"})
		case q.Header.Get("Authorization") != "Bearer anybody":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="hub"`, srv.URL))
			w.WriteHeader(http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, q)
		}
	}))
	t.Cleanup(srv.Close)
	return srv
}

func TestRemote(t *testing.T) {
	ctx := context.Background()
	plain := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer plain.Close()
	host := strings.TrimPrefix(plain.URL, "http://")
	img := image(t, "amd64")
	tag, err := name.NewTag(host + "/shop/web:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
	up, err := url.Parse(plain.URL)
	if err != nil {
		t.Fatal(err)
	}
	next := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r, err := http.NewRequestWithContext(q.Context(), q.Method, up.String()+q.URL.Path, nil)
		if err != nil {
			t.Error(err)
			return
		}
		r.Header = q.Header.Clone()
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		for k, v := range resp.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(resp.StatusCode)
		io.Copy(w, resp.Body)
	})
	secure := hub(t, next)
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	mt, err := img.MediaType()
	if err != nil {
		t.Fatal(err)
	}
	layer := m.Layers[0]
	for _, row := range []struct {
		name, ref, mirror string
		base              http.RoundTripper
	}{
		{"own registry", host + "/shop/web:1", "", http.DefaultTransport},
		{"plain mirror", "registry.example/shop/web:1", plain.URL, http.DefaultTransport},
		{"mirror with TLS and tokens", "shop/web:1", secure.URL, secure.Client().Transport},
	} {
		t.Run(row.name, func(t *testing.T) {
			r, err := NewRemote(row.ref, row.mirror, row.base)
			if err != nil {
				t.Fatal(err)
			}
			p, err := r.Manifest(ctx, digestOf(t, img), string(mt))
			if err != nil {
				t.Fatal(err)
			}
			raw, err := io.ReadAll(p)
			p.Close()
			if want, _ := img.RawManifest(); err != nil || string(raw) != string(want) || p.At != 0 || p.Size != int64(len(want)) {
				t.Errorf("manifest: %d bytes at %d of %d, %v", len(raw), p.At, p.Size, err)
			}
			for _, from := range []int64{0, 1, layer.Size - 1} {
				p, err := r.Blob(ctx, layer.Digest.String(), from, layer.Size)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(p)
				p.Close()
				if err != nil || p.At != from || p.Size != layer.Size || int64(len(b)) != layer.Size-from {
					t.Errorf("from %d: %d bytes at %d of %d, %v", from, len(b), p.At, p.Size, err)
				}
			}
			p, err = r.Span(ctx, layer.Digest.String(), 3, 5)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(p)
			p.Close()
			if err != nil || p.At != 3 || p.Len != 5 || p.Size != layer.Size || len(b) != 5 {
				t.Errorf("5 bytes: %d bytes, %d at %d of %d, %v", len(b), p.Len, p.At, p.Size, err)
			}
			_, err = r.Blob(ctx, "sha256:"+hex("0"), 0, 1)
			var said *AnswerError
			if !errors.As(err, &said) || said.Status != 404 || !said.Final() || !strings.Contains(err.Error(), "answered 404 Not Found (BLOB_UNKNOWN") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestRemoteRefused(t *testing.T) {
	ctx := context.Background()
	for _, row := range []struct {
		code   int
		header string
		final  bool
		after  time.Duration
	}{
		{429, "120", false, 2 * time.Minute}, {503, "", false, 0}, {500, "never", false, 0}, {408, "-5", false, 0}, {407, "", false, 0},
		{403, "", true, 0}, {410, "", true, 0}, {451, "", true, 0},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/v2/" {
				return
			}
			if row.header != "" {
				w.Header().Set("Retry-After", row.header)
			}
			w.WriteHeader(row.code)
			io.WriteString(w, `{"errors":[{"code":"DENIED","message":"no`+"\\n\\u001b[31m"+` `+strings.Repeat("x", 1000)+`"}]}`)
		}))
		r, err := NewRemote("a/b:1", srv.URL, http.DefaultTransport)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Blob(ctx, "sha256:"+hex("0"), 0, 1)
		srv.Close()
		var said *AnswerError
		if !errors.As(err, &said) || said.Status != row.code || said.Final() != row.final || said.RetryAfter != row.after {
			t.Errorf("%d: %#v %v", row.code, said, err)
		}
		if s := fmt.Sprint(err); len(s) > 300 || strings.ContainsAny(s, "\n\x1b") || !strings.Contains(s, "DENIED: no") {
			t.Errorf("%q", s)
		}
	}
	// A token server that is away is no refusal; one that refuses is.
	for status, final := range map[int]bool{502: false, 403: true} {
		var srv *httptest.Server
		srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/token" {
				w.WriteHeader(status)
				return
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token"`, srv.URL))
			w.WriteHeader(http.StatusUnauthorized)
		}))
		r, err := NewRemote("a/b:1", srv.URL, http.DefaultTransport)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Blob(ctx, "sha256:"+hex("0"), 0, 1)
		srv.Close()
		var said *AnswerError
		if !errors.As(err, &said) || said.Status != status || said.Final() != final {
			t.Errorf("token server %d: %v", status, err)
		}
	}
}

// A mirror written https:// is never spoken to in plain HTTP, wherever it is.
func TestRemoteKeepsToTLS(t *testing.T) {
	asked := false
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer srv.Close()
	r, err := NewRemote("a/b:1", strings.Replace(srv.URL, "http:", "https:", 1), http.DefaultTransport)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Blob(context.Background(), "sha256:"+hex("0"), 0, 1); err == nil || asked {
		t.Errorf("asked in plain HTTP: %v", err)
	}
}

func TestRemoteNames(t *testing.T) {
	for _, row := range [][4]string{
		{"nginx:1", "", "docker.io", "library/nginx"},
		{"shop/web", "https://mirror.example.com", "mirror mirror.example.com", "shop/web"},
		{"quay.io/a/b:1", "http://10.0.0.5:5000/cache/quay/", "mirror 10.0.0.5:5000/cache/quay", "cache/quay/a/b"},
		{"registry.example:5000/x:1", "", "registry.example:5000", "x"},
	} {
		r, err := NewRemote(row[0], row[1], http.DefaultTransport)
		if err != nil || r.String() != row[2] || r.repo != row[3] {
			t.Errorf("%v: %v %v", row, r, err)
		}
	}
	for ref, want := range map[string]string{"nginx:1": "docker.io", "quay.io/a/b": "quay.io", "localhost:5000/a": "localhost:5000"} {
		if got, err := RegistryOf(ref); err != nil || got != want {
			t.Errorf("%s: %s %v", ref, got, err)
		}
	}
	for _, mirror := range []string{"mirror.example.com", "ftp://x", "https://", "https://u:p@x", "https://x?a=b", "https://x y", "::"} {
		if _, err := NewRemote("a:1", mirror, http.DefaultTransport); err == nil || !strings.Contains(err.Error(), "mirror") && !strings.Contains(err.Error(), "registry") {
			t.Errorf("%s: %v", mirror, err)
		}
	}
	if _, err := NewRemote("Not A Ref", "", nil); err == nil {
		t.Error("a bad reference was taken")
	}
	if _, err := RegistryOf("Not A Ref"); err == nil {
		t.Error("a bad reference was taken")
	}
}

// FuzzContentRange: what passes is a range within the whole.
func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 100-199/200", "bytes 100-199/*", "bytes 5-4/9", "bytes */200", "", "bytes -1-2/3", "bytes 0-9223372036854775807/9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		from, length, size, err := contentRange(s)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if from < 0 || length < 1 || from+length < from || size != -1 && size < from+length || !strings.HasPrefix(s, "bytes ") {
			t.Errorf("%q: %d of %d", s, from, size)
		}
	})
}
