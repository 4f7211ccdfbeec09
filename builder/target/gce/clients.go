// SPDX-License-Identifier: Apache-2.0

package gce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/auth/credentials/impersonate"
	"google.golang.org/api/compute/v1"
	"google.golang.org/api/option"
	"google.golang.org/api/storage/v1"
	htransport "google.golang.org/api/transport/http"

	"github.com/holdfast/holdfast/builder/version"
)

const (
	scope = "https://www.googleapis.com/auth/cloud-platform"
	// maxKey bounds a credentials file in bytes.
	maxKey = 1 << 20
)

// Credentials say who asks. With none of them Google's usual chain is
// followed: GOOGLE_APPLICATION_CREDENTIALS, what `gcloud auth
// application-default login` wrote, the machine's own account.
type Credentials struct {
	// File or JSON is a key or a federation config of Google's; Token an OAuth
	// access token. At most one of the three.
	File, JSON, Token string
	// Impersonate is the e-mail address of a service account to act as.
	Impersonate string
}

// kinds of credentials files that we take; each is a type of its own in
// Google's library, so that a file of another kind is not run by accident.
var kinds = []credentials.CredType{
	credentials.ServiceAccount, credentials.AuthorizedUser, credentials.ExternalAccount,
	credentials.ExternalAccountAuthorizedUser, credentials.ImpersonatedServiceAccount,
}

func (c Credentials) check(report func(key, format string, args ...any)) {
	n := 0
	for _, s := range []string{c.File, c.JSON, c.Token} {
		if s != "" {
			n++
		}
	}
	if n > 1 {
		report("credentials_file", "set one of credentials_file, credentials_json and access_token")
	}
	if c.Impersonate != "" && !accountRE.MatchString(c.Impersonate) {
		report("impersonate_service_account", "%q is not the e-mail address of a service account", c.Impersonate)
	}
}

// open finds the credentials; it may ask for a token.
func (c Credentials) open(client *http.Client) (*auth.Credentials, error) {
	base, err := c.base(client)
	if err != nil || c.Impersonate == "" {
		return base, err
	}
	return impersonate.NewCredentials(&impersonate.CredentialsOptions{TargetPrincipal: c.Impersonate, Scopes: []string{scope}, Credentials: base})
}

func (c Credentials) base(client *http.Client) (*auth.Credentials, error) {
	o := &credentials.DetectOptions{Scopes: []string{scope}, Client: client}
	switch {
	case c.Token != "":
		return auth.NewCredentials(&auth.CredentialsOptions{TokenProvider: token(c.Token)}), nil
	case c.File != "":
		f, err := os.Open(c.File)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxKey)) // what is cut off does not parse
		if err != nil {
			return nil, err
		}
		creds, err := parse(b, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.File, err)
		}
		return creds, nil
	case c.JSON != "":
		return parse([]byte(c.JSON), o)
	}
	return credentials.DetectDefault(o)
}

func parse(b []byte, o *credentials.DetectOptions) (*auth.Credentials, error) {
	var head struct {
		Type credentials.CredType `json:"type"`
	}
	if err := json.Unmarshal(b, &head); err != nil || !slices.Contains(kinds, head.Type) {
		return nil, errors.New("not a credentials file of Google's: download the JSON key of a service account, or run `gcloud auth application-default login`")
	}
	return credentials.NewCredentialsFromJSON(head.Type, b, o)
}

// token is an access token as it is.
type token string

func (t token) Token(context.Context) (*auth.Token, error) {
	return &auth.Token{Value: string(t), Type: "Bearer"}, nil
}

// clients are what publish talks to.
type clients struct {
	storage *storage.Service
	compute *compute.Service
	// http is for the upload's session, which the storage service hides.
	http     *http.Client
	sessions *sessions
}

