// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// wire is a network in memory, so that a bubble's clock can run: a host that
// is not on it is unreachable.
type wire struct {
	mu    sync.Mutex
	hosts map[string]http.Handler
	log   []string
}

func (n *wire) plug(host string, h http.Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[host] = h
}

// asked lists the requests for a blob or manifest, with their ranges.
func (n *wire) asked(digest string) (out []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.log {
		if strings.Contains(l, digest) {
			out = append(out, l)
		}
	}
	return out
}

func (n *wire) RoundTrip(q *http.Request) (*http.Response, error) {
	n.mu.Lock()
	h := n.hosts[q.URL.Host]
	n.log = append(n.log, fmt.Sprintf("%s %s%s %s", q.URL.Scheme, q.URL.Host, q.URL.Path, q.Header.Get("Range")))
	n.mu.Unlock()
	if h == nil {
		return nil, fmt.Errorf("no route to %s", q.URL.Host)
	}
	r, w := io.Pipe()
	a := &answer{header: http.Header{}, w: w, begun: make(chan struct{})}
	context.AfterFunc(q.Context(), func() { r.CloseWithError(context.Cause(q.Context())) })
	go func() {
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				w.CloseWithError(errors.New("connection reset"))
			}
			a.WriteHeader(http.StatusOK)
			w.Close()
		}()
		served := q.Clone(q.Context())
		if served.Body == nil {
			served.Body = http.NoBody
		}
		h.ServeHTTP(a, served)
	}()
	select {
	case <-a.begun:
	case <-q.Context().Done():
		return nil, context.Cause(q.Context())
	}
	resp := &http.Response{StatusCode: a.status, Status: http.StatusText(a.status), Header: a.header.Clone(), Body: r, ContentLength: -1, Request: q}
	if s := a.header.Get("Content-Length"); s != "" {
		fmt.Sscan(s, &resp.ContentLength)
	}
	return resp, nil
}

// answer is the server's end of a response.
type answer struct {
	header http.Header
	w      *io.PipeWriter
	once   sync.Once
	begun  chan struct{}
	status int
}

func (a *answer) Header() http.Header { return a.header }
func (a *answer) WriteHeader(status int) {
	a.once.Do(func() { a.status = status; close(a.begun) })
}
func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.w.Write(b)
}

// faulty puts faults before a handler: each request for a path that contains
// part takes the next one, and none when they are used up.
type faulty struct {
	http.Handler
	mu     sync.Mutex
	part   string
	faults []func(w http.ResponseWriter, q *http.Request, h http.Handler)
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	f.mu.Lock()
	var fault func(http.ResponseWriter, *http.Request, http.Handler)
	if strings.Contains(q.URL.Path, f.part) && len(f.faults) > 0 {
		fault = f.faults[0]
		f.faults = slices.Delete(f.faults, 0, 1)
	}
	f.mu.Unlock()
	if fault != nil {
		fault(w, q, f.Handler)
		return
	}
	f.Handler.ServeHTTP(w, q)
}

type fault = func(w http.ResponseWriter, q *http.Request, h http.Handler)

// breakAfter cuts the connection after n bytes of the body.
func breakAfter(n int) fault {
	return func(w http.ResponseWriter, q *http.Request, h http.Handler) {
		h.ServeHTTP(&limited{ResponseWriter: w, left: n}, q)
	}
}

type limited struct {
	http.ResponseWriter
	left int
}

func (l *limited) Write(b []byte) (int, error) {
	if len(b) >= l.left {
		l.ResponseWriter.Write(b[:l.left])
		panic(http.ErrAbortHandler)
	}
	l.left -= len(b)
	return l.ResponseWriter.Write(b)
}

func status(code int, header ...string) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// body answers 200 with other bytes than the handler's, of a stated or, below
// 0, of no stated length.
func body(b []byte, length int) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		if length >= 0 {
			w.Header().Set("Content-Length", fmt.Sprint(length))
		}
		w.Write(b)
	}
}

// hang answers after the first n bytes nothing more.
func hang(n int) fault {
	return func(w http.ResponseWriter, q *http.Request, h http.Handler) {
		h.ServeHTTP(&stuck{ResponseWriter: w, left: n, ctx: q.Context()}, q)
	}
}

type stuck struct {
	http.ResponseWriter
	left int
	ctx  context.Context
}

func (s *stuck) Write(b []byte) (int, error) {
	n := min(len(b), s.left)
	s.left -= n
	if m, err := s.ResponseWriter.Write(b[:n]); err != nil || n == len(b) {
		return m, err
	}
	<-s.ctx.Done()
	panic(http.ErrAbortHandler)
}

// no ranges: the registry gives the whole whatever is asked.
func noRanges(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		q = q.Clone(q.Context())
		q.Header.Del("Range")
		h.ServeHTTP(w, q)
	})
}

func several(n int, f fault) []fault { return slices.Repeat([]fault{f}, n) }
