// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Server serves a folder as any web server would, and can be made slow, broken
// or silent while a box fetches from it.
type Server struct {
	// Port on this host's loopback address; a QEMU guest reaches it as
	// 10.0.2.2.
	Port   int
	server *http.Server

	mu     sync.Mutex
	limit  *rate.Limiter
	broken bool
	asked  []string
	bytes  int64
}

// Serve serves dir until Close.
func Serve(dir string) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{Port: l.Addr().(*net.TCPAddr).Port}
	files := http.FileServer(http.Dir(dir))
	s.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		broken := s.broken
		s.mu.Unlock()
		if broken {
			http.Error(w, "this server is broken", http.StatusServiceUnavailable)
			return
		}
		files.ServeHTTP(&counted{ResponseWriter: w, server: s, request: r}, r)
	})}
	go func() {
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "web server:", err)
		}
	}()
	return s, nil
}

// Ref is the address as a QEMU guest writes it.
func (s *Server) Ref() string { return fmt.Sprintf("http://10.0.2.2:%d", s.Port) }

// Close ends the server and what it is sending.
func (s *Server) Close() error { return s.server.Close() }

// Limit makes it send that many bytes a second over all answers, 0 for as many
// as it can; an answer on its way goes on at the new rate.
func (s *Server) Limit(bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = nil
	if bytes > 0 {
		s.limit = rate.NewLimiter(rate.Limit(bytes), 32<<10)
	}
}

// Break makes each new request fail with 503, or work again.
func (s *Server) Break(broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = broken
}

// Asked is what was asked so far, "METHOD PATH STATUS", with the bytes that
// were sent, and is forgotten.
func (s *Server) Asked() (asked []string, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked, bytes = s.asked, s.bytes
	s.asked, s.bytes = nil, 0
	return asked, bytes
}

// counted is one answer.
type counted struct {
	http.ResponseWriter
	server  *Server
	request *http.Request
}

// WriteHeader and Write count before they send: whoever got an answer finds it
// counted.
func (c *counted) WriteHeader(status int) {
	c.server.mu.Lock()
	c.server.asked = append(c.server.asked, fmt.Sprintf("%s %s %d", c.request.Method, c.request.URL.Path, status))
	c.server.mu.Unlock()
	c.ResponseWriter.WriteHeader(status)
}

func (c *counted) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		c.server.mu.Lock()
		limit := c.server.limit
		c.server.mu.Unlock()
		part := p[:min(len(p), 32<<10)]
		if limit != nil {
			if err := limit.WaitN(c.request.Context(), len(part)); err != nil {
				return written, err
			}
		}
		c.server.mu.Lock()
		c.server.bytes += int64(len(part))
		c.server.mu.Unlock()
		n, err := c.ResponseWriter.Write(part)
		written += n
		if err != nil {
			return written, err
		}
		p = p[n:]
	}
	return written, nil
}

// Paths are the distinct paths of what Asked gave.
func Paths(asked []string) string {
	seen := map[string]bool{}
	var list []string
	for _, a := range asked {
		if f := strings.Fields(a); len(f) == 3 && !seen[f[1]] {
			seen[f[1]] = true
			list = append(list, f[1])
		}
	}
	return strings.Join(list, "\n")
}
