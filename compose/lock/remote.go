// SPDX-License-Identifier: Apache-2.0

package lock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Remote is one repository at its own registry or at a mirror, asked for what
// a digest names. It has no credentials: it takes a token where a registry
// hands one to anybody. It checks no digest; who reads must.
type Remote struct {
	registry name.Registry
	repo     string
	where    string
	base     http.RoundTripper

	mu     sync.Mutex
	client *http.Client // nil until the registry has answered once
}

// RegistryOf is the registry that a reference without a digest means, as an
// admin writes it: "docker.io" for "nginx:1".
func RegistryOf(ref string) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", fmt.Errorf("%q is no image reference: %w", ref, err)
	}
	return reference.Domain(named), nil
}

// NewRemote is the repository of a reference: at its own registry where mirror
// is "", else at a mirror, "https://HOST[:PORT][/PREFIX]", where the
// repository lies below the prefix. A mirror is spoken to in plain HTTP only
// where it is written http://; what its bytes must be is known by digest.
// Nothing is asked yet.
func NewRemote(ref, mirror string, base http.RoundTripper) (*Remote, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("%q is no image reference: %w", ref, err)
	}
	r := &Remote{repo: reference.Path(named), where: reference.Domain(named), base: base}
	host, opts := r.where, []name.Option{}
	if mirror != "" {
		u, err := url.Parse(mirror)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("registry mirror %q is no address: write it like https://mirror.example.com or https://mirror.example.com/prefix", mirror)
		}
		host, r.where = u.Host, "mirror "+u.Host
		if prefix := strings.Trim(u.Path, "/"); prefix != "" {
			r.repo, r.where = prefix+"/"+r.repo, r.where+"/"+prefix
		}
		if u.Scheme == "http" {
			opts = append(opts, name.Insecure)
		} else {
			r.base = onlyTLS{host, base}
		}
	}
	if r.registry, err = name.NewRegistry(host, opts...); err != nil {
		return nil, fmt.Errorf("registry %s: %w", host, err)
	}
	return r, nil
}

// onlyTLS refuses plain HTTP to a host: go-containerregistry tries it with
// private addresses.
type onlyTLS struct {
	host string
	next http.RoundTripper
}

func (o onlyTLS) RoundTrip(q *http.Request) (*http.Response, error) {
	if q.URL.Scheme == "http" && q.URL.Host == o.host {
		return nil, fmt.Errorf("%s does not answer by HTTPS", o.host)
	}
	return o.next.RoundTrip(q)
}

// String names the registry or mirror for people.
func (r *Remote) String() string { return r.where }

// AnswerError is an answer that holds no bytes of a blob.
type AnswerError struct {
	// Status is the HTTP status.
	Status int
	// RetryAfter is how long the registry asks to be left alone, 0 where it
	// does not say.
	RetryAfter time.Duration
	// Text is the registry's own, one line.
	Text string
}

func (e *AnswerError) Error() string {
	s := fmt.Sprintf("answered %d %s", e.Status, http.StatusText(e.Status))
	if e.Text != "" {
		s += " (" + e.Text + ")"
	}
	return s
}

// Final is true where asking again later is of no use until somebody changes
// something: the registry has no such thing or does not hand it out.
func (e *AnswerError) Final() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusProxyAuthRequired:
		return false
	}
	return e.Status >= 400 && e.Status < 500
}

// Part is a body from a server: Len bytes from At on. Size is the length of
// the whole. Len and Size are -1 where the server does not say.
type Part struct {
	io.ReadCloser
	At, Len, Size int64
}

// Manifest asks for an image manifest of a media type.
func (r *Remote) Manifest(ctx context.Context, digest, mediaType string) (Part, error) {
	return r.get(ctx, "manifests/"+digest, mediaType, "")
}

// Blob asks for a blob of size bytes from byte from on. A registry that knows
// no ranges gives the whole, and Part.At is then 0.
func (r *Remote) Blob(ctx context.Context, digest string, from, size int64) (Part, error) {
	span := ""
	if from > 0 {
		span = fmt.Sprintf("bytes=%d-%d", from, size-1)
	}
	p, err := r.get(ctx, "blobs/"+digest, "", span)
	if err == nil && p.Size >= 0 && p.Len >= 0 && p.At+p.Len != p.Size { // what was asked for ends with the blob
		p.Close()
		return Part{}, fmt.Errorf("answered with %d bytes from %d on of %d", p.Len, p.At, p.Size)
	}
	return p, err
}

