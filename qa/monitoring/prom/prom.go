// SPDX-License-Identifier: Apache-2.0

// Package prom runs a real Prometheus and promtool out of a tools tree, for
// tests. It refuses to work without one.
package prom

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Tools is a tools tree with Debian 13's prometheus.
type Tools struct{ dir string }

// Find takes the tree that HOLDFAST_TOOLS names.
func Find() (Tools, error) {
	dir := os.Getenv("HOLDFAST_TOOLS")
	if _, err := os.Stat(filepath.Join(dir, "usr/bin/promtool")); dir == "" || err != nil {
		return Tools{}, fmt.Errorf("HOLDFAST_TOOLS=%q names no tree with Debian 13's prometheus: make tools prints one", dir)
	}
	return Tools{dir}, nil
}

// command runs a program of the tree with the tree's own loader and
// libraries, so it does not matter which the host has.
func (t Tools) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, filepath.Join(t.dir, "lib64/ld-linux-x86-64.so.2"),
		append([]string{"--library-path", filepath.Join(t.dir, "usr/lib/x86_64-linux-gnu"), filepath.Join(t.dir, "usr/bin", name)}, args...)...)
}

// Promtool runs promtool and returns all it printed; a status other than 0 is
// an error.
func (t Tools) Promtool(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	c := t.command(ctx, "promtool", args...)
	c.Stdin = stdin
	out, err := c.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("promtool %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Server is a running Prometheus.
type Server struct {
	// URL without a slash at its end.
	URL  string
	cmd  *exec.Cmd
	log  bytes.Buffer
	done chan error
}

// Start runs Prometheus on a free port of 127.0.0.1, with its data in dir and
// the given prometheus.yml, and waits until it is ready.
func (t Tools) Start(ctx context.Context, dir, config string) (*Server, error) {
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	l.Close()
	s := &Server{URL: "http://" + address, done: make(chan error, 1)}
	s.cmd = t.command(context.WithoutCancel(ctx), "prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--storage.tsdb.retention.time=30d",
		"--web.listen-address="+address, "--web.console.templates="+dir, "--web.console.libraries="+dir)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { s.done <- s.cmd.Wait() }()
	err = s.Until(ctx, "Prometheus to be ready", func() error {
		select {
		case err := <-s.done:
			s.done <- err
			return fmt.Errorf("it ended: %v\n%s", err, s.log.String())
		default:
		}
		_, err := s.get(ctx, "/-/ready")
		return err
	})
	if err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// Stop ends it.
func (s *Server) Stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	<-s.done
}

// poll is how often Until asks.
const poll = 100 * time.Millisecond

// Until asks until ok returns nil or a minute is over.
func (s *Server) Until(ctx context.Context, what string, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waited a minute for %s: %w", what, err)
		}
	}
}

func (s *Server) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", path, res.Status, b)
	}
	return b, nil
}

// API asks /api/v1 and decodes "data" into out.
func (s *Server) API(ctx context.Context, path string, args url.Values, out any) error {
	b, err := s.get(ctx, "/api/v1/"+path+"?"+args.Encode())
	if err != nil {
		return err
	}
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return errors.New(answer.Error)
	}
	return json.Unmarshal(answer.Data, out)
}

// Sample is one series of an answer: Values of a range, or one of a moment.
type Sample struct {
	Labels map[string]string
	Times  []float64
	Values []float64
}

type rawSample struct {
	Metric map[string]string
	Value  [2]any
	Values [][2]any
}

// Query asks for the values at a moment.
func (s *Server) Query(ctx context.Context, expr string, at time.Time) ([]Sample, error) {
	return s.query(ctx, "query", url.Values{"query": {expr}, "time": {stamp(at)}})
}

// Range asks for the values over a time.
func (s *Server) Range(ctx context.Context, expr string, from, to time.Time, step time.Duration) ([]Sample, error) {
	return s.query(ctx, "query_range", url.Values{"query": {expr}, "start": {stamp(from)}, "end": {stamp(to)}, "step": {strconv.Itoa(int(step.Seconds()))}})
}

func stamp(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

func (s *Server) query(ctx context.Context, path string, args url.Values) ([]Sample, error) {
	var data struct {
		ResultType string
		Result     []rawSample
	}
	if err := s.API(ctx, path, args, &data); err != nil {
		return nil, fmt.Errorf("%s: %w", args.Get("query"), err)
	}
	var out []Sample
	for _, r := range data.Result {
		sample := Sample{Labels: r.Metric}
		if r.Values == nil {
			r.Values = [][2]any{r.Value}
		}
		for _, v := range r.Values {
			at, ok := v[0].(float64)
			text, isText := v[1].(string)
			n, err := strconv.ParseFloat(text, 64)
			if !ok || !isText || err != nil {
				return nil, fmt.Errorf("%s: answer %v", args.Get("query"), v)
			}
			sample.Times, sample.Values = append(sample.Times, at), append(sample.Values, n)
		}
		out = append(out, sample)
	}
	return out, nil
}
