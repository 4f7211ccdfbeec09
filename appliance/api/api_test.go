// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast/holdfast/appliance/status"
)

// control notes what it is asked for.
type control struct {
	mu     sync.Mutex
	asked  []string
	err    error
	events []status.Event
	more   chan struct{}
	lines  []status.LogLine
	done   chan struct{}
}

func (c *control) note(what string) (status.Operation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, what)
	return status.Operation{ID: "x-1", State: "running"}, c.err
}

func (c *control) Refresh() {}

func (c *control) StopStack(context.Context) (status.Operation, error)  { return c.note("stop") }
func (c *control) StartStack(context.Context) (status.Operation, error) { return c.note("start") }

func (c *control) Do(_ context.Context, verb string, names []string) (status.Operation, error) {
	return c.note(verb + " " + strings.Join(names, ","))
}

func (c *control) Plan() (status.Plan, error) {
	return status.Plan{Ops: []status.PlanOp{{Kind: "start", Target: "web"}}}, c.err
}

func (c *control) Usage(context.Context) (status.Usage, error) {
	return status.Usage{Services: []status.ServiceUsage{{Service: "web", Memory: 7}}}, c.err
}

func (c *control) Operation(id string) (status.Operation, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	op := status.Operation{ID: id, State: "running"}
	select {
	case <-c.done:
		op.State = "done"
	default:
	}
	return op, c.done, c.err
}

func (c *control) Events(since int64) ([]status.Event, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []status.Event
	for _, e := range c.events {
		if e.Number > since {
			out = append(out, e)
		}
	}
	return out, c.more
}

func (c *control) Logs(ctx context.Context, q LogQuery, each func(status.LogLine) error) error {
	c.note("logs " + q.encode())
	for _, l := range c.lines {
		if err := each(l); err != nil {
			return err
		}
	}
	if q.Follow && c.err == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return c.err
}

// served is an API on a socket; stop ends it and waits.
func served(t *testing.T, c Control) (client *Client, feed *status.Feed, stop func()) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "run", "api.sock")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	feed = status.NewFeed(status.Report{Stack: "starting"})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, Handler(feed, c)) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return NewClient(socket), feed, stop
}

func TestStatus(t *testing.T) {
	client, feed, _ := served(t, &control{})
	r, err := client.Status(t.Context())
	if err != nil || r.Stack != "starting" || r.Now.IsZero() {
		t.Errorf("%+v, %v", r, err)
	}
	feed.Update(func(r *status.Report) { r.Stack = "healthy" })
	if r, err = client.Status(t.Context()); err != nil || r.Stack != "healthy" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestWatchHearsEachChange(t *testing.T) {
	client, feed, stop := served(t, &control{})
	states := []string{"starting", "healthy", "stopping", "stopped"}
	n := 0
	err := client.Watch(t.Context(), func(r status.Report) bool {
		if r.Stack != states[n] {
			t.Errorf("report %d: %s, want %s", n, r.Stack, states[n])
		}
		if n++; n == len(states) {
			return false
		}
		feed.Update(func(r *status.Report) { r.Stack = states[n] })
		return true
	})
	if err != nil || n != len(states) {
		t.Errorf("%d reports, %v", n, err)
	}
	// A watcher must not keep the daemon from ending, and learns of it.
	err = client.Watch(t.Context(), func(status.Report) bool { go stop(); return true })
	if !errors.Is(err, ErrNoDaemon) {
		t.Errorf("the daemon ended: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := client.Watch(ctx, func(status.Report) bool { return true }); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestControl(t *testing.T) {
	c := &control{}
	client, _, _ := served(t, c)
	op, err := client.StopStack(t.Context())
	if err != nil || op.ID != "x-1" {
		t.Fatal(op, err)
	}
	if _, err := client.StartStack(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.asked, " "); got != "stop start" {
		t.Errorf("asked for %s", got)
	}
	c.err = errors.New("not now")
	var p *Problem
	if _, err := client.StopStack(t.Context()); !errors.As(err, &p) || p.Status != 409 || p.Text != "not now" {
		t.Errorf("refused: %v", err)
	}
}

func TestUnknownRequests(t *testing.T) {
	c := &control{}
	client, _, _ := served(t, c)
	for request, want := range map[string]string{"GET /": "404", "GET /v1/stack/stop": "405", "POST /v1/status": "405", "DELETE /v1/stack/stop": "405"} {
		method, path, _ := strings.Cut(request, " ")
		res, err := client.do(t.Context(), method, path, nil)
		if err == nil {
			res.Body.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", request, err, want)
		}
	}
	if len(c.asked) > 0 {
		t.Errorf("asked for %v", c.asked)
	}
}

func TestListen(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, want root alone", st, err)
	}
	if _, err := Listen(socket); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("a socket that answers was taken: %v", err)
	}
	// A killed daemon leaves its socket.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if _, err := os.Stat(socket); err != nil {
		t.Fatal(err)
	}
	if l, err = Listen(socket); err != nil {
		t.Fatalf("a dead socket: %v", err)
	}
	l.Close()
}

func TestNoDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none.sock")
	if _, err := NewClient(socket).Status(t.Context()); !errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), socket) {
		t.Errorf("%v", err)
	}
}

// TestAnswerThatIsNoReport: whatever listens there must not hang the client
// or pass for a daemon.
func TestAnswerThatIsNoReport(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello")) })}
	done := make(chan struct{})
	go func() { srv.Serve(l); close(done) }()
	defer func() { srv.Close(); <-done }()
	if r, err := NewClient(socket).Status(t.Context()); err == nil {
		t.Errorf("%+v", r)
	}
}