// Span asks for length bytes, at least 1, of a blob from byte from on. A
// registry that knows no ranges gives the whole, and one that errs another
// part: whoever asks looks at Part.
func (r *Remote) Span(ctx context.Context, digest string, from, length int64) (Part, error) {
	return r.get(ctx, "blobs/"+digest, "", fmt.Sprintf("bytes=%d-%d", from, from+length-1))
}

func (r *Remote) get(ctx context.Context, what, accept, span string) (Part, error) {
	client, err := r.signIn(ctx)
	if err != nil {
		return Part{}, answer(err)
	}
	u := url.URL{Scheme: "https", Host: r.registry.RegistryStr(), Path: "/v2/" + r.repo + "/" + what}
	return Get(ctx, client, u.String(), accept, span)
}

// Get asks any web server for a file, in the types that accept names, or for
// the part of it that span ("bytes=0-99") names; both may be "". An answer
// without the file's bytes is an *AnswerError.
func Get(ctx context.Context, client *http.Client, address, accept, span string) (Part, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return Part{}, err
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	if span != "" {
		req.Header.Set("Range", span)
	}
	resp, err := client.Do(req)
	if err != nil {
		return Part{}, answer(err)
	}
	p := Part{ReadCloser: resp.Body, Len: resp.ContentLength, Size: resp.ContentLength}
	switch {
	case resp.StatusCode == http.StatusOK:
		return p, nil
	case resp.StatusCode == http.StatusPartialContent && span != "":
		p.At, p.Len, p.Size, err = contentRange(resp.Header.Get("Content-Range"))
		if err == nil && resp.ContentLength >= 0 && resp.ContentLength != p.Len {
			err = fmt.Errorf("answered with the range %q and %d bytes", cut(resp.Header.Get("Content-Range")), resp.ContentLength)
		}
		if err != nil {
			resp.Body.Close()
			return Part{}, err
		}
		return p, nil
	}
	defer resp.Body.Close()
	e := &AnswerError{Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	var told *transport.Error
	if errors.As(transport.CheckError(resp), &told) && len(told.Errors) > 0 {
		e.Text = cut(told.Errors[0].String())
	}
	return Part{}, e
}

// signIn asks the registry once how it wants to be asked.
func (r *Remote) signIn(ctx context.Context) (*http.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client != nil {
		return r.client, nil
	}
	scope := r.registry.Repo(r.repo).Scope(transport.PullScope)
	t, err := transport.NewWithContext(ctx, r.registry, authn.Anonymous, r.base, []string{scope})
	if err != nil {
		return nil, err
	}
	r.client = &http.Client{Transport: t}
	return r.client, nil
}

// answer turns what go-containerregistry makes of an answer into ours.
func answer(err error) error {
	var told *transport.Error
	if !errors.As(err, &told) {
		return err
	}
	e := &AnswerError{Status: told.StatusCode}
	if len(told.Errors) > 0 {
		e.Text = cut(told.Errors[0].String())
	}
	return e
}

// contentRange reads "bytes 100-199/200" (RFC 9110, 14.4); size is -1 for "*".
func contentRange(s string) (from, length, size int64, err error) {
	bad := fmt.Errorf("answered with the range %q", cut(s))
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, all, ok2 := strings.Cut(rest, "/")
	first, last, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, 0, bad
	}
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	if err1 != nil || err2 != nil || from < 0 || to < from || to == math.MaxInt64 {
		return 0, 0, 0, bad
	}
	if all == "*" {
		return from, to - from + 1, -1, nil
	}
	size, err = strconv.ParseInt(all, 10, 64)
	if err != nil || size <= to {
		return 0, 0, 0, bad
	}
	return from, to - from + 1, size, nil
}

// retryAfter reads a Retry-After in seconds; its other form, a date, is worth
// nothing to a box whose clock is not set yet.
func retryAfter(s string) time.Duration {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 {
		return 0
	}
	return time.Duration(n) * time.Second
}

// cut makes one short line of what somebody else wrote.
func cut(s string) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)), " ")
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}
