// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

const limit = 64 << 10

// ec2 plays the metadata service. asked remembers METHOD PATH in order.
type ec2 struct {
	mu     sync.Mutex
	asked  []string
	values map[string]string
	// token answers PUT; nil gives a good one.
	token http.HandlerFunc
	// wrap, if not nil, may answer in place of the service.
	wrap func(w http.ResponseWriter, r *http.Request) bool
}

const goodToken = "AQAEAJ4Uc2Vzc2lvbnRva2VuLW5vdC1hLXJlYWwtb25l=="

func (s *ec2) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	s.mu.Unlock()
	switch {
	case s.wrap != nil && s.wrap(w, r):
	case r.URL.Path == tokenPath && s.token != nil:
		s.token(w, r)
	case r.URL.Path == tokenPath && (r.Method != http.MethodPut || r.Header.Get(tokenTTL) == "" || r.Header.Get("X-Forwarded-For") != ""):
		http.Error(w, "", http.StatusBadRequest)
	case r.URL.Path == tokenPath:
		fmt.Fprint(w, goodToken)
	case r.Header.Get(tokenName) != goodToken:
		http.Error(w, "", http.StatusUnauthorized)
	default:
		v, ok := s.values[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, v)
	}
}

func (s *ec2) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.asked, "\n")
}

// client asks a test server and never waits between tries.
func client(t *testing.T, h http.Handler) Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return Client{Base: srv.URL, Limit: limit, Pause: func(ctx context.Context, _ time.Duration) error { return context.Cause(ctx) }}
}

func values() map[string]string {
	return map[string]string{
		"/latest/user-data":                               "hostname: box1\n",
		"/latest/meta-data/public-keys/0/openssh-key":     "ssh-ed25519 AAAA key",
		"/latest/meta-data/instance-id":                   "i-0123456789abcdef0",
		"/latest/meta-data/local-hostname":                "ip-10-0-0-5.eu-central-1.compute.internal",
		"/latest/meta-data/placement/region":              "eu-central-1",
		"/latest/meta-data/placement/availability-zone":   "eu-central-1a",
		"/latest/meta-data/iam/security-credentials/role": "never asked for",
	}
}

func TestEC2(t *testing.T) {
	s := &ec2{values: values()}
	a, err := client(t, s).EC2(t.Context())
	if err != nil || string(a.UserData.Data) != "hostname: box1\n" || string(a.SSHKey.Data) != "ssh-ed25519 AAAA key" ||
		a.ID != "i-0123456789abcdef0" || !strings.HasPrefix(a.Name, "ip-10-0-0-5.") || a.Region != "eu-central-1" || a.Zone != "eu-central-1a" {
		t.Errorf("%v %+v", err, a)
	}
	if got, want := s.log(), `PUT /latest/api/token
GET /latest/user-data
GET /latest/meta-data/public-keys/0/openssh-key
GET /latest/meta-data/instance-id
GET /latest/meta-data/local-hostname
GET /latest/meta-data/placement/region
GET /latest/meta-data/placement/availability-zone`; got != want {
		t.Errorf("asked\n%s", got)
	}
}

func TestEC2WithoutUserData(t *testing.T) {
	a, err := client(t, &ec2{}).EC2(t.Context())
	if err != nil || a.UserData.Found || a.UserData.Err != nil || a.SSHKey.Found || a.SSHKey.Err != nil || a.ID != "" {
		t.Errorf("%v %+v", err, a)
	}
}

