// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

const (
	tokenPath = "/latest/api/token"
	tokenTTL  = "X-aws-ec2-metadata-token-ttl-seconds"
	tokenName = "X-aws-ec2-metadata-token"
	// tokenLife in seconds outlasts one visit.
	tokenLife = "300"
	// maxToken bounds a token in bytes; real ones have 56.
	maxToken = 1 << 10
)

// EC2 reads the instance metadata service, version 2 (Amazon EC2 User Guide,
// "Use the Instance Metadata Service"). An error means that nothing was read.
func (c Client) EC2(ctx context.Context) (Answer, error) {
	ctx, s, cancel, err := c.open(ctx)
	if err != nil {
		return Answer{}, err
	}
	defer cancel()
	token, err := s.token(ctx)
	if err != nil {
		return Answer{}, err
	}
	q := func(path string, limit int64) question {
		return question{method: http.MethodGet, path: path, limit: limit, header: map[string]string{tokenName: token}}
	}
	a := Answer{
		UserData: s.renewing(ctx, q("/latest/user-data", c.Limit)),
		SSHKey:   s.renewing(ctx, q("/latest/meta-data/public-keys/0/openssh-key", maxKey)),
	}
	a.ID = s.fact(ctx, q("/latest/meta-data/instance-id", 0))
	a.Name = s.fact(ctx, q("/latest/meta-data/local-hostname", 0))
	a.Region = s.fact(ctx, q("/latest/meta-data/placement/region", 0))
	a.Zone = s.fact(ctx, q("/latest/meta-data/placement/availability-zone", 0))
	return a, nil
}

// token opens a session of version 2.
func (s *session) token(ctx context.Context) (string, error) {
	data, fail := s.ask(ctx, question{method: http.MethodPut, path: tokenPath, limit: maxToken, header: map[string]string{tokenTTL: tokenLife}})
	if fail != nil {
		switch fail.code {
		case http.StatusForbidden:
			return "", fmt.Errorf("%w: metadata is turned off for this instance (HttpEndpoint)", fail)
		case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
			return "", fmt.Errorf("%w: the service knows no session tokens (IMDSv2), and version 1 is never used", fail)
		}
		return "", fail
	}
	token := strings.TrimSpace(string(data))
	if token == "" || len(data) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("PUT %s gave something that is no session token (IMDSv2), and version 1 is never used", s.base+tokenPath)
	}
	return token, nil
}

// renewing asks once more with a new token where the service no longer takes
// the old one.
func (s *session) renewing(ctx context.Context, q question) Item {
	data, fail := s.ask(ctx, q)
	if fail == nil || fail.code != http.StatusUnauthorized {
		return itemOf(data, fail)
	}
	token, err := s.token(ctx)
	if err != nil {
		return Item{Err: err}
	}
	q.header = map[string]string{tokenName: token}
	return itemOf(s.ask(ctx, q))
}
