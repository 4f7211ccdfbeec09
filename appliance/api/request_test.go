// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/status"
)

// answered sends one request to the handler itself.
func answered(c Control, method, target, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	Handler(status.NewFeed(status.Report{}), c).ServeHTTP(w, httptest.NewRequest(method, target, strings.NewReader(body)))
	return w
}

func TestRefusedRequests(t *testing.T) {
	var names []string
	for i := range 1201 {
		names = append(names, fmt.Sprint(i))
	}
	many := `{"services":["` + strings.Join(names, `","`) + `"]}`
	for _, r := range []struct {
		request, body string
		code          int
		text          string
	}{
		{"GET /v1/status?wach=1", "", 400, `"wach" is not known`},
		{"GET /v1/plan?x=1", "", 400, "is not known"},
		{"GET /v1/usage?x", "", 400, "is not known"},
		{"GET /v1/events?since=-1", "", 400, `since is "-1"`},
		{"GET /v1/events?since=x", "", 400, `since is "x"`},
		{"GET /v1/events?follow=yes", "", 400, `follow is "yes"`},
		{"GET /v1/events?since=1&since=2", "", 400, "2 times"},
		{"GET /v1/events?%zz", "", 400, "can't be read"},
		{"GET /v1/logs?tail=-1", "", 400, `tail is "-1"`},
		{"GET /v1/logs?tail=1000001", "", 400, "tail is"},
		{"GET /v1/logs?since=yesterday", "", 400, "no time"},
		{"GET /v1/logs?service=", "", 400, `named ""`},
		{"GET /v1/logs?service=a&service=a", "", 400, "twice"},
		{"GET /v1/logs?service=" + strings.Repeat("a", 300), "", 400, "service 1 is named"},
		{"GET /v1/operations/x-1?wait=2", "", 400, `wait is "2"`},
		{"POST /v1/services/restart", "x", 400, "not what it should be"},
		{"POST /v1/services/restart", `{"names":["a"]}`, 400, "names"},
		{"POST /v1/services/restart", `{"services":["a"]} {}`, 400, "something follows"},
		{"POST /v1/services/restart", `{"services":["a","a"]}`, 400, "twice"},
		{"POST /v1/services/restart", `{"services":[""]}`, 400, "service 1"},
		{"POST /v1/services/restart", `{"services":"a"}`, 400, "not what it should be"},
		{"POST /v1/services/restart", many, 400, "1201 services"},
		{"POST /v1/services/restart", `{"services":["` + strings.Repeat("a", maxBody) + `"]}`, 400, "64 KiB"},
		{"POST /v1/services/remove", "", 404, ""},
		{"GET /v1/services/restart", "", 405, ""},
	} {
		c := &control{}
		method, target, _ := strings.Cut(r.request, " ")
		w := answered(c, method, target, r.body)
		var p Problem
		if w.Code != r.code || r.text != "" && (json.Unmarshal(w.Body.Bytes(), &p) != nil || !strings.Contains(p.Text, r.text) || p.Remedy == "") {
			t.Errorf("%.80s: %d %.200s, want %d %q", r.request, w.Code, w.Body, r.code, r.text)
		}
		if len(c.asked) > 0 {
			t.Errorf("%.80s: asked for %v", r.request, c.asked)
		}
	}
}

func TestServices(t *testing.T) {
	c := &control{}
	client, _, _ := served(t, c)
	op, err := client.Do(t.Context(), Restart, []string{"web", "db"})
	if err != nil || op.ID != "x-1" || op.State != "running" {
		t.Errorf("%+v %v", op, err)
	}
	if _, err := client.Do(t.Context(), Stop, nil); err != nil {
		t.Error(err)
	}
	if w := answered(c, "POST", "/v1/services/start", ""); w.Code != 202 || w.Header().Get("Location") != "/v1/operations/x-1" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if want := []string{"restart web,db", "stop ", "start "}; !slices.Equal(c.asked, want) {
		t.Errorf("asked for %q, want %q", c.asked, want)
	}
	c.err = fmt.Errorf("wrapped: %w", &Problem{Status: 404, Text: "no such service", Remedy: "look again"})
	var p *Problem
	if _, err := client.Do(t.Context(), Start, []string{"x"}); !errors.As(err, &p) || p.Status != 404 || p.Error() != "no such service; look again" {
		t.Errorf("%v", err)
	}
}

func TestPlanAndUsage(t *testing.T) {
	c := &control{}
	client, _, _ := served(t, c)
	if p, err := client.Plan(t.Context()); err != nil || len(p.Ops) != 1 || p.Ops[0].Target != "web" {
		t.Errorf("%+v %v", p, err)
	}
	if u, err := client.Usage(t.Context()); err != nil || len(u.Services) != 1 || u.Services[0].Memory != 7 {
		t.Errorf("%+v %v", u, err)
	}
	c.err = errors.New("not now")
	if _, err := client.Plan(t.Context()); err == nil {
		t.Error("an error is an answer")
	}
	if _, err := client.Usage(t.Context()); err == nil {
		t.Error("an error is an answer")
	}
}

func TestOperation(t *testing.T) {
	c := &control{done: make(chan struct{})}
	client, _, _ := served(t, c)
	if op, err := client.Operation(t.Context(), "x-1"); err != nil || op.State != "running" {
		t.Errorf("%+v %v", op, err)
	}
	got := make(chan status.Operation)
	go func() {
		op, err := client.Await(t.Context(), "x-1")
		if err != nil {
			t.Error(err)
		}
		got <- op
	}()
	close(c.done)
	if op := <-got; op.State != "done" {
		t.Errorf("%+v", op)
	}
}

