// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
)

// Fault is what happens to a request in place of an answer.
type Fault int

// The faults a request may meet.
const (
	None Fault = iota
	// Throttle, InternalError, NotThere and Denied are answers of AWS, each
	// in the form of its service.
	Throttle
	InternalError
	NotThere
	Denied
	// Hang gives no answer until the client goes away.
	Hang
	// Drop breaks the connection before, Lose after the request was done.
	Drop
	Lose
)

// Proxy stands in front of moto's server.
type Proxy struct {
	*httptest.Server
	moto     string
	ebs, ec2 *Model

	// Fault, when not nil, says what each request meets. It may block; Done
	// is called after a request was done and before it is answered. Both are
	// set before the first request.
	Fault func(*Request) Fault
	Done  func(*Request)

	mu     sync.Mutex
	log    []*Request
	count  map[string]int
	world  world
	client http.Client
}

// NewProxy starts a proxy before the server at moto; Close ends it.
func NewProxy(moto string, ebs, ec2 *Model) *Proxy {
	p := &Proxy{moto: moto, ebs: ebs, ec2: ec2, count: map[string]int{}, world: newWorld()}
	p.Server = httptest.NewServer(p)
	return p
}

// Requests are all so far, of one operation when op is not "".
func (p *Proxy) Requests(op string) []*Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.log), func(r *Request) bool { return op != "" && r.Op != op })
}

// Forget drops the record of requests.
func (p *Proxy) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = nil
}

// Bad lists what requests asked that the models do not allow.
func (p *Proxy) Bad() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var bad []string
	for _, r := range p.log {
		for _, b := range r.Bad {
			bad = append(bad, fmt.Sprintf("%s %s: %s", r.Service, r.Op, b))
		}
	}
	return bad
}

// answer is a response that was made or came from moto.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went away
	}
	q := Read(p.ebs, p.ec2, r, body)
	p.mu.Lock()
	p.count[q.Op]++
	q.N = p.count[q.Op]
	p.log = append(p.log, q)
	p.mu.Unlock()
	fault := None
	if p.Fault != nil {
		fault = p.Fault(q)
	}
	switch fault {
	case Hang:
		<-r.Context().Done()
		return
	case Drop:
		panic(http.ErrAbortHandler)
	case Throttle, InternalError, NotThere, Denied:
		q.fail(fault).send(w)
		return
	}
	a := p.handle(q, r, body)
	if p.Done != nil {
		p.Done(q)
	}
	if fault == Lose {
		panic(http.ErrAbortHandler)
	}
	a.send(w)
}

func (p *Proxy) handle(q *Request, r *http.Request, body []byte) answer {
	switch {
	case len(q.Bad) > 0 && q.Service == "ebs":
		return ebsError(400, "ValidationException", "INVALID_PARAMETER_VALUE", q.Bad[0])
	case len(q.Bad) > 0:
		return ec2Error(400, "InvalidParameterValue", q.Bad[0])
	case q.Service == "ebs":
		return p.handleEBS(q, r, body)
	}
	return p.handleEC2(q, r, body)
}

// forward gives a request to moto as it is.
func (p *Proxy) forward(r *http.Request, path string, body []byte) answer {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, p.moto+path, bytes.NewReader(body))
	if err != nil {
		return answer{status: 500}
	}
	req.Header = maps.Clone(r.Header)
	// moto takes the service from the signature.
	req.Header.Del("Accept-Encoding")
	resp, err := p.client.Do(req)
	if err != nil {
		return answer{status: 502, body: []byte(err.Error())}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{status: 502, body: []byte(err.Error())}
	}
	return answer{resp.StatusCode, resp.Header, b}
}

// also is another EC2 request that goes with r, such as the tags of an image,
// which moto takes only separately.
func (p *Proxy) also(r *http.Request, form url.Values) answer {
	form.Set("Version", "2016-11-15")
	c := r.Clone(r.Context())
	c.Header = maps.Clone(r.Header)
	c.Header.Del("Content-Length")
	return p.forward(c, "/", []byte(form.Encode()))
}

func (a answer) send(w http.ResponseWriter) {
	for k, v := range a.header {
		if k != "Content-Length" && k != "Connection" && k != "Date" && k != "Server" {
			w.Header()[k] = v
		}
	}
	w.WriteHeader(a.status)
	w.Write(a.body)
}

func ebsError(status int, kind, reason, message string) answer {
	return answer{status, http.Header{"X-Amzn-Errortype": {kind}, "Content-Type": {"application/json"}},
		fmt.Appendf(nil, `{"Message":%q,"Reason":%q}`, message, reason)}
}

func ec2Error(status int, code, message string) answer {
	return answer{status: status, body: fmt.Appendf(nil,
		`<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors><RequestID>0</RequestID></Response>`, code, message)}
}

// fail is an answer of AWS that is an error, in the form of the service.
func (q *Request) fail(f Fault) answer {
	ebs := q.Service == "ebs"
	switch {
	case f == Throttle && ebs:
		return ebsError(400, "RequestThrottledException", "ACCOUNT_THROTTLED", "Rate exceeded")
	case f == Throttle:
		return ec2Error(503, "RequestLimitExceeded", "Request limit exceeded.")
	case f == NotThere && ebs:
		return ebsError(404, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", "The snapshot does not exist.")
	case f == NotThere:
		return ec2Error(400, "InvalidSnapshot.NotFound", "The snapshot does not exist.")
	case f == Denied && ebs:
		return ebsError(403, "AccessDeniedException", "UNAUTHORIZED_ACCOUNT", "User is not authorized to perform: ebs:"+q.Op)
	case f == Denied:
		return ec2Error(403, "UnauthorizedOperation", "You are not authorized to perform this operation.")
	case ebs:
		return ebsError(500, "InternalServerException", "", "An internal error has occurred")
	}
	return ec2Error(500, "InternalError", "An internal error has occurred")
}
