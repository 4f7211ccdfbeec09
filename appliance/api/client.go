// SPDX-License-Identifier: Apache-2.0

package api

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
	"strconv"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// ErrNoDaemon means that nothing answers on the socket.
var ErrNoDaemon = errors.New("the holdfast daemon does not answer")

const (
	// maxReport bounds one answer in bytes.
	maxReport = 16 << 20
	// askTimeout is how long an answer that has an end may take.
	askTimeout = 30 * time.Second
)

// Client asks a daemon over its socket. An error of the daemon's is a *Problem.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient prepares a client; it does not connect.
func NewClient(socket string) *Client {
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}}
}

func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://holdfast"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return nil, fmt.Errorf("%w on %s: %v", ErrNoDaemon, c.socket, op.Err)
	}
	if err != nil {
		if ctx.Err() == nil {
			err = fmt.Errorf("%w on %s any more: %v", ErrNoDaemon, c.socket, err)
		}
		return nil, err
	}
	if res.StatusCode >= 300 {
		defer res.Body.Close()
		p := &Problem{}
		if json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(p) != nil || p.Text == "" {
			// Another program's, or a path that a daemon of another version
			// does not have.
			p = &Problem{Text: "the daemon answers " + res.Status, Remedy: "holdfast and the daemon may be of different versions: systemctl restart holdfast"}
		}
		p.Status = res.StatusCode
		return nil, p
	}
	return res, nil
}

// ask gets one JSON value.
func (c *Client) ask(ctx context.Context, method, path string, body []byte, to any) error {
	res, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(io.LimitReader(res.Body, maxReport)).Decode(to); err != nil {
		return fmt.Errorf("the answer on %s can't be read: %w", c.socket, err)
	}
	return nil
}

func askSoon[T any](ctx context.Context, c *Client, method, path string, body []byte) (v T, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	err = c.ask(ctx, method, path, body, &v)
	return v, err
}

// Status asks for the newest report.
func (c *Client) Status(ctx context.Context) (status.Report, error) {
	return askSoon[status.Report](ctx, c, "GET", "/v1/status", nil)
}

// Plan asks what the supervisor would do now.
func (c *Client) Plan(ctx context.Context) (status.Plan, error) {
	return askSoon[status.Plan](ctx, c, "GET", "/v1/plan", nil)
}

// Usage asks what is used now.
func (c *Client) Usage(ctx context.Context) (status.Usage, error) {
	return askSoon[status.Usage](ctx, c, "GET", "/v1/usage", nil)
}

// Watch calls each with every report until it returns false, ctx ends or the
// daemon goes away.
func (c *Client) Watch(ctx context.Context, each func(status.Report) bool) error {
	return follow(ctx, c, "/v1/status?watch=1", true, each)
}

// Events calls each with the events after number since until it returns false
// or, without following, there are no more.
func (c *Client) Events(ctx context.Context, since int64, following bool, each func(status.Event) bool) error {
	q := url.Values{"since": {strconv.FormatInt(since, 10)}}
	if following {
		q.Set("follow", "1")
	}
	return follow(ctx, c, "/v1/events?"+q.Encode(), following, each)
}

// Logs calls each with the lines that q asks for until it returns false or,
// without following, there are no more.
func (c *Client) Logs(ctx context.Context, q LogQuery, each func(status.LogLine) bool) error {
	return follow(ctx, c, "/v1/logs?"+q.encode(), q.Follow, each)
}

// follow reads an answer of lines. One that is endless ends only with the
// daemon.
func follow[T any](ctx context.Context, c *Client, path string, endless bool, each func(T) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	res, err := c.do(ctx, "GET", path, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	err = eachLine(ctx, json.NewDecoder(res.Body), each)
	var p *Problem
	switch {
	case err == nil || errors.As(err, &p):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.EOF) && !endless:
		return nil
	}
	return fmt.Errorf("%w any more: %v", ErrNoDaemon, err)
}

// StopStack asks the daemon to stop the stack.
func (c *Client) StopStack(ctx context.Context) (status.Operation, error) {
	return askSoon[status.Operation](ctx, c, "POST", "/v1/stack/stop", nil)
}

// StartStack asks the daemon to run the stack again.
func (c *Client) StartStack(ctx context.Context) (status.Operation, error) {
	return askSoon[status.Operation](ctx, c, "POST", "/v1/stack/start", nil)
}

// Do asks for Restart, Stop or Start of services, none being all of them.
func (c *Client) Do(ctx context.Context, verb string, services []string) (op status.Operation, err error) {
	if services == nil {
		services = []string{}
	}
	body, err := json.Marshal(map[string][]string{"services": services})
	if err != nil {
		return op, err
	}
	return askSoon[status.Operation](ctx, c, "POST", "/v1/services/"+url.PathEscape(verb), body)
}

// Operation asks how an operation is.
func (c *Client) Operation(ctx context.Context, id string) (status.Operation, error) {
	return askSoon[status.Operation](ctx, c, "GET", "/v1/operations/"+url.PathEscape(id), nil)
}

// Await asks for an operation once it has ended, and waits for that.
func (c *Client) Await(ctx context.Context, id string) (op status.Operation, err error) {
	err = c.ask(ctx, "GET", "/v1/operations/"+url.PathEscape(id)+"?wait=1", nil, &op)
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrNoDaemon) {
		var p *Problem
		if !errors.As(err, &p) {
			err = fmt.Errorf("%w any more: %v", ErrNoDaemon, err)
		}
	}
	return op, err
}
