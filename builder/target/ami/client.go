// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/holdfast/holdfast/builder/version"
)

// credentialsWithin bounds the search for credentials, whose last place is the
// metadata service of a machine that may not be one of EC2.
const credentialsWithin = 30 * time.Second

// clients makes clients by region.
type clients struct {
	cfg    aws.Config
	access Access
}

// connect finds region and credentials by the SDK's usual chain.
func connect(ctx context.Context, a Access, p Patience) (*clients, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, credentialsWithin, fmt.Errorf("looked %s for AWS credentials", credentialsWithin))
	defer cancel()
	opts := []func(*config.LoadOptions) error{
		config.WithHTTPClient(httpClient(p)),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
		config.WithAppID("holdfast/" + version.Version),
	}
	if a.Region != "" {
		opts = append(opts, config.WithRegion(a.Region))
	}
	if a.Profile != "" {
		opts = append(opts, config.WithSharedConfigProfile(a.Profile))
	}
	if a.AccessKey != "" {
		opts = append(opts, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(a.AccessKey, a.SecretKey, a.Token)))
	}
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("read the AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		return nil, fmt.Errorf("region: is not set: name it, or set AWS_REGION, or let the profile have one")
	}
	if a.RoleARN != "" {
		cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), a.RoleARN, func(r *stscreds.AssumeRoleOptions) {
			r.RoleSessionName = or(a.RoleSession, "holdfast")
			if a.ExternalID != "" {
				r.ExternalID = &a.ExternalID
			}
		}))
	}
	if cfg.Credentials == nil {
		return nil, noCredentials(fmt.Errorf("nothing names any"))
	}
	for n := 1; ; n++ {
		_, err := cfg.Credentials.Retrieve(ctx)
		if err == nil {
			break
		}
		// A service that gives credentials may have a bad moment; that
		// there are none is no such moment.
		if v := judge(err); code(err) == "" || v != again && v != throttled || n == 5 || pause(ctx, backoff(p.Backoff, p.MaxBackoff, n)) != nil {
			return nil, noCredentials(err)
		}
	}
	a.Region = cfg.Region
	return &clients{cfg: cfg, access: a}, nil
}

func noCredentials(err error) error {
	return &callError{fmt.Sprintf("no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or profile, or run on a machine with a role (%s)", brief(err)), err}
}

// httpClient has the deadlines that the SDK's own does not set, and a
// connection for each worker. It is of the SDK's kind, so that AWS_CA_BUNDLE
// still counts.
func httpClient(p Patience) *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = p.Read }).
		WithTransportOptions(func(t *http.Transport) {
			t.TLSHandshakeTimeout = p.Read
			t.ResponseHeaderTimeout = p.Read
			t.MaxIdleConns = 2 * maxWorkers
			t.MaxIdleConnsPerHost = maxWorkers
			t.WriteBufferSize = 64 << 10
			// Blocks side by side need connections side by side.
			t.ForceAttemptHTTP2 = false
		})
}

// ec2 is the client for a region.
func (c *clients) ec2(region string) *ec2.Client {
	return ec2.NewFromConfig(c.cfg, func(o *ec2.Options) {
		o.Region = region
		if c.access.EC2 != "" {
			o.BaseEndpoint = &c.access.EC2
		}
	})
}

// ebs is the client for the region of the upload.
func (c *clients) ebs() *ebs.Client {
	return ebs.NewFromConfig(c.cfg, func(o *ebs.Options) {
		if c.access.EBS != "" {
			o.BaseEndpoint = &c.access.EBS
		}
	})
}
