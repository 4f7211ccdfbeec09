// SPDX-License-Identifier: Apache-2.0

// Package cloud reads the metadata service of EC2 and GCE: user-data, and what
// the cloud calls the machine. On EC2 it speaks version 2 only: without a
// session token nothing is read, whatever the service would give away.
//
// It asks one literal address, through no proxy and with no name server, and
// follows no redirect. Answers are bounded in bytes and time. It judges no
// content.
package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Address is where both clouds have the service.
const Address = "http://169.254.169.254"

const (
	// tries bounds how often one question is asked.
	tries = 12
	// firstPause doubles after each try up to lastPause.
	firstPause = 250 * time.Millisecond
	lastPause  = 8 * time.Second
	// maxHeader bounds the header of an answer, maxFact an answer that is no
	// document, in bytes.
	maxHeader = 16 << 10
	maxFact   = 1 << 10
	// maxKey bounds a public key; the largest RSA key has about 3 KiB.
	maxKey = 16 << 10
)

// Client asks a metadata service. The zero value is ready.
type Client struct {
	// Base is the URL of the service, "" for Address. Its host is a literal
	// link-local address, or a loopback one for tests.
	Base string
	// Attempt and Total bound one question and all of them; 0 means 5 s and
	// 60 s.
	Attempt, Total time.Duration
	// Pause waits between two tries; nil waits by the clock.
	Pause func(context.Context, time.Duration) error
	// Limit is the most of a document to read in bytes; one byte more is
	// given where there is more, so that the reader sees it.
	Limit int64
}

// Item is one answer.
type Item struct {
	Data []byte
	// Found is false where the service says that there is none.
	Found bool
	// Err is why nothing is known.
	Err error
}

// Answer is what a service said.
type Answer struct {
	UserData Item
	// SSHKey is the public key of the key pair that was named at launch; EC2
	// only.
	SSHKey Item
	// ID, Name, Region and Zone may be empty.
	ID, Name, Region, Zone string
}

// failure is an error of one try.
type failure struct {
	err error
	// final is true where asking again can't help.
	final bool
	// code is the HTTP status, 0 without an answer.
	code int
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func final(format string, args ...any) *failure {
	return &failure{err: fmt.Errorf(format, args...), final: true}
}

// session is one visit to the service.
type session struct {
	Client
	base string
	http *http.Client
}

// open starts a visit. cancel ends it.
func (c Client) open(ctx context.Context) (_ context.Context, s *session, cancel func(), err error) {
	if c.Base == "" {
		c.Base = Address
	}
	if c.Attempt == 0 {
		c.Attempt = 5 * time.Second
	}
	if c.Total == 0 {
		c.Total = time.Minute
	}
	if c.Pause == nil {
		c.Pause = pause
	}
	host, err := checkBase(c.Base)
	if err != nil {
		return nil, nil, nil, err
	}
	dialer := &net.Dialer{Timeout: c.Attempt}
	transport := &http.Transport{
		// The address of the base and no other, whatever an answer says.
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, host)
		},
		Proxy: nil, DisableCompression: true, MaxResponseHeaderBytes: maxHeader, MaxConnsPerHost: 1,
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ctx, stop := context.WithTimeoutCause(ctx, c.Total, fmt.Errorf("no good answer from %s within %v", c.Base, c.Total))
	return ctx, &session{Client: c, base: strings.TrimSuffix(c.Base, "/"), http: client}, func() { stop(); transport.CloseIdleConnections() }, nil
}

// checkBase gives the HOST:PORT to dial.
func checkBase(base string) (string, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" || u.User != nil {
		return "", fmt.Errorf("metadata service %q: want http://ADDRESS", base)
	}
	addr, err := netip.ParseAddr(u.Hostname())
	// Documents from here set up the whole box: never from over a router.
	if err != nil || !addr.IsLinkLocalUnicast() && !addr.IsLoopback() {
		return "", fmt.Errorf("metadata service %q: not a link-local address", base)
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(addr.String(), port), nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// question is one request.
type question struct {
	method, path string
	header       map[string]string
	// limit of the answer in bytes.
	limit int64
	// judge, if not nil, refuses an answer by its header.
	judge func(http.Header) error
}

// ask asks until there is an answer, a final error, or no time left.
func (s *session) ask(ctx context.Context, q question) ([]byte, *failure) {
	wait := firstPause
	for try := 1; ; try++ {
		data, fail := s.once(ctx, q)
		if fail == nil || fail.final {
			return data, fail
		}
		if try == tries {
			return nil, &failure{err: fmt.Errorf("%w (tried %d times)", fail.err, try), code: fail.code}
		}
		if err := s.Pause(ctx, wait); err != nil {
			return nil, &failure{err: fmt.Errorf("%w; the last try: %v", err, fail.err), code: fail.code}
		}
		wait = min(2*wait, lastPause)
	}
}

func (s *session) once(ctx context.Context, q question) ([]byte, *failure) {
	ctx, stop := context.WithTimeoutCause(ctx, s.Attempt, fmt.Errorf("no answer within %v", s.Attempt))
	defer stop()
	req, err := http.NewRequestWithContext(ctx, q.method, s.base+q.path, nil)
	if err != nil {
		return nil, final("%v", err)
	}
	for k, v := range q.header {
		req.Header.Set(k, v)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, &failure{err: s.told(ctx, q, err)}
	}
	defer resp.Body.Close()
	if code := resp.StatusCode; code != http.StatusOK {
		f := &failure{code: code, err: fmt.Errorf("%s %s answered HTTP %d", q.method, s.base+q.path, code)}
		f.final = code < 500 && code != http.StatusTooManyRequests
		// A 404 is an answer too, and must come from the service itself.
		if q.judge != nil && q.judge(resp.Header) != nil {
			f.code = 0
		}
		return nil, f
	}
	if q.judge != nil {
		if err := q.judge(resp.Header); err != nil {
			return nil, final("%s: %v", s.base+q.path, err)
		}
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, q.limit+1))
	if err != nil {
		return nil, &failure{err: s.told(ctx, q, err)}
	}
	return data, nil
}

// told says which deadline ended a request.
func (s *session) told(ctx context.Context, q question, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("%s %s: %w", q.method, s.base+q.path, err)
}

// itemOf is an answer that may be missing.
func itemOf(data []byte, fail *failure) Item {
	switch {
	case fail == nil:
		return Item{Data: data, Found: true}
	case fail.code == http.StatusNotFound:
		return Item{}
	}
	return Item{Err: fail}
}

// fact is a short line, "" where it can't be had: it only serves people, so it
// is asked for once.
func (s *session) fact(ctx context.Context, q question) string {
	q.limit = maxFact
	data, fail := s.once(ctx, q)
	if fail != nil || len(data) > maxFact {
		return ""
	}
	text := strings.TrimSpace(string(data))
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' {
			return ""
		}
	}
	return text
}
