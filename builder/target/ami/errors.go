// SPDX-License-Identifier: Apache-2.0

package ami

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// verdict is what to do about the outcome of one attempt.
type verdict int

const (
	passed    verdict = iota
	final             // another try would fail too
	again             // 5xx, a connection that broke
	timedOut          // no answer in time
	throttled         // too many requests
	missing           // what was just made is not known yet
	refused           // credentials or permissions
)

// lost is true where AWS may have done what was asked and we do not know.
func (v verdict) lost() bool { return v == again || v == timedOut }

var (
	throttleCodes = []string{"RequestLimitExceeded", "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled",
		"RequestThrottledException", "EC2ThrottledException", "TooManyRequestsException", "PriorRequestNotComplete", "SlowDown",
		"ConcurrentLimitExceededException", "BandwidthLimitExceeded"}
	againCodes = []string{"InternalError", "InternalFailure", "InternalServerException", "InternalServerError", "ServiceUnavailable",
		"Unavailable", "RequestTimeout", "RequestTimeoutException", "TransactionInProgressException"}
	missingCodes = []string{"ResourceNotFoundException", "InvalidSnapshot.NotFound", "InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"}
	deniedCodes  = []string{"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
	unknownCodes = []string{"AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch",
		"InvalidSignatureException", "IncompleteSignature", "ExpiredToken", "ExpiredTokenException", "RequestExpired",
		"MissingAuthenticationToken", "MissingAuthenticationTokenException", "OptInRequired", "InvalidSecurity", "Blocked"}
)

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

func judge(err error) verdict {
	if err == nil {
		return passed
	}
	var invalid *ebstypes.ValidationException
	if errors.As(err, &invalid) {
		switch invalid.Reason {
		case ebstypes.ValidationExceptionReasonWriteRequestTimeout:
			return timedOut
		// An attempt that we gave up on may still be at work on the block.
		case ebstypes.ValidationExceptionReasonConflictingBlockUpdate:
			return again
		}
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		c := api.ErrorCode()
		switch {
		case slices.Contains(throttleCodes, c):
			return throttled
		case slices.Contains(missingCodes, c):
			return missing
		case slices.Contains(deniedCodes, c), slices.Contains(unknownCodes, c):
			return refused
		case slices.Contains(againCodes, c):
			return again
		// EBS says this when a body comes too slowly or breaks off
		// (https://github.com/nanovms/ops/pull/1268).
		case strings.Contains(api.ErrorMessage(), "Failed to read block data"):
			return timedOut
		}
		var re *smithyhttp.ResponseError
		if errors.As(err, &re) {
			switch s := re.HTTPStatusCode(); {
			case s == http.StatusTooManyRequests:
				return throttled
			case s >= 500:
				return again
			}
		}
		return final
	}
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return final
	}
	var cert *x509.UnknownAuthorityError
	var host *x509.HostnameError
	var expired *x509.CertificateInvalidError
	if errors.As(err, &cert) || errors.As(err, &host) || errors.As(err, &expired) {
		return final
	}
	var timeout interface{ Timeout() bool }
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return timedOut
	}
	var bad *smithy.SerializationError
	var params *smithy.InvalidParamsError
	if errors.As(err, &bad) || errors.As(err, &params) {
		return final
	}
	return again // a connection that broke, an answer that was cut off
}

// brief is what AWS or the network says, without the SDK's wrapping.
func brief(err error) string {
	text := err.Error()
	var api smithy.APIError
	var dns *net.DNSError
	var at *url.Error
	var re *smithyhttp.ResponseError
	switch {
	case errors.As(err, &api) && api.ErrorCode() == "UnknownError" && errors.As(err, &re):
		text = fmt.Sprintf("HTTP status %d", re.HTTPStatusCode())
	case errors.As(err, &api):
		text = api.ErrorCode()
		if m := api.ErrorMessage(); m != "" {
			text += ": " + m
		}
	case errors.As(err, &dns):
		text = dns.Error()
	case errors.Is(err, context.DeadlineExceeded):
		text = "no answer in time"
	case errors.As(err, &at):
		text = at.Error()
	}
	text = strings.ReplaceAll(text, "\n", " ")
	if len(text) > 300 {
		text = text[:300] + " ..."
	}
	return text
}

// explain says what to do about an error that another try does not mend.
func explain(region string, k call, err error) error {
	advice := ""
	c := code(err)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		advice = fmt.Sprintf("there is no such host: is %q the right region, and is there a network", region)
	case slices.Contains(unknownCodes, c):
		advice = fmt.Sprintf("AWS does not take these credentials in %s: check that they are right and not expired, that this machine's clock is, and that the account has enabled the region", region)
	case strings.Contains(brief(err), "lock public access") || strings.Contains(brief(err), "lockPublicAccess"):
		advice = blockAdvice(region)
	case slices.Contains(deniedCodes, c):
		advice = fmt.Sprintf("these credentials lack the permission %s in %s: docs/ami.md has a policy", k.permission, region)
	case strings.HasPrefix(c, "KMS") || strings.Contains(brief(err), "KMS"):
		advice = "check that the KMS key is in this region, enabled, and that these credentials may use it"
	case strings.HasSuffix(c, "LimitExceeded") || strings.Contains(c, "Quota"):
		advice = "raise the account's quota, or remove what is no longer needed"
	}
	if advice == "" {
		return &callError{fmt.Sprintf("%s in %s: %s", k.what, region, brief(err)), err}
	}
	return &callError{fmt.Sprintf("%s in %s: %s (%s)", k.what, region, advice, brief(err)), err}
}

func blockAdvice(region string) string {
	return fmt.Sprintf("the account blocks public images in %s; leave ami_groups out, or, if everyone in the world may have this image: aws ec2 disable-image-block-public-access --region %s", region, region)
}

// callError is an explained error; what the SDK said stays underneath.
type callError struct {
	text string
	err  error
}

func (e *callError) Error() string { return e.text }
func (e *callError) Unwrap() error { return e.err }
