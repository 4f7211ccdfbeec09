// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of what is asked.
const (
	maxBody     = 64 << 10 // bytes of a request's body
	maxServices = 1000     // services in one request
	maxName     = 256      // bytes of a service's name
	maxTail     = 1_000_000
	// maxStreams are the answers without an end that may be under way at once.
	maxStreams = 64
	// usageTimeout bounds one look at what is used.
	usageTimeout = 20 * time.Second
)

// DefaultTail is how many lines of each service Logs gives where the request
// says neither tail nor since.
const DefaultTail = 100

// Problem is a request that was not done, with what to do about it.
type Problem struct {
	// Status is the HTTP status: 400 for a request that can't be read, 404
	// for what is not there, 409 for what can't be done now, 422 for what the
	// box refuses to do, 503 for what may be asked again.
	Status int `json:"-"`
	// Code is a short stable name of a refusal (422), "" for all else.
	Code   string `json:"code,omitempty"`
	Text   string `json:"error"`
	Remedy string `json:"remedy,omitempty"`
}

// Error implements error.
func (p *Problem) Error() string {
	if p.Remedy == "" {
		return p.Text
	}
	return p.Text + "; " + p.Remedy
}

func bad(remedy, format string, args ...any) *Problem {
	return &Problem{Status: http.StatusBadRequest, Text: fmt.Sprintf(format, args...), Remedy: remedy}
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, err error) {
	p := problemOf(err)
	b, err := json.Marshal(p)
	if err != nil {
		b = []byte(`{"error":"the error can't be told"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(p.Status)
	w.Write(append(b, '\n'))
}

func problemOf(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	return &Problem{Status: http.StatusConflict, Text: err.Error()}
}

// query reads the parameters of a request, of which only known ones may be
// there, each once; a known one that ends in * may be repeated.
func query(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, bad("encode the parameters as a URL wants them", "the parameters can't be read: %v", err)
	}
	for name, values := range q {
		switch {
		case slices.Contains(known, name+"*"):
		case !slices.Contains(known, name):
			return nil, bad("known here: "+orNone(known), "the parameter %.60q is not known", name)
		case len(values) > 1:
			return nil, bad("give it once", "the parameter %s is there %d times", name, len(values))
		}
	}
	return q, nil
}

func orNone(known []string) string {
	if len(known) == 0 {
		return "no parameters"
	}
	return strings.ReplaceAll(strings.Join(known, ", "), "*", "")
}

// flag reads a parameter that is 1, 0 or not there.
func flag(q url.Values, name string) (bool, error) {
	switch v := q.Get(name); v {
	case "", "0":
		return false, nil
	case "1":
		return true, nil
	default:
		return false, bad(name+"=1, or leave it out", "%s is %.60q", name, v)
	}
}

// LogQuery says which lines are wanted.
type LogQuery struct {
	// Services by name; none is all.
	Services []string
	// Tail is how many of the newest lines of each service, -1 all.
	Tail int
	// Since is the time of the oldest line; zero does not bound.
	Since time.Time
	// Follow goes on with new lines until the caller goes away.
	Follow bool
}

func logQuery(r *http.Request) (LogQuery, error) {
	q, err := query(r, "service*", "tail", "since", "follow")
	if err != nil {
		return LogQuery{}, err
	}
	l := LogQuery{Services: q["service"], Tail: DefaultTail}
	if err := checkNames(l.Services); err != nil {
		return l, err
	}
	if v := q.Get("since"); v != "" {
		if l.Since, err = time.Parse(time.RFC3339Nano, v); err != nil {
			return l, bad("write it as 2026-01-31T12:00:00Z (RFC 3339)", "since is %.60q, which is no time", v)
		}
		l.Tail = -1
	}
	switch v := q.Get("tail"); v {
	case "":
	case "all":
		l.Tail = -1
	default:
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > maxTail {
			return l, bad("write 0 to 1000000, or all", "tail is %.60q", v)
		}
		l.Tail = n
	}
	l.Follow, err = flag(q, "follow")
	return l, err
}

// encode is the inverse of logQuery.
func (l LogQuery) encode() string {
	q := url.Values{"service": l.Services, "tail": {"all"}}
	if l.Tail >= 0 {
		q.Set("tail", strconv.Itoa(l.Tail))
	}
	if !l.Since.IsZero() {
		q.Set("since", l.Since.UTC().Format(time.RFC3339Nano))
	}
	if l.Follow {
		q.Set("follow", "1")
	}
	return q.Encode()
}

func checkNames(names []string) error {
	if len(names) > maxServices {
		return bad(fmt.Sprintf("name at most %d", maxServices), "%d services are named", len(names))
	}
	for i, n := range names {
		switch {
		case n == "" || len(n) > maxName:
			return bad("write names as holdfast status shows them", "service %d is named %.60q", i+1, n)
		case slices.Contains(names[:i], n):
			return bad("name each once", "service %.60q is named twice", n)
		}
	}
	return nil
}

// servicesOf reads the body of a request about services; an empty one names
// none.
func servicesOf(r *http.Request) ([]string, error) {
	const remedy = `send {"services": ["NAME", ...]}, or nothing for the whole stack`
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, bad(remedy, "the body can't be read: %v", err)
	case len(body) > maxBody:
		return nil, bad(remedy, "the body is longer than %d KiB", maxBody>>10)
	case len(strings.TrimSpace(string(body))) == 0:
		return nil, nil
	}
	var in struct {
		Services []string `json:"services"`
	}
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return nil, bad(remedy, "the body is not what it should be: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, bad(remedy, "something follows the body's JSON")
	}
	return in.Services, checkNames(in.Services)
}
