// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// TestOverTCP fetches with the transport a box has, through a proxy, and a
// connection that breaks in the middle of a layer.
func TestOverTCP(t *testing.T) {
	w := newWorld(t)
	srv := httptest.NewServer(&faulty{Handler: w.registry(web, db), part: w.own(web), faults: []fault{breakAfter(150_000)}})
	defer srv.Close()
	var through atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
		if q.Method == http.MethodConnect { // HTTPS is tried first; this mirror has none
			rw.WriteHeader(http.StatusBadGateway)
			return
		}
		through.Add(1)
		if q.URL.Host != "mirror.test" {
			t.Errorf("the proxy was asked for %s", q.URL)
		}
		r, err := http.NewRequestWithContext(q.Context(), q.Method, srv.URL+q.URL.Path, nil)
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
			rw.Header()[k] = v
		}
		rw.WriteHeader(resp.StatusCode)
		buf := make([]byte, 4096)
		for {
			n, err := resp.Body.Read(buf)
			rw.Write(buf[:n])
			if n > 0 {
				rw.(http.Flusher).Flush()
			}
			if err != nil {
				if !strings.Contains(err.Error(), "EOF") || strings.Contains(err.Error(), "unexpected") {
					panic(http.ErrAbortHandler)
				}
				return
			}
		}
	}))
	defer proxy.Close()
	at, err := url.Parse(proxy.URL)
	w.ok(err)
	w.o.Transport = nil
	w.o.Mirrors = func(string) []string { return []string{"http://mirror.test"} }
	w.o.Proxy = func(q *http.Request) (*url.URL, error) {
		if q.URL.Host == "mirror.test" {
			return at, nil
		}
		return &url.URL{Scheme: "http", Host: "127.0.0.1:9"}, nil // nobody
	}
	s := w.source()
	if _, err := w.fetch(t.Context(), s, web); err != nil {
		t.Fatal(err)
	}
	w.check(s, web)
	if through.Load() < 6 {
		t.Errorf("%d requests went through the proxy", through.Load())
	}
}