// Without a session token nothing is read, however much the service offers.
func TestEC2VersionOneOnly(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", code) }
	}
	for _, c := range []struct {
		name  string
		token http.HandlerFunc
		want  string
		tries int
	}{
		{"not found", status(404), "version 1 is never used", 1},
		{"method not allowed", status(405), "version 1 is never used", 1},
		{"forbidden", status(403), "turned off", 1},
		{"bad request", status(400), "HTTP 400", 1},
		{"empty token", func(http.ResponseWriter, *http.Request) {}, "no session token", 1},
		{"a page for a token", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>\n<body>") }, "no session token", 1},
		{"endless token", endless, "no session token", 1},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/latest/user-data", http.StatusTemporaryRedirect)
		}, "HTTP 307", 1},
		{"down", status(503), "tried 12 times", tries},
		{"throttled", status(429), "tried 12 times", tries},
		// What a hop limit of 1 behind a router looks like: nothing comes.
		{"no answer", hang, "no answer within", tries},
		{"cut off", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF", tries},
	} {
		s := &ec2{values: values(), token: c.token, wrap: func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodGet { // version 1: answers without a token
				fmt.Fprint(w, "hostname: evil\n")
				return true
			}
			return false
		}}
		cl := client(t, s)
		if c.name == "no answer" {
			cl.Attempt = 20 * time.Millisecond
		}
		a, err := cl.EC2(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.want) || a.UserData.Found || a.SSHKey.Found || a.ID != "" {
			t.Errorf("%s: %v, %+v; want %q", c.name, err, a, c.want)
		}
		if log := s.log(); strings.Contains(log, "GET") || strings.Count(log, "PUT") != c.tries {
			t.Errorf("%s: asked\n%s", c.name, log)
		}
	}
}

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func endless(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := w.Write([]byte(strings.Repeat("x", 4096))); err != nil {
			return
		}
	}
}

func TestEC2BadUserData(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   string // of the error; "" means found
		size   int
	}{
		{"endless", endless, "", limit + 1},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		}, "HTTP 302", 0},
		{"drips", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "hostname")
			w.(http.Flusher).Flush()
			hang(w, r)
		}, "no answer within", 0},
		{"shorter than it says", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "hostname: box1")
		}, "unexpected EOF", 0},
		{"large header", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, "header", 0},
		{"server error", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusInternalServerError) }, "HTTP 500", 0},
	} {
		s := &ec2{values: values(), wrap: func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/latest/user-data" {
				return false
			}
			c.answer(w, r)
			return true
		}}
		cl := client(t, s)
		if c.name == "drips" {
			cl.Attempt = 50 * time.Millisecond
		}
		a, err := cl.EC2(t.Context())
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		u := a.UserData
		if c.want == "" && (u.Err != nil || len(u.Data) != c.size) || c.want != "" && (u.Found || u.Err == nil || !strings.Contains(u.Err.Error(), c.want)) {
			t.Errorf("%s: %d bytes, found %v, %v; want %q", c.name, len(u.Data), u.Found, u.Err, c.want)
		}
	}
}

func TestEC2Recovers(t *testing.T) {
	var n int
	s := &ec2{values: values()}
	s.wrap = func(w http.ResponseWriter, _ *http.Request) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if n++; n%2 == 1 {
			http.Error(w, "", http.StatusServiceUnavailable)
			return true
		}
		return false
	}
	a, err := client(t, s).EC2(t.Context())
	if err != nil || !a.UserData.Found || !a.SSHKey.Found {
		t.Errorf("%v %+v", err, a)
	}
	// A token that runs out is renewed once.
	n = 0
	s = &ec2{values: values()}
	s.wrap = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/latest/user-data" && strings.Count(s.log(), "/latest/user-data") == 1 {
			http.Error(w, "", http.StatusUnauthorized)
			return true
		}
		return false
	}
	a, err = client(t, s).EC2(t.Context())
	if err != nil || !a.UserData.Found || strings.Count(s.log(), "PUT") != 2 {
		t.Errorf("%v %+v\n%s", err, a, s.log())
	}
}

func TestDeadline(t *testing.T) {
	c := client(t, http.HandlerFunc(hang))
	c.Total, c.Pause = 50*time.Millisecond, nil
	if _, err := c.EC2(t.Context()); err == nil || !strings.Contains(err.Error(), "within 50ms") {
		t.Errorf("%v", err)
	}
	// A real pause ends with the context.
	c = client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusServiceUnavailable) }))
	c.Pause = nil
	why := errors.New("the boot goes on without it")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := c.GCE(ctx); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

