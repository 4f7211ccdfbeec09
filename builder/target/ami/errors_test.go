// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/smithy-go"
)

func api(code, message string) error {
	return fmt.Errorf("operation error: %w", &smithy.GenericAPIError{Code: code, Message: message})
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		err  error
		want verdict
	}{
		{nil, passed},
		{api("RequestLimitExceeded", ""), throttled}, {api("RequestThrottledException", ""), throttled}, {api("ThrottlingException", ""), throttled},
		{api("InternalServerException", ""), again}, {api("ServiceUnavailable", ""), again},
		{&ebstypes.ResourceNotFoundException{}, missing}, {api("InvalidSnapshot.NotFound", ""), missing},
		{api("UnauthorizedOperation", ""), refused}, {api("ExpiredToken", ""), refused}, {api("AuthFailure", ""), refused},
		{api("ValidationException", "no"), final}, {api("InvalidAMIName.Duplicate", ""), final},
		{&ebstypes.ValidationException{Reason: ebstypes.ValidationExceptionReasonWriteRequestTimeout}, timedOut},
		{&ebstypes.ValidationException{Reason: ebstypes.ValidationExceptionReasonConflictingBlockUpdate}, again},
		{api("ValidationException", "Failed to read block data"), timedOut},
		{&url.Error{Op: "Post", Err: io.ErrUnexpectedEOF}, again}, {io.EOF, again},
		{context.DeadlineExceeded, timedOut}, {&net.DNSError{IsTimeout: true}, timedOut},
		{&url.Error{Err: &net.DNSError{Name: "ec2.eu-wst-1.amazonaws.com", IsNotFound: true}}, final},
	} {
		if got := judge(c.err); got != c.want {
			t.Errorf("%v is %d, want %d", c.err, got, c.want)
		}
	}
}

func TestExplain(t *testing.T) {
	k := call{what: "start a snapshot", permission: "ebs:StartSnapshot"}
	for _, c := range []struct {
		err  error
		want string
	}{
		{&url.Error{Op: "Post", Err: &net.DNSError{Name: "ec2.eu-wst-1.amazonaws.com", Err: "no such host", IsNotFound: true}}, `is "eu-wst-1" the right region`},
		{api("UnauthorizedOperation", "x"), "lack the permission ebs:StartSnapshot in eu-wst-1"},
		{api("AuthFailure", "x"), "AWS does not take these credentials in eu-wst-1"},
		{api("OperationNotPermitted", "You can't publicly share this image because block public access for AMIs is enabled"), "disable-image-block-public-access --region eu-wst-1"},
		{api("ServiceQuotaExceededException", "x"), "quota"},
		{api("KMS.DisabledException", "x"), "KMS key"},
		{api("Other", strings.Repeat("x\n", 500)), "start a snapshot in eu-wst-1: Other: x x"},
	} {
		err := explain("eu-wst-1", k, c.err)
		if text := err.Error(); !strings.Contains(text, c.want) || strings.Contains(text, "\n") || len(text) > 700 {
			t.Errorf("%q, want %q in it", text, c.want)
		}
		if !errors.Is(err, c.err) {
			t.Error("the cause is lost")
		}
	}
}

// No credentials and no region are one error each, before any request.
func TestConnectRefuses(t *testing.T) {
	f, d := newFake(t), baked(t)
	o := f.options(t)
	for _, v := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		t.Setenv(v, "")
	}
	for want, change := range map[string]func(o *Options){
		"no AWS credentials: set AWS_ACCESS_KEY_ID": func(o *Options) { o.AccessKey, o.SecretKey = "", "" },
		"region: is not set":                        func(o *Options) { o.Region = "" },
		"read the AWS configuration: ":              func(o *Options) { o.Profile = "nobody" },
	} {
		bad := o
		change(&bad)
		if _, err := Publish(t.Context(), d, bad, &lines{}); err == nil || !strings.Contains(err.Error(), want) || len(f.log) > 0 {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	// The region of the environment counts.
	t.Setenv("AWS_REGION", "us-west-2")
	o.Region = ""
	if r, err := Publish(t.Context(), d, o, &lines{}); err != nil || r.Region != "us-west-2" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestBackoff(t *testing.T) {
	for n := 1; n < 100; n++ {
		d := backoff(time.Second, 10*time.Second, n)
		if d < 500*time.Millisecond || d > 10*time.Second || n > 5 && d < 5*time.Second {
			t.Errorf("wait %d is %s", n, d)
		}
	}
}

// A wait that ends says what it waited for and how it was.
func TestPollEnds(t *testing.T) {
	c := &caller{quick, "eu-central-1"}
	err := c.poll(t.Context(), "image ami-1 to be available", 20*time.Millisecond, func(context.Context) (bool, string, error) { return false, "pending", nil })
	if err == nil || err.Error() != `waited 20ms in eu-central-1 for image ami-1 to be available: it is still "pending"` {
		t.Errorf("error %v", err)
	}
}
