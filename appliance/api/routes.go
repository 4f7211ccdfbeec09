// SPDX-License-Identifier: Apache-2.0

// Package api is the box's local API: HTTP over a unix socket that only root
// can open. It serves status.Report and passes requests on to a Control; it
// decides nothing and keeps no state. It is also the client that the command
// line uses. It refuses what it does not know: parameters, fields, bodies and
// lists beyond its bounds.
//
//	GET  /v1/status             the newest report
//	GET  /v1/status?watch=1     one report a line, at once and at each change
//	GET  /v1/plan               status.Plan
//	GET  /v1/usage              status.Usage
//	GET  /v1/events             status.Event, one a line; ?since=NUMBER&follow=1
//	GET  /v1/logs               status.LogLine, one a line; ?service=NAME (again
//	                            for more), tail=N|all, since=TIME, follow=1
//	POST /v1/services/restart   202 and a status.Operation; the body is
//	POST /v1/services/stop      {"services": [NAME, ...]}, none is the whole
//	POST /v1/services/start     stack
//	POST /v1/stack/stop         202 and a status.Operation
//	POST /v1/stack/start        202 and a status.Operation
//	GET  /v1/operations/ID      status.Operation; ?wait=1 answers at its end
//
// An error is {"error": TEXT, "remedy": WHAT TO DO}; in a stream that has begun
// it is the last line.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// Socket is where the daemon listens on a box.
const Socket = "/run/holdfast/api.sock"

// Verbs of an operation on services.
const (
	Restart = "restart"
	Stop    = "stop"
	Start   = "start"
)

// Control is what the API may ask of the daemon. An error that is a *Problem
// is passed on as it is; any other is a conflict with what goes on.
type Control interface {
	// Refresh brings into the feed what no event tells of.
	Refresh()
	// Plan is what the supervisor would do now, Usage what is used now.
	Plan() (status.Plan, error)
	Usage(ctx context.Context) (status.Usage, error)
	// StopStack, StartStack and Do return as soon as the request is taken; Do
	// without services is for all of them.
	StopStack(ctx context.Context) (status.Operation, error)
	StartStack(ctx context.Context) (status.Operation, error)
	Do(ctx context.Context, verb string, services []string) (status.Operation, error)
	// Operation finds one by its id; done is closed when it has ended.
	Operation(id string) (op status.Operation, done <-chan struct{}, err error)
	// Events gives those after number since, and a channel that is closed
	// once there are more.
	Events(since int64) (events []status.Event, more <-chan struct{})
	// Logs calls each with every line that q asks for.
	Logs(ctx context.Context, q LogQuery, each func(status.LogLine) error) error
}

// Handler serves feed and passes requests on to control.
func Handler(feed *status.Feed, control Control) http.Handler {
	h := &handler{feed: feed, control: control, streams: make(chan struct{}, maxStreams)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", h.status)
	mux.HandleFunc("GET /v1/plan", h.plan)
	mux.HandleFunc("GET /v1/usage", h.usage)
	mux.HandleFunc("GET /v1/events", h.events)
	mux.HandleFunc("GET /v1/logs", h.logs)
	for _, verb := range []string{Restart, Stop, Start} {
		mux.HandleFunc("POST /v1/services/"+verb, h.services(verb))
	}
	mux.HandleFunc("POST /v1/stack/stop", h.accept(control.StopStack))
	mux.HandleFunc("POST /v1/stack/start", h.accept(control.StartStack))
	mux.HandleFunc("GET /v1/operations/{id}", h.operation)
	if u, ok := control.(Upgrades); ok {
		h.upgrades(mux, u)
	}
	return mux
}

// handler answers requests. streams has room for as many answers without an
// end as may be under way.
type handler struct {
	feed    *status.Feed
	control Control
	streams chan struct{}
}

func (h *handler) status(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "watch")
	if err != nil {
		refuse(w, err)
		return
	}
	if q.Get("watch") != "" {
		h.watch(w, r)
		return
	}
	h.control.Refresh()
	report, _ := h.feed.Get()
	report.Now = time.Now().UTC()
	answer(w, http.StatusOK, report)
}

func (h *handler) watch(w http.ResponseWriter, r *http.Request) {
	s, err := h.stream(w)
	if err != nil {
		refuse(w, err)
		return
	}
	defer s.end()
	for {
		report, changed := h.feed.Get()
		report.Now = time.Now().UTC()
		if s.line(report) != nil || s.flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func (h *handler) plan(w http.ResponseWriter, r *http.Request) {
	if _, err := query(r); err != nil {
		refuse(w, err)
		return
	}
	p, err := h.control.Plan()
	if err != nil {
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, p)
}

func (h *handler) usage(w http.ResponseWriter, r *http.Request) {
	if _, err := query(r); err != nil {
		refuse(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), usageTimeout)
	defer cancel()
	u, err := h.control.Usage(ctx)
	if err != nil {
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, u)
}

// answer sends v as JSON.
func answer(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(append(b, '\n'))
}

// Listen opens the socket for root alone. A socket that a killed daemon left
// is replaced; one that answers is not.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("another daemon answers on %s: stop it first, or use --socket", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Serve answers on l until ctx ends.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
		// Watchers end with the daemon, or Shutdown would wait for them.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		srv.Close()
		<-done
		return nil
	}
}