func TestOnlyLinkLocal(t *testing.T) {
	t.Setenv("http_proxy", "http://192.0.2.1:3128")
	for base, ok := range map[string]bool{
		"": true, Address: true, "http://127.0.0.1:8080": true, "http://[fe80::1]": true,
		"http://metadata.google.internal": false, "http://192.0.2.1": false, "http://10.0.0.1": false, "https://169.254.169.254": false,
		"http://u:p@169.254.169.254": false, "http://[fd00:ec2::254]": false, "169.254.169.254": false, "http://169.254.169.254.evil.example": false, "\x00": false,
	} {
		c := Client{Base: base}
		_, _, cancel, err := c.open(t.Context())
		if (err == nil) != ok {
			t.Errorf("%q: %v", base, err)
		}
		if cancel != nil {
			cancel()
		}
	}
}

func gce(answers map[string]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Metadata-Flavor") != "Google" {
			http.Error(w, "", http.StatusForbidden)
			return
		}
		w.Header().Set("Metadata-Flavor", "Google")
		v, ok := answers[strings.TrimPrefix(r.URL.Path, gceBase)]
		if !ok {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, v)
	}
}

func TestGCE(t *testing.T) {
	a, err := client(t, gce(map[string]string{
		"attributes/user-data": "size: M\n", "attributes/startup-script": "#!/bin/sh", "id": "42", "name": "box1",
		"zone": "projects/123/zones/europe-west3-a",
	})).GCE(t.Context())
	if err != nil || string(a.UserData.Data) != "size: M\n" || a.ID != "42" || a.Name != "box1" || a.Zone != "europe-west3-a" || a.Region != "europe-west3" || a.SSHKey.Found {
		t.Errorf("%v %+v", err, a)
	}
	a, err = client(t, gce(nil)).GCE(t.Context())
	if err != nil || a.UserData.Found || a.UserData.Err != nil {
		t.Errorf("no attribute: %v %+v", err, a)
	}
}

func TestGCERefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"no flavour", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hostname: evil\n") }, "lacks Metadata-Flavor"},
		{"not found, no flavour", http.NotFound, "HTTP 404"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusMovedPermanently) }, "HTTP 301"},
		{"down", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusServiceUnavailable) }, "HTTP 503"},
		{"hangs", hang, "no answer within"},
	} {
		cl := client(t, c.answer)
		if c.name == "hangs" {
			cl.Attempt = 20 * time.Millisecond
		}
		a, err := cl.GCE(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.want) || a.UserData.Found {
			t.Errorf("%s: %v %+v", c.name, err, a)
		}
	}
	facts := gce(map[string]string{"attributes/user-data": "{}", "id": "42\n43", "name": strings.Repeat("x", 5000), "zone": "\x1b[2J"})
	if a, err := client(t, facts).GCE(t.Context()); err != nil || a.ID+a.Name+a.Zone+a.Region != "" {
		t.Errorf("%v %+v", err, a)
	}
}

// Whatever a service answers, a token from it is one header line, and no more
// is read than was asked for.
func FuzzEC2(f *testing.F) {
	f.Add(200, "token", 200, "hostname: box1\n")
	f.Add(200, "a\r\nHost: x", 200, "")
	f.Add(403, "", 500, "x")
	var code, code2 int
	var token, body string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			w.WriteHeader(code)
			fmt.Fprint(w, token)
			return
		}
		w.WriteHeader(code2)
		fmt.Fprint(w, body)
	}))
	f.Cleanup(srv.Close)
	f.Fuzz(func(t *testing.T, c int, tok string, c2 int, b string) {
		if c < 200 || c > 599 || c2 < 200 || c2 > 599 {
			return
		}
		code, token, code2, body = c, tok, c2, b
		cl := Client{Base: srv.URL, Limit: 16, Pause: func(ctx context.Context, _ time.Duration) error { return context.Cause(ctx) }}
		a, err := cl.EC2(t.Context())
		if err != nil && (a.UserData.Found || a.ID != "") {
			t.Fatalf("%v %+v", err, a)
		}
		if len(a.UserData.Data) > 17 || err == nil && c != 200 {
			t.Fatalf("%d bytes, token answered with %d", len(a.UserData.Data), c)
		}
	})
}
