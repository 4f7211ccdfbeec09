// SPDX-License-Identifier: Apache-2.0

//go:build engine

package engine

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// call is one request to the engine, as the engine gets it.
type call struct {
	at     time.Time
	method string
	// path without the API's version.
	path string
}

// changes reports whether a call changes something.
func (c call) changes() bool {
	return c.method == http.MethodPost || c.method == http.MethodDelete || c.method == http.MethodPut
}

func (c call) String() string { return c.method + " " + c.path }

// proxy stands between a daemon and the engine. It counts what the daemon
// asks, which the daemon's own numbers cannot hide, and can end the daemon or
// the stream of events at any call.
type proxy struct {
	host string

	mu    sync.Mutex
	calls []call
	// before and after see each call that changes something, n from 1: before
	// the engine gets it, and when it has answered and the daemon has not
	// heard yet. True drops the call, or its answer.
	before, after func(n int, c call) bool
	changed       int
	streams       map[chan struct{}]bool
}

var apiVersion = regexp.MustCompile(`^/v1\.[0-9]+`)

// newProxy opens a proxy for one daemon.
func newProxy(t *testing.T, b *box) *proxy {
	t.Helper()
	socket := filepath.Join(b.dir, "engine.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{host: "unix://" + socket, streams: map[chan struct{}]bool{}}
	to := strings.TrimPrefix(b.dock.host, "unix://")
	back := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "docker"}) },
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", to)
		}},
		FlushInterval: -1,
		// A daemon that was killed in the middle of a call is no news.
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ModifyResponse: func(r *http.Response) error { return p.answered(r) },
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { p.pass(back, w, q) })}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close(); p.cut() })
	return p
}

type number struct{}

func (p *proxy) pass(back http.Handler, w http.ResponseWriter, q *http.Request) {
	c := call{time.Now(), q.Method, apiVersion.ReplaceAllString(q.URL.Path, "")}
	p.mu.Lock()
	p.calls = append(p.calls, c)
	n := 0
	if c.changes() {
		p.changed++
		n = p.changed
	}
	before := p.before
	p.mu.Unlock()
	if n > 0 && before != nil && before(n, c) {
		panic(http.ErrAbortHandler)
	}
	if c.path == "/events" {
		ctx, cancel := context.WithCancel(q.Context())
		defer cancel()
		end := make(chan struct{})
		p.mu.Lock()
		p.streams[end] = true
		p.mu.Unlock()
		go func() {
			select {
			case <-end:
				cancel()
			case <-ctx.Done():
			}
		}()
		q = q.WithContext(ctx)
	}
	back.ServeHTTP(w, q.WithContext(context.WithValue(q.Context(), number{}, n)))
}

func (p *proxy) answered(r *http.Response) error {
	n, _ := r.Request.Context().Value(number{}).(int)
	p.mu.Lock()
	after := p.after
	p.mu.Unlock()
	if n > 0 && after != nil && after(n, call{time.Now(), r.Request.Method, apiVersion.ReplaceAllString(r.Request.URL.Path, "")}) {
		return http.ErrAbortHandler
	}
	return nil
}

// cut ends the streams of events that are open.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.streams {
		close(s)
		delete(p.streams, s)
	}
}

// since returns the calls from the n-th on.
func (p *proxy) since(n int) []call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]call(nil), p.calls[n:]...)
}

// count is how many calls there were.
func (p *proxy) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.calls)
}
