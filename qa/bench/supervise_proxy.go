// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// proxy stands between a daemon and the engine and notes what is asked.
type proxy struct {
	host string
	srv  *http.Server

	mu       sync.Mutex
	calls    int
	restarts int
	starts   map[string]time.Time // by container, the last
}

var startCall = regexp.MustCompile(`/containers/([^/]+)/(?:re)?start$`)

func dialEngine(host string) func(ctx context.Context, _, _ string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(host, "unix://"))
	}
}

func newProxy(to, dir string) (*proxy, error) {
	socket := filepath.Join(dir, "engine.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	p := &proxy{host: "unix://" + socket, starts: map[string]time.Time{}}
	back := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "docker"}) },
		Transport:     &http.Transport{DialContext: dialEngine(to)},
		FlushInterval: -1,
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	p.srv = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		p.note(q)
		back.ServeHTTP(w, q)
	})}
	go p.srv.Serve(l)
	return p, nil
}

func (p *proxy) note(q *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	if m := startCall.FindStringSubmatch(q.URL.Path); m != nil {
		p.restarts++
		p.starts[m[1]] = time.Now()
	}
}

func (p *proxy) counts() (calls, restarts int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls, p.restarts
}

// started is when a container's start was asked for last.
func (p *proxy) started(id string) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts[id]
}

func (p *proxy) close() { p.srv.Close() }

// killContainer is docker kill.
func killContainer(ctx context.Context, host, id string) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://docker/v1.44/containers/"+id+"/kill", nil)
	if err != nil {
		return err
	}
	c := http.Client{Transport: &http.Transport{DialContext: dialEngine(host), DisableKeepAlives: true}}
	a, err := c.Do(q)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if a.StatusCode/100 != 2 {
		return fmt.Errorf("docker kill: %s", a.Status)
	}
	return nil
}
