// SPDX-License-Identifier: Apache-2.0

package gce

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"cloud.google.com/go/auth"
	"google.golang.org/api/googleapi"
)

// maxPause is the longest pause between two attempts.
const maxPause = 15 * time.Second

// try makes attempts at one request until it is answered, refused, or l.retry
// is over. It is the only layer of retries but the upload's own. Its error is
// the last attempt's, or the cause of ctx.
func (l limits) try(ctx context.Context, f func(context.Context) error) error {
	until := time.Now().Add(l.retry)
	for n := 1; ; n++ {
		attempt, cancel := context.WithTimeout(ctx, l.attempt)
		err := f(attempt)
		late := attempt.Err() != nil
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !late && !transient(err):
			return err
		case !time.Now().Before(until):
			return fmt.Errorf("gave up after %d attempts in %s: %w", n, l.retry, err)
		}
		if err := wait(ctx, pause(l.pause, n)); err != nil {
			return err
		}
	}
}

// pause doubles with each attempt, with jitter so that many clients spread.
func pause(first time.Duration, n int) time.Duration {
	p := min(first<<min(n-1, 10), maxPause)
	return p/2 + rand.N(p/2+1)
}

// wait ends early with the cause of ctx.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// transient tells what may go away by itself: Google's status codes for it
// (Cloud Storage, "Retry strategy"; Compute Engine, "Error responses"), and all
// that goes wrong between here and there. A refusal is an answer.
func transient(err error) bool {
	var api *googleapi.Error
	if errors.As(err, &api) {
		switch api.Code {
		case 408, 429, 500, 502, 503, 504:
			return true
		case 403:
			return reason(api, "rateLimitExceeded", "userRateLimitExceeded")
		}
		return false
	}
	var token *auth.Error
	if errors.As(err, &token) {
		return token.Temporary()
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return !dns.IsNotFound
	}
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	if errors.As(err, &unknown) || errors.As(err, &name) || errors.As(err, &invalid) || errors.Is(err, context.Canceled) {
		return false
	}
	var network net.Error // url.Error is one, whatever it wraps
	return errors.As(err, &network)
}

func reason(err *googleapi.Error, any ...string) bool {
	return slices.ContainsFunc(err.Errors, func(i googleapi.ErrorItem) bool { return slices.Contains(any, i.Reason) })
}

func status(err error) int {
	var api *googleapi.Error
	if errors.As(err, &api) {
		return api.Code
	}
	return 0
}
