// SPDX-License-Identifier: Apache-2.0

package depot

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/holdfast/holdfast/compose/lock"
)

const (
	// stall is how long a server may take for its answer, and for stallBytes
	// of it: one that gives a byte a minute is as good as away.
	stall      = time.Minute
	stallBytes = 1 << 10
	// maxRedirects is how often one request may be sent elsewhere.
	maxRedirects = 5
	// maxRead bounds one read, so that a bandwidth limit is kept smoothly.
	maxRead = 64 << 10
	// maxSmall bounds answers that hold neither blob nor metadata.
	maxSmall = 8 << 20
)

var (
	errStalled   = fmt.Errorf("said less than %d bytes in %s", stallBytes, stall)
	errRedirects = fmt.Errorf("sends requests elsewhere more than %d times", maxRedirects)
	errDowngrade = errors.New("sends a request from https to http")
	errAddress   = errors.New("sends a request to an address that is neither http nor https")
)

// line is the way to one server.
type line struct {
	client *http.Client
	base   http.RoundTripper
	limit  *rate.Limiter
}

func newLine(o Options, secure bool) *line {
	l := &line{base: o.Transport}
	if l.base == nil {
		l.base = &http.Transport{
			Proxy:       o.Proxy,
			DialContext: (&net.Dialer{Timeout: 30 * time.Second}).DialContext, TLSHandshakeTimeout: 30 * time.Second,
			ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 4, IdleConnTimeout: 90 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			// Blobs are compressed as they are, and ranges are of the blob.
			DisableCompression: true,
		}
	}
	l.client = &http.Client{Transport: l.base, CheckRedirect: func(q *http.Request, via []*http.Request) error {
		switch {
		case len(via) > maxRedirects:
			return errRedirects
		case secure && q.URL.Scheme == "http":
			return errDowngrade
		case q.URL.Scheme != "http" && q.URL.Scheme != "https":
			return errAddress
		}
		return nil
	}}
	if o.Limit > 0 {
		l.limit = rate.NewLimiter(rate.Limit(o.Limit), maxRead)
	}
	return l
}

// body is an answer that is being read: at is the offset of its next byte, left
// how many it says it has and size how many the whole has, -1 where it does not
// say.
type body struct {
	rc             io.ReadCloser
	digest         string
	at, left, size int64
	// whole is true where the answer begins with the first byte.
	whole bool

	limit  *rate.Limiter
	ctx    context.Context
	cancel context.CancelCauseFunc
	// unlink ends following the caller's context.
	unlink func() bool
	watch  watch
	once   sync.Once
}

// ask sends a request and waits for the head of its answer.
func (l *line) ask(ctx context.Context, send func(context.Context) (lock.Part, error)) (*body, error) {
	b := &body{limit: l.limit, watch: watch{left: stall}}
	// The answer may outlive the call that asked for it.
	b.ctx, b.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	b.follow(ctx)
	var part lock.Part
	err := b.watched(func() (n int, err error) {
		part, err = send(b.ctx)
		return stallBytes, err
	})
	if err != nil {
		b.unlink()
		b.cancel(nil)
		return nil, err
	}
	b.rc, b.at, b.left, b.size = part.ReadCloser, part.At, part.Len, part.Size
	b.whole = part.At == 0 && part.Len == part.Size
	return b, nil
}

// follow ends the answer with ctx from now on, and says whether it has not
// ended already with the context it followed before.
func (b *body) follow(ctx context.Context) (alive bool) {
	alive = b.unlink == nil || b.unlink()
	b.unlink = context.AfterFunc(ctx, func() { b.cancel(context.Cause(ctx)) })
	return alive
}

// watched does what waits for the server, and ends it when that takes too long.
func (b *body) watched(wait func() (int, error)) error {
	began := time.Now()
	t := time.AfterFunc(b.watch.left, func() { b.cancel(errStalled) })
	n, err := wait()
	t.Stop()
	b.watch.got(n, time.Since(began))
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(b.ctx); cause != nil {
			return cause
		}
	}
	return err
}

// watch counts the time that is waited for bytes, not the time that passes
// between reads: the reader may be slow.
type watch struct {
	left time.Duration
	n    int
}

func (w *watch) got(n int, took time.Duration) {
	w.left, w.n = w.left-took, w.n+n
	if w.n >= stallBytes {
		w.left, w.n = stall, 0
	}
}

func (b *body) Read(p []byte) (n int, err error) {
	if len(p) > maxRead {
		p = p[:maxRead]
	}
	err = b.watched(func() (int, error) {
		var err error
		n, err = b.rc.Read(p)
		return n, err
	})
	b.at += int64(n)
	if b.left >= 0 {
		b.left -= int64(n)
	}
	if n > 0 && b.limit != nil {
		if err := b.limit.WaitN(b.ctx, n); err != nil {
			return n, context.Cause(b.ctx)
		}
	}
	return n, err
}

// skip reads n bytes for nothing.
func (b *body) skip(n int64) error {
	got, err := io.CopyN(io.Discard, b, n)
	if errors.Is(err, io.EOF) {
		return &Transient{fmt.Errorf("ended its answer after %d of %d bytes to be skipped", got, n)}
	}
	return err
}

func (b *body) Close() error {
	b.once.Do(func() {
		b.unlink()
		b.cancel(nil)
		b.rc.Close()
	})
	return nil
}

// tell names the place in an error, and says whether another try may mend it.
func tell(place string, err error) error {
	var transient *Transient
	var said *lock.AnswerError
	var invalid x509.CertificateInvalidError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errLong):
		return err
	case errors.As(err, &transient):
		return &Transient{fmt.Errorf("%s %w", place, transient.Err)}
	case errors.As(err, &said) && said.Final():
		return fmt.Errorf("%s %w", place, said)
	case errors.As(err, &said):
		return &Transient{fmt.Errorf("%s %w", place, said)}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		// A box's clock may still be set.
		return &Transient{fmt.Errorf("%s has a certificate that is not valid now; look whether this box's clock is right", place)}
	case errors.As(err, &cert), errors.Is(err, errRedirects), errors.Is(err, errDowngrade), errors.Is(err, errAddress):
		return fmt.Errorf("%s cannot be used: %w", place, plain(err))
	}
	return &Transient{fmt.Errorf("%s cannot be read: %w", place, plain(err))}
}

// plain is an error without the request it comes from.
func plain(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		return request.Err
	}
	return err
}

// capped bounds what go-containerregistry reads of its own: it takes the answer
// to its first question whole.
type capped struct{ next http.RoundTripper }

func (c capped) RoundTrip(q *http.Request) (*http.Response, error) {
	resp, err := c.next.RoundTrip(q)
	if err == nil && !strings.Contains(q.URL.Path, "/blobs/") {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxSmall), resp.Body}
	}
	return resp, err
}
