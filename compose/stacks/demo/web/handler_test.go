// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/compose/stacks/demo/misbehave"
)

// fakeStore keeps entries in memory.
type fakeStore struct {
	mu      sync.Mutex
	entries []Entry
	place   bool
	err     error
}

func (f *fakeStore) Schema(context.Context) (int, error) {
	if f.place {
		return 2, f.err
	}
	return 1, f.err
}

func (f *fakeStore) HasPlace() bool { return f.place }

func (f *fakeStore) Newest(_ context.Context, limit int) ([]Entry, int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	newest := slices.Clone(f.entries)
	slices.Reverse(newest)
	return newest[:min(limit, len(newest))], int64(len(newest)), f.err
}

func (f *fakeStore) Add(_ context.Context, e Entry) (Entry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.ID, e.Created = int64(len(f.entries)+1), time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	f.entries = append(f.entries, e)
	return e, f.err
}

func server(t *testing.T, store Store, env map[string]string) *httptest.Server {
	t.Helper()
	bad, err := misbehave.Read(func(k string) string { return env[k] }, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(newHandler(slog.New(slog.DiscardHandler), store, "1.2.3", bad))
	t.Cleanup(srv.Close)
	return srv
}

func do(t *testing.T, method, target, contentType, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

const formType = "application/x-www-form-urlencoded"

func TestSignAndRead(t *testing.T) {
	srv := server(t, &fakeStore{place: true}, nil)
	form := url.Values{"author": {" Ada "}, "message": {"<script>alert(1)</script>\r\nsecond"}, "place": {"Turin"}}
	resp, _ := do(t, "POST", srv.URL+"/", formType, form.Encode(), "Origin", srv.URL)
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/#entry-1" {
		t.Fatalf("%d %s", resp.StatusCode, resp.Header.Get("Location"))
	}
	form.Set("message", "newer")
	do(t, "POST", srv.URL+"/", formType, form.Encode())
	resp, body := do(t, "GET", srv.URL+"/", "", "")
	if resp.StatusCode != http.StatusOK || strings.Contains(body, "<script>") || !strings.Contains(body, "&lt;script&gt;") {
		t.Errorf("not escaped: %d\n%s", resp.StatusCode, body)
	}
	if strings.Index(body, "newer") > strings.Index(body, "second") {
		t.Error("entries are not newest first")
	}
	for _, want := range []string{"<strong>Ada</strong>, Turin", "2 entries", "version 1.2.3", "schema 2", `name="place"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestNoPlaceBeforeItsSchema(t *testing.T) {
	store := &fakeStore{}
	srv := server(t, store, nil)
	do(t, "POST", srv.URL+"/", formType, url.Values{"author": {"A"}, "message": {"m"}, "place": {"X"}}.Encode())
	_, body := do(t, "GET", srv.URL+"/", "", "")
	if strings.Contains(body, `name="place"`) || store.entries[0].Place != "" {
		t.Error("a place without the schema for it")
	}
}

func TestOtherSitesCannotSign(t *testing.T) {
	store := &fakeStore{}
	srv := server(t, store, nil)
	form := url.Values{"author": {"A"}, "message": {"m"}}.Encode()
	for _, h := range [][2]string{{"Origin", "https://elsewhere.example"}, {"Sec-Fetch-Site", "cross-site"}} {
		if resp, _ := do(t, "POST", srv.URL+"/", formType, form, h[0], h[1]); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%v: %d", h, resp.StatusCode)
		}
	}
	if len(store.entries) != 0 {
		t.Error("something was signed")
	}
}

func TestBounds(t *testing.T) {
	srv := server(t, &fakeStore{place: true}, nil)
	for name, form := range map[string]url.Values{
		"no name":      {"author": {"  "}, "message": {"m"}},
		"no message":   {"author": {"A"}},
		"long name":    {"author": {strings.Repeat("é", maxAuthor+1)}, "message": {"m"}},
		"long message": {"author": {"A"}, "message": {strings.Repeat("x", maxMessage+1)}},
		"control":      {"author": {"A\x07"}, "message": {"m"}},
		"not UTF-8":    {"author": {"A\xff"}, "message": {"m"}},
		"NUL":          {"author": {"A"}, "message": {"m\x00"}},
	} {
		resp, body := do(t, "POST", srv.URL+"/", formType, form.Encode())
		if resp.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(body, "Not kept") {
			t.Errorf("%s: %d", name, resp.StatusCode)
		}
	}
	resp, _ := do(t, "POST", srv.URL+"/", formType, "author="+strings.Repeat("x", maxBody))
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a huge form: %d", resp.StatusCode)
	}
}

func TestAPI(t *testing.T) {
	srv := server(t, &fakeStore{place: true}, nil)
	resp, body := do(t, "POST", srv.URL+"/api/entries", "application/json; charset=utf-8", `{"author":"Ada","message":"hello","place":"Turin"}`)
	var e Entry
	if err := json.Unmarshal([]byte(body), &e); err != nil || resp.StatusCode != http.StatusCreated || e.ID != 1 || e.Place != "Turin" {
		t.Fatalf("%d %s %v", resp.StatusCode, body, err)
	}
	resp, body = do(t, "GET", srv.URL+"/api/entries?limit=10", "", "")
	var list struct {
		Entries []Entry
		Total   int64
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil || resp.StatusCode != http.StatusOK || list.Total != 1 || list.Entries[0].Message != "hello" {
		t.Fatalf("%d %s %v", resp.StatusCode, body, err)
	}
	for _, c := range []struct {
		method, path, kind, body string
		want                     int
	}{
		{"GET", "/api/entries?limit=0", "", "", 400},
		{"POST", "/api/entries", "text/plain", "{}", 415},
		{"POST", "/api/entries", "application/json", "{", 400},
		{"POST", "/api/entries", "application/json", `{"author":"A","message":"m","id":3}`, 400},
		{"POST", "/api/entries", "application/json", `{"author":"A","message":"m"}{}`, 400},
		{"POST", "/api/entries", "application/json", `{"author":"","message":"m"}`, 422},
		{"POST", "/api/entries", "application/json", `{"author":"` + strings.Repeat("x", maxBody) + `"}`, 413},
		{"PUT", "/api/entries", "application/json", "{}", 405},
		{"GET", "/elsewhere", "", "", 404},
	} {
		if resp, _ := do(t, c.method, srv.URL+c.path, c.kind, c.body); resp.StatusCode != c.want {
			t.Errorf("%s %s %.40s: %d, want %d", c.method, c.path, c.body, resp.StatusCode, c.want)
		}
	}
}

func TestHealthAndVersion(t *testing.T) {
	store := &fakeStore{}
	srv := server(t, store, nil)
	if resp, _ := do(t, "GET", srv.URL+"/healthz", "", ""); resp.StatusCode != 200 {
		t.Errorf("health: %d", resp.StatusCode)
	}
	if _, body := do(t, "GET", srv.URL+"/version", "", ""); body != "{\"version\":\"1.2.3\",\"schema\":1}\n" {
		t.Errorf("version: %s", body)
	}
	store.err = errors.New("connection refused by 10.0.0.1")
	for _, p := range []string{"/healthz", "/version", "/", "/api/entries"} {
		resp, body := do(t, "GET", srv.URL+p, "", "")
		if resp.StatusCode != http.StatusServiceUnavailable || p != "/healthz" && strings.Contains(body, "10.0.0.1") {
			t.Errorf("%s without a database: %d %s", p, resp.StatusCode, body)
		}
	}
}

func TestFailHealth(t *testing.T) {
	srv := server(t, &fakeStore{}, map[string]string{"FAIL_HEALTH": "1"})
	if resp, _ := do(t, "GET", srv.URL+"/healthz", "", ""); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("health: %d", resp.StatusCode)
	}
	if resp, _ := do(t, "GET", srv.URL+"/", "", ""); resp.StatusCode != 200 {
		t.Errorf("page: %d", resp.StatusCode)
	}
}

func TestHeaders(t *testing.T) {
	srv := server(t, &fakeStore{}, nil)
	resp, body := do(t, "GET", srv.URL+"/", "", "")
	if !strings.HasPrefix(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Error("no content security policy")
	}
	if strings.Contains(body, "http://") && !strings.Contains(body, "http://www.w3.org") || strings.Contains(body, "https://") {
		t.Error("the page refers to another host")
	}
	if resp, _ := do(t, "GET", srv.URL+"/style.css", "", ""); resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/css") {
		t.Errorf("style: %d", resp.StatusCode)
	}
}

func TestMigrationsOfReleases(t *testing.T) {
	for v, want := range map[string]int{"1.0.0": 1, "1.0.9": 1, "1.1.0": 2, "2.0.0": 2} {
		m, err := migrationsOf(v)
		if err != nil || len(m) != want {
			t.Errorf("%s: %d migrations, want %d (%v)", v, len(m), want, err)
		}
	}
	for _, v := range []string{"", "dev", "1.0", "0.9.0", "1.0.x"} {
		if _, err := migrationsOf(v); err == nil {
			t.Errorf("%q: no error", v)
		}
	}
}

func TestShutdownLetsAnswersFinish(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- listen(ctx, "127.0.0.1:0", http.NotFoundHandler()) }()
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("waited 30 s for the server to stop")
	}
}