func (u Upload) connect(ctx context.Context, l limits) (*clients, error) {
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.ResponseHeaderTimeout = l.attempt // else a server that hangs hangs us
	creds, err := u.Credentials.open(&http.Client{Transport: base, Timeout: l.attempt})
	if err != nil {
		return nil, noCredentials(err)
	}
	err = l.try(ctx, func(ctx context.Context) error {
		_, err := creds.Token(ctx)
		return err
	})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, noCredentials(err)
	}
	authed, err := htransport.NewTransport(ctx, base, option.WithAuthCredentials(creds), option.WithUserAgent("holdfast/"+version.Version))
	if err != nil {
		return nil, noCredentials(err)
	}
	c := &clients{sessions: &sessions{next: authed}, http: &http.Client{Transport: authed}}
	opts := func(client *http.Client, address, path string) []option.ClientOption {
		o := []option.ClientOption{option.WithHTTPClient(client)}
		if address != "" {
			full, _ := endpoint(address, path) // was checked
			o = append(o, option.WithEndpoint(full))
		}
		return o
	}
	if c.storage, err = storage.NewService(ctx, opts(&http.Client{Transport: c.sessions}, u.StorageEndpoint, "/storage/v1/")...); err != nil {
		return nil, err
	}
	if c.compute, err = compute.NewService(ctx, opts(c.http, u.ComputeEndpoint, "/compute/v1/")...); err != nil {
		return nil, err
	}
	return c, nil
}

// endpoint is the base address of an API; one without a path gets the API's.
func endpoint(address, path string) (string, error) {
	l, err := url.Parse(address)
	if address != "" && (err != nil || l.Scheme != "http" && l.Scheme != "https" || l.Host == "" || l.RawQuery != "" || l.Fragment != "" || l.User != nil) {
		return "", fmt.Errorf("%q is no address: it starts with https:// or http://, such as \"https://compute.example.com/compute/v1/\"", address)
	}
	if strings.Trim(l.Path, "/") == "" {
		l.Path = path
	}
	return strings.TrimSuffix(l.String(), "/") + "/", nil
}

// sessions remembers the address of a resumable upload, which the client
// library keeps to itself, so that an upload that is given up can be cancelled.
type sessions struct {
	next http.RoundTripper
	mu   sync.Mutex
	last string
}

func (s *sessions) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := s.next.RoundTrip(r)
	if err == nil && r.URL.Query().Get("uploadType") == "resumable" && res.Header.Get("Location") != "" {
		s.mu.Lock()
		s.last = res.Header.Get("Location")
		s.mu.Unlock()
	}
	return res, err
}

// open is the upload that has begun and not ended, "" for none.
func (s *sessions) open() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func (s *sessions) ended() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = ""
}

// limits are how long things may take.
type limits struct {
	// attempt is for one request, retry for all attempts at it, pause the first
	// one between two.
	attempt, retry, pause time.Duration
	// answer is how long a request that must not be left half-done may go on
	// after the run was cancelled.
	answer time.Duration
	// chunk is the upload's, in bytes, a multiple of 256 KiB; piece is how long
	// one attempt at a chunk may take.
	chunk int
	piece time.Duration
	// poll is between two looks at an operation.
	poll time.Duration
	// cleanup is for all that is done after a failure.
	cleanup time.Duration
}

// outlive is ctx, but ends l.answer after it, and after l.attempt at most.
func (l limits) outlive(ctx context.Context) (context.Context, context.CancelFunc) {
	out, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.attempt)
	stop := context.AfterFunc(ctx, func() {
		defer cancel()
		_ = wait(out, l.answer) // ends early when the request does
	})
	return out, func() { stop(); cancel() }
}

func usual() limits {
	return limits{
		attempt: 30 * time.Second, retry: 3 * time.Minute, pause: 500 * time.Millisecond, answer: 5 * time.Second,
		chunk: 16 << 20, piece: 3 * time.Minute,
		poll: 3 * time.Second, cleanup: time.Minute,
	}
}
