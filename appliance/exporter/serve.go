// SPDX-License-Identifier: Apache-2.0

package exporter

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/net/netutil"
)

const (
	// inFlight requests are served at once; further ones are told to come
	// again. connections bounds what is held open for them.
	inFlight    = 4
	connections = 32
	// drain is how long a scrape may take to end when the daemon stops.
	drain = 2 * time.Second
)

// registry holds the box's metrics, and of Go and the process those few that
// say how the daemon itself does.
func registry(c Config) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(c),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewGoCollector(collectors.WithGoCollectorMemStatsMetricsDisabled(),
			collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/memory/classes/(heap/objects|total):bytes$`)})))
	return r
}

// New is the handler: /metrics, and a page that leads there.
func New(c Config) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry(c), promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: inFlight, Timeout: 2 * patience,
		EnableOpenMetrics: true,
	}))
	page, err := web.NewLandingPage(web.LandingConfig{Name: "Holdfast", Description: "Metrics of this box, for Prometheus",
		Version: c.Version, Profiling: "false", Links: []web.LandingLinks{{Address: "/metrics", Text: "Metrics"}}})
	if err != nil { // its template is built in
		panic(err)
	}
	mux.Handle("GET /{$}", page)
	return mux
}

// Serve listens and serves until ctx ends, then returns nil. An address that
// cannot be listened on and a web configuration that is wrong are errors; a
// configuration that becomes wrong later fails the requests that come then,
// and never the others' service.
func Serve(ctx context.Context, c Config) error {
	if err := web.Validate(c.WebConfig); err != nil {
		return fmt.Errorf("metrics: the web configuration %s is wrong: %w", c.WebConfig, err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	defer l.Close()
	server := &http.Server{
		Handler:     New(c),
		ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		// One line for each port scan would fill the journal.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	if c.Listening != nil {
		c.Listening(l.Addr())
	}
	ended := make(chan error, 1)
	go func() {
		ended <- web.Serve(netutil.LimitListener(l, connections), server, &web.FlagConfig{WebConfigFile: &c.WebConfig}, logger(c.Log))
	}()
	select {
	case err = <-ended:
		return fmt.Errorf("metrics: serving on %s ended: %w", c.Listen, err)
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := server.Shutdown(late); err != nil {
		server.Close()
	}
	l.Close() // where it ended before it began
	<-ended
	return nil
}

// logger passes on what went wrong and drops the rest.
func logger(log func(string)) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(lines{log})
}

// lines is a slog.Handler that writes a warning as one line.
type lines struct{ log func(string) }

func (lines) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (h lines) Handle(_ context.Context, r slog.Record) error {
	text := "metrics: " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += " " + a.Key + "=" + a.Value.String()
		return true
	})
	h.log(text)
	return nil
}

func (h lines) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h lines) WithGroup(string) slog.Handler      { return h }
