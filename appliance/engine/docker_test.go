// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// script answers as an engine does: a response per "METHOD /path", the
// version cut off. qa/engine runs the same client against the real one.
type script struct {
	api     string
	answers map[string]string // "404 {...}", or a body alone for 200

	mu    sync.Mutex
	asked []string
	body  string
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if strings.HasPrefix(path, "/v1.") {
		path = path[strings.IndexByte(path[1:], '/')+1:]
	}
	b, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.asked = append(s.asked, r.Method+" "+path+"?"+r.URL.RawQuery)
	s.body = string(b)
	s.mu.Unlock()
	w.Header().Set("Api-Version", s.api)
	w.Header().Set("Content-Type", "application/json")
	if path == "/_ping" {
		return
	}
	answer, ok := s.answers[r.Method+" "+path]
	if !ok {
		answer = `404 {"message":"no such thing"}`
	}
	var code int
	if n, _ := fmt.Sscanf(answer, "%3d ", &code); n == 1 {
		w.WriteHeader(code)
		answer = answer[min(4, len(answer)):]
	}
	io.WriteString(w, answer)
}

func (s *script) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[len(s.asked)-1]
}

// engineOf serves a script on a socket.
func engineOf(t *testing.T, s *script) *Docker {
	t.Helper()
	if s.api == "" {
		s.api = MinAPI
	}
	socket := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: s}
	done := make(chan struct{})
	go func() { srv.Serve(l); close(done) }()
	t.Cleanup(func() { srv.Close(); <-done })
	d, err := Open("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestPing(t *testing.T) {
	if err := engineOf(t, &script{}).Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := engineOf(t, &script{api: "1.43"}).Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "Docker 25") || errors.Is(err, ErrUnreachable) {
		t.Errorf("an old engine: %v", err)
	}
	d, err := Open("unix://" + filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Ping(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("no engine: %v", err)
	}
	if _, err := Open("::"); err == nil || !strings.Contains(err.Error(), "unix:///") {
		t.Errorf("no address: %v", err)
	}
}

func TestContainers(t *testing.T) {
	d := engineOf(t, &script{answers: map[string]string{
		"GET /containers/json": `[{"Id":"a"},{"Id":"gone"}]`,
		"GET /containers/a/json": `{"Id":"a","Name":"/demo-db-1","Config":{"Image":"x/db@sha256:1","Labels":{"k":"v"}},
			"Mounts":[{"Type":"volume","Name":"demo_data","Destination":"/data"},{"Type":"bind","Destination":"/run"}],
			"State":{"Status":"exited","ExitCode":137,"OOMKilled":true,"StartedAt":"2026-01-01T12:00:00.5Z","FinishedAt":"0001-01-01T00:00:00Z",
			"Health":{"Status":"unhealthy","Log":[{"ExitCode":1,"Output":"old"},{"ExitCode":2,"Output":"first\nlast line\n"},{"ExitCode":0,"Output":"fine"}]}}}`,
	}})
	got, err := d.Containers(t.Context(), "demo")
	if err != nil || len(got) != 1 { // the other was removed between the two calls
		t.Fatalf("%+v, %v", got, err)
	}
	c := got[0]
	if c.Name != "demo-db-1" || c.State != "exited" || c.ExitCode != 137 || !c.OOMKilled || c.Health != "unhealthy" || c.HealthLog != "last line" ||
		c.Started.Year() != 2026 || !c.Finished.IsZero() || len(c.Volumes) != 1 || c.Volumes["/data"] != "demo_data" || c.Up() {
		t.Errorf("%+v", c)
	}
}

