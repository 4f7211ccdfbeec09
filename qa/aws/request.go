// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// Request is one request as the model reads it.
type Request struct {
	// Service is "ebs" or "ec2", Op the operation, Region what it is signed
	// for.
	Service, Op, Region string
	// Params are its members by the model's names; BlockData is left out.
	Params map[string]any
	// N counts requests of this operation from 1.
	N int
	// Bad lists what the model does not allow.
	Bad []string
}

// Text is a parameter as text, "" when it is not there.
func (r *Request) Text(name string) string {
	if v, ok := r.Params[name]; ok {
		return fmt.Sprint(v)
	}
	return ""
}

var credentialRE = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=[^/]+/[0-9]{8}/([a-z0-9-]+)/(ebs|ec2)/aws4_request, *SignedHeaders=([a-z0-9;-]+), *Signature=[0-9a-f]{64}$`)

// Read reads a request by the two models.
func Read(ebs, ec2 *Model, r *http.Request, body []byte) *Request {
	q := &Request{Params: map[string]any{}}
	m := credentialRE.FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil {
		q.Bad = append(q.Bad, "it is not signed: "+r.Header.Get("Authorization"))
		return q
	}
	q.Region, q.Service = m[1], m[2]
	if q.Service == "ec2" {
		q.readQuery(ec2, r, body)
		return q
	}
	q.readREST(ebs, r, body, strings.Split(m[3], ";"))
	return q
}

func (q *Request) readQuery(m *Model, r *http.Request, body []byte) {
	form, err := url.ParseQuery(string(body))
	if err != nil || r.Method != http.MethodPost {
		q.Bad = append(q.Bad, fmt.Sprintf("%s with a form that does not parse: %v", r.Method, err))
		return
	}
	q.Op = form.Get("Action")
	op, ok := m.Operations[q.Op]
	if !ok {
		q.Bad = append(q.Bad, "the model has no operation "+q.Op)
		return
	}
	if v := form.Get("Version"); v != "2016-11-15" {
		q.Bad = append(q.Bad, "version "+v)
	}
	var bad []string
	q.Params, bad = m.Unflatten(op.Input.Shape, form)
	q.Bad = append(append(q.Bad, bad...), m.Check(q.Op, op.Input.Shape, q.Params)...)
}

// plainHeaders start what every request may carry.
var plainHeaders = []string{"X-Amz-Date", "X-Amz-Content-Sha256", "X-Amz-Security-Token", "X-Amz-User-Agent"}

func (q *Request) readREST(m *Model, r *http.Request, body []byte, signed []string) {
	var uri map[string]string
	q.Op, uri = m.Match(r.Method, r.URL.Path)
	if q.Op == "" {
		q.Bad = append(q.Bad, fmt.Sprintf("the model has no operation %s %s", r.Method, r.URL.Path))
		return
	}
	shape := m.Operations[q.Op].Input.Shape
	s := m.Shapes[shape]
	headers, query := map[string]string{}, map[string]string{}
	for name, member := range s.Members {
		switch member.Location {
		case "uri":
			q.Params[name] = uri[member.LocationName]
		case "header":
			headers[http.CanonicalHeaderKey(member.LocationName)] = name
		case "querystring":
			query[member.LocationName] = name
		}
	}
	for _, p := range plainHeaders {
		headers[p] = ""
	}
	for h, v := range r.Header {
		name, ok := headers[h]
		if strings.HasPrefix(h, "X-Amz-") && !ok {
			q.Bad = append(q.Bad, "the model does not know the header "+h)
		}
		if name != "" {
			q.Params[name] = v[0]
			if !strings.Contains(";"+strings.Join(signed, ";")+";", ";"+strings.ToLower(h)+";") {
				q.Bad = append(q.Bad, "the header "+h+" is not signed")
			}
		}
	}
	for k, v := range r.URL.Query() {
		if name, ok := query[k]; ok {
			q.Params[name] = v[0]
		} else {
			q.Bad = append(q.Bad, "the model does not know the query "+k)
		}
	}
	check := map[string]any{}
	if s.Payload == "" && len(body) > 0 {
		if err := json.Unmarshal(body, &q.Params); err != nil {
			q.Bad = append(q.Bad, "the body is not JSON: "+err.Error())
		}
	}
	for k, v := range q.Params {
		check[k] = v
	}
	if s.Payload != "" && len(body) > 0 {
		check[s.Payload] = "a blob"
	}
	q.Bad = append(q.Bad, m.Check(q.Op, shape, check)...)
}
