// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/compose/stack"
)

const (
	// maxBody is how much of an answer is read, in bytes.
	maxBody = 4 << 10
	// maxHeader bounds an answer's header, in bytes.
	maxHeader = 64 << 10
	// maxOutput bounds the line that says what is wrong, in characters.
	maxOutput = 200
)

// dialer makes the connections of all probes; none outlives its check.
type dialer struct {
	client *http.Client
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
}

// addresses is the context key of the IPs a check may connect to.
type addresses struct{}

func newDialer() *dialer {
	d := &dialer{dial: (&net.Dialer{KeepAlive: -1}).DialContext}
	d.client = &http.Client{
		Transport: &http.Transport{
			// No proxy: the box's is for the world outside.
			Proxy:             nil,
			DisableKeepAlives: true, DisableCompression: true, ForceAttemptHTTP2: false,
			MaxResponseHeaderBytes: maxHeader,
			// A container's certificate is its own; the probe asks whether
			// it serves, not who it is.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10},
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				_, port, err := net.SplitHostPort(address)
				if err != nil {
					return nil, err
				}
				ips, _ := ctx.Value(addresses{}).([]netip.Addr)
				return d.connect(ctx, ips, port)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return d
}

// check makes one check within the probe's timeout.
func (d *dialer) check(ctx context.Context, e Engine, t Target, p stack.Probe, hangs string) outcome {
	timeout := p.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var err error
	switch p.Kind {
	case "http":
		err = d.http(ctx, t, p)
	case "tcp":
		var c net.Conn
		if c, err = d.connect(ctx, t.IPs, strconv.Itoa(p.Port)); err == nil {
			c.Close()
		}
	case "exec":
		return runExec(ctx, e, t, p, hangs, timeout)
	default:
		err = fmt.Errorf("no such probe: %q", p.Kind)
	}
	return outcome{failed: failure(err, timeout)}
}

// connect tries the addresses in turn, each with its share of the time left.
func (d *dialer) connect(ctx context.Context, ips []netip.Addr, port string) (net.Conn, error) {
	if len(ips) == 0 {
		return nil, errors.New("the container has no address")
	}
	var first error
	for i, ip := range ips {
		share, cancel := ctx, context.CancelFunc(func() {})
		if end, ok := ctx.Deadline(); ok {
			share, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(len(ips)-i))
		}
		c, err := d.dial(share, "tcp", net.JoinHostPort(ip.String(), port))
		cancel()
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

func (d *dialer) http(ctx context.Context, t Target, p stack.Probe) error {
	if len(t.IPs) == 0 {
		return errors.New("the container has no address")
	}
	scheme := p.Scheme
	if scheme == "" {
		scheme = "http"
	}
	path := p.Path
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	u, err := url.Parse(scheme + "://" + net.JoinHostPort(t.IPs[0].String(), strconv.Itoa(p.Port)) + path)
	if err != nil {
		return err
	}
	q, err := http.NewRequestWithContext(context.WithValue(ctx, addresses{}, t.IPs), http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	q.Header.Set("User-Agent", "holdfast-probe")
	res, err := d.client.Do(q)
	if err != nil {
		if ue := (*url.Error)(nil); errors.As(err, &ue) {
			err = ue.Err // without the URL, which the probe's name says
		}
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if good(p, res.StatusCode) {
		return err
	}
	text := "answered " + strconv.Itoa(res.StatusCode)
	if b := printable(string(body)); b != "" {
		text += ": " + b
	}
	return errors.New(text)
}

// good reports whether a status is what the probe wants.
func good(p stack.Probe, status int) bool {
	if p.Status != 0 {
		return status == p.Status
	}
	return status >= 200 && status < 400
}

// runExec runs the command, unless the one before still hangs: the engine cannot
// end a command, and a new one each time would fill the container.
func runExec(ctx context.Context, e Engine, t Target, p stack.Probe, hangs string, timeout time.Duration) outcome {
	if hangs != "" {
		switch runs, err := e.ExecRuns(ctx, hangs); {
		case err != nil:
			return outcome{unknown: true, hangs: hangs}
		case runs:
			return outcome{failed: "the command of an earlier check still runs", hangs: hangs}
		}
	}
	r, err := e.Exec(ctx, t.Container, p.Command)
	switch {
	case errors.Is(err, engine.ErrExecTimeout):
		return outcome{failed: failure(context.DeadlineExceeded, timeout), hangs: r.ID}
	case errors.Is(err, engine.ErrUnreachable), errors.Is(err, engine.ErrNotFound), ctx.Err() != nil:
		// The engine's trouble, or a container about to be forgotten.
		return outcome{unknown: true}
	case err != nil:
		return outcome{failed: printable(err.Error())}
	case r.ExitCode != 0:
		text := fmt.Sprintf("exit code %d", r.ExitCode)
		if out := printable(r.Output); out != "" {
			text += ": " + out
		}
		return outcome{failed: text}
	}
	return outcome{}
}

// failure turns an error into one printable line, "" for none.
func failure(err error, timeout time.Duration) string {
	var ne net.Error
	switch {
	case err == nil:
		return ""
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return "no answer within " + timeout.String()
	}
	if s := printable(err.Error()); s != "" {
		return s
	}
	return "failed"
}

// printable makes one line of what a container said: the last that is not
// empty, shortened, without control characters, so that it can do no harm on
// a terminal or in a log.
func printable(s string) string {
	s = strings.TrimSpace(strings.ToValidUTF8(s, "?"))
	if i := strings.LastIndexAny(s, "\n\r"); i >= 0 {
		s = s[i+1:]
	}
	n := 0
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if n++; n > maxOutput {
			return -1
		}
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s))
}