func TestOperationsThatAreDoneAlready(t *testing.T) {
	s := &script{answers: map[string]string{
		"POST /networks/create":      `409 {"message":"exists"}`,
		"POST /containers/a/start":   "304 ",
		"POST /containers/a/stop":    "204 ",
		"POST /containers/a/restart": `500 {"message":"no room"}`,
	}}
	d := engineOf(t, s)
	if err := d.CreateNetwork(t.Context(), Network{Name: "n"}); err != nil {
		t.Errorf("a network that exists: %v", err)
	}
	if err := d.Remove(t.Context(), "gone"); err != nil {
		t.Errorf("a container that is gone: %v", err)
	}
	if err := d.Start(t.Context(), "gone"); !errors.Is(err, ErrNotFound) {
		t.Errorf("start of one that is gone: %v", err)
	}
	// 0 seconds would kill at once.
	if err := d.Stop(t.Context(), "a", 1500*time.Millisecond); err != nil || !strings.Contains(s.last(), "t=2") {
		t.Errorf("stop: %v, %s", err, s.last())
	}
	if err := d.Restart(t.Context(), "a", 0); err == nil || !strings.Contains(err.Error(), "no room") || errors.Is(err, ErrUnreachable) {
		t.Errorf("restart: %v", err)
	}
	if err := d.Start(t.Context(), "a"); err != nil {
		t.Errorf("start of one that runs: %v", err)
	}
}

func TestLoadImage(t *testing.T) {
	good := &script{answers: map[string]string{"POST /images/load": `{"stream":"Loaded"}` + "\n"}}
	if err := engineOf(t, good).LoadImage(t.Context(), strings.NewReader("tar"), time.Minute); err != nil || good.body != "tar" {
		t.Errorf("%v, %q", err, good.body)
	}
	// A failure after the header is a 200.
	bad := &script{answers: map[string]string{"POST /images/load": `{"error":"no space left"}`}}
	if err := engineOf(t, bad).LoadImage(t.Context(), strings.NewReader("tar"), time.Minute); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("%v", err)
	}
	broken := errors.New("blob is damaged")
	src := io.MultiReader(strings.NewReader("half"), failing{broken})
	if err := engineOf(t, good).LoadImage(t.Context(), src, time.Minute); !errors.Is(err, broken) {
		t.Errorf("the source failed: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestHasImage(t *testing.T) {
	d := engineOf(t, &script{answers: map[string]string{"GET /images/x/a@sha256:1/json": `{"Id":"sha256:1"}`, "GET /images/x/b@sha256:2/json": `500 {"message":"broken store"}`}})
	if ok, err := d.HasImage(t.Context(), "x/a@sha256:1"); !ok || err != nil {
		t.Errorf("there: %t, %v", ok, err)
	}
	if ok, err := d.HasImage(t.Context(), "x/none@sha256:3"); ok || err != nil {
		t.Errorf("not there: %t, %v", ok, err)
	}
	if ok, err := d.HasImage(t.Context(), "x/b@sha256:2"); ok || err == nil {
		t.Errorf("not known: %t, %v", ok, err)
	}
}

func TestEvents(t *testing.T) {
	lines := `{"Type":"container","Action":"exec_create: ok","Actor":{"ID":"a"}}
{"Type":"container","Action":"kill","Actor":{"ID":"a","Attributes":{"com.docker.compose.service":"db","signal":"9"}},"timeNano":5}
{"Type":"container","Action":"health_status: healthy","Actor":{"ID":"b","Attributes":{"com.docker.compose.service":"web"}}}
`
	d := engineOf(t, &script{answers: map[string]string{"GET /events": lines}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, errs := d.Events(ctx, "demo")
	var got []string
	for {
		select {
		case e := <-events:
			got = append(got, e.Service+" "+e.Action+" "+e.Signal)
			continue
		case err := <-errs:
			// The engine went away: the stream is over, and says so.
			if !errors.Is(err, ErrUnreachable) {
				t.Errorf("%v", err)
			}
		}
		break
	}
	if !slices.Equal(got, []string{"db kill 9", "web health_status: healthy "}) {
		t.Errorf("%q", got)
	}
}

func TestShorten(t *testing.T) {
	for in, want := range map[string]string{"": "", " a \n b \n": " b", strings.Repeat("x", 300): strings.Repeat("x", 200), "bad \xff": "bad ?"} {
		if got := shorten(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