func TestEvents(t *testing.T) {
	c := &control{more: make(chan struct{}), events: []status.Event{{Number: 1, Act: "start"}, {Number: 2, Act: "stop", Error: "no"}}}
	client, _, stop := served(t, c)
	var got []int64
	each := func(e status.Event) bool { got = append(got, e.Number); return len(got) < 3 }
	if err := client.Events(t.Context(), 1, false, each); err != nil || !slices.Equal(got, []int64{2}) {
		t.Errorf("%v %v", got, err)
	}
	got = nil
	go func() {
		// The follower has had both before it can hear of the third.
		c.mu.Lock()
		defer c.mu.Unlock()
		c.events = append(c.events, status.Event{Number: 3})
		close(c.more)
		c.more = make(chan struct{})
	}()
	if err := client.Events(t.Context(), 0, true, each); err != nil || !slices.Equal(got, []int64{1, 2, 3}) {
		t.Errorf("%v %v", got, err)
	}
	// The daemon's end ends a follower, who learns of it.
	go stop()
	if err := client.Events(t.Context(), 3, true, func(status.Event) bool { return true }); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("the daemon ended: %v", err)
	}
}

func TestLogs(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 5, time.UTC)
	c := &control{lines: []status.LogLine{{Time: at, Service: "web", Stream: "stderr", Text: "a\x1bb"}, {Service: "db", Text: `{"error":"of its own"}`}}}
	client, _, _ := served(t, c)
	var got []string
	each := func(l status.LogLine) bool { got = append(got, l.Service+" "+l.Text); return true }
	if err := client.Logs(t.Context(), LogQuery{Services: []string{"web", "db"}, Tail: 7, Since: at}, each); err != nil {
		t.Fatal(err)
	}
	if want := []string{"web a\x1bb", `db {"error":"of its own"}`}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := c.asked[0]; got != "logs service=web&service=db&since=2026-01-01T12%3A00%3A00.000000005Z&tail=7" {
		t.Errorf("asked for %s", got)
	}
	// An error after lines is told, as is one before.
	c.err = &Problem{Status: 503, Text: "the engine is away"}
	for range 2 {
		var p *Problem
		if err := client.Logs(t.Context(), LogQuery{Tail: -1, Follow: true}, each); !errors.As(err, &p) || p.Text != "the engine is away" {
			t.Errorf("%d lines: %v", len(c.lines), err)
		}
		c.lines = nil
	}
}

// TestFollowersAreBounded: those beyond the bound are told to come again, and
// one that leaves makes room.
func TestFollowersAreBounded(t *testing.T) {
	h := &handler{feed: status.NewFeed(status.Report{}), control: &control{more: make(chan struct{})}, streams: make(chan struct{}, 1)}
	w := httptest.NewRecorder()
	s, err := h.stream(w)
	if err != nil {
		t.Fatal(err)
	}
	busy := httptest.NewRecorder()
	h.events(busy, httptest.NewRequest("GET", "/v1/events", nil))
	if busy.Code != http.StatusServiceUnavailable || !strings.Contains(busy.Body.String(), "too many") {
		t.Errorf("%d %s", busy.Code, busy.Body)
	}
	s.end()
	free := httptest.NewRecorder()
	h.events(free, httptest.NewRequest("GET", "/v1/events", nil))
	if free.Code != 200 {
		t.Errorf("%d %s", free.Code, free.Body)
	}
}

// FuzzRequest: whatever is asked, the answer is a status that says what it is,
// and a refusal is a Problem that asks the daemon for nothing.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{"services/restart|{\"services\":[\"a\"]}", "logs?tail=5&service=a&since=2026-01-01T00:00:00Z|", "events?since=1&follow=0|", "operations/a%2fb?wait=0|", "usage|", "services/stop|[]"} {
		path, body, _ := strings.Cut(s, "|")
		f.Add("GET", path, body)
		f.Add("POST", path, body)
	}
	f.Fuzz(func(t *testing.T, method, path, body string) {
		target := "/v1/" + path
		if u, err := url.ParseRequestURI(target); err != nil || u.Host != "" || method != "GET" && method != "POST" || strings.ContainsAny(target, " \r\n") {
			return
		}
		if strings.Contains(target, "watch") || strings.Contains(target, "follow=1") || strings.Contains(target, "wait=1") {
			return // these have no end of their own
		}
		req, err := http.NewRequest(method, "http://holdfast"+target, strings.NewReader(body))
		if err != nil {
			return
		}
		c := &control{more: make(chan struct{}), done: make(chan struct{})}
		w := httptest.NewRecorder()
		Handler(status.NewFeed(status.Report{}), c).ServeHTTP(w, req)
		text, _ := io.ReadAll(w.Result().Body)
		switch {
		case w.Code == 400:
			var p Problem
			if json.Unmarshal(text, &p) != nil || p.Text == "" || p.Remedy == "" || len(c.asked) > 0 {
				t.Errorf("%s %q %q: %s, asked for %v", method, target, body, text, c.asked)
			}
		case w.Code >= 500:
			t.Errorf("%s %q: %d %s", method, target, w.Code, text)
		}
	})
}
