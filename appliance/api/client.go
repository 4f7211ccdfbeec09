// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// ErrNoDaemon means that nothing answers on the socket.
var ErrNoDaemon = errors.New("the holdfast daemon does not answer")

// maxReport bounds one report in bytes.
const maxReport = 16 << 20

// Client asks a daemon over its socket.
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

func (c *Client) do(ctx context.Context, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://holdfast"+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return nil, fmt.Errorf("%w on %s: %v", ErrNoDaemon, c.socket, op.Err)
	}
	if err != nil {
		return nil, err
	}
	if res.StatusCode >= 300 {
		defer res.Body.Close()
		var e struct{ Error string }
		json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&e)
		return nil, fmt.Errorf("the daemon answers %s: %s", res.Status, e.Error)
	}
	return res, nil
}

// Status asks for the newest report.
func (c *Client) Status(ctx context.Context) (status.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var r status.Report
	res, err := c.do(ctx, "GET", "/v1/status")
	if err != nil {
		return r, err
	}
	defer res.Body.Close()
	return r, json.NewDecoder(io.LimitReader(res.Body, maxReport)).Decode(&r)
}

// Watch calls each with every report until it returns false, ctx ends or the
// daemon goes away.
func (c *Client) Watch(ctx context.Context, each func(status.Report) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	res, err := c.do(ctx, "GET", "/v1/status?watch=1")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	dec := json.NewDecoder(res.Body)
	for {
		var r status.Report
		if err := dec.Decode(&r); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%w any more: %v", ErrNoDaemon, err)
		}
		if !each(r) {
			return nil
		}
	}
}

// StopStack asks the daemon to stop the stack.
func (c *Client) StopStack(ctx context.Context) error { return c.post(ctx, "/v1/stack/stop") }

// StartStack asks the daemon to run the stack again.
func (c *Client) StartStack(ctx context.Context) error { return c.post(ctx, "/v1/stack/start") }

func (c *Client) post(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	res, err := c.do(ctx, "POST", path)
	if err != nil {
		return err
	}
	return res.Body.Close()
}
