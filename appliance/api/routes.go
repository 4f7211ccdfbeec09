// SPDX-License-Identifier: Apache-2.0

// Package api is the box's local API: HTTP over a unix socket that only root
// can open. It serves status.Report and takes the few requests the command
// line has; it decides nothing and keeps no state. It is also the client that
// the command line uses.
//
//	GET  /v1/status            the newest report
//	GET  /v1/status?watch=1    one report a line, at once and at each change
//	POST /v1/stack/stop        202; watch until stack is "stopped"
//	POST /v1/stack/start       202
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

// Control is what the API may ask of the daemon. The calls return as soon as
// the request is taken.
type Control interface {
	// Refresh brings into the feed what no event tells of.
	Refresh()
	StopStack(ctx context.Context) error
	StartStack(ctx context.Context) error
}

// Handler serves feed and passes requests on to control.
func Handler(feed *status.Feed, control Control) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") == "" {
			control.Refresh()
			report, _ := feed.Get()
			w.Header().Set("Content-Type", "application/json")
			writeReport(w, report)
			return
		}
		watch(w, r, feed)
	})
	mux.HandleFunc("POST /v1/stack/stop", accept(control.StopStack))
	mux.HandleFunc("POST /v1/stack/start", accept(control.StartStack))
	return mux
}

func writeReport(w http.ResponseWriter, r status.Report) error {
	r.Now = time.Now().UTC()
	return json.NewEncoder(w).Encode(r)
}

func watch(w http.ResponseWriter, r *http.Request, feed *status.Feed) {
	w.Header().Set("Content-Type", "application/jsonl")
	flush := http.NewResponseController(w)
	for {
		report, changed := feed.Get()
		if writeReport(w, report) != nil || flush.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func accept(do func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := do(r.Context()); err != nil {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusConflict)
			json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}
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
