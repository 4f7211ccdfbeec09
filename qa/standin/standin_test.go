// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func env(pairs ...string) func(string) (string, bool) {
	return func(k string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == k {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func TestRole(t *testing.T) {
	r, err := roleOf(env("STANDIN_PORTS", "http:3080:/healthz|/,tcp:3090", "STANDIN_ONCE", "1", "STANDIN_STARTUP", "2s",
		"STANDIN_MEMORY", "128MiB", "STANDIN_DO", "exit 3 after 5s; slow-stop 20s;"))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.ports) != 2 || r.ports[0].number != 3080 || !slices.Equal(r.ports[0].paths, []string{"/healthz", "/"}) || r.ports[1].paths != nil {
		t.Errorf("ports are %+v", r.ports)
	}
	if !r.once || r.startup != 2*time.Second || r.memory != 128<<20 {
		t.Errorf("role is %+v", r)
	}
	want := []command{{"exit", "3", 5 * time.Second}, {"slow-stop", "20s", 0}}
	if !slices.Equal(r.do, want) {
		t.Errorf("commands are %+v, want %+v", r.do, want)
	}
}

func TestRoleRefuses(t *testing.T) {
	for _, c := range [][2]string{
		{"PORTS", "http:80"}, {"PORTS", "udp:53"}, {"PORTS", "tcp:0"}, {"PORTS", "tcp:80:/x"}, {"PORTS", "http:80:healthz"},
		{"ONCE", "yes"}, {"STARTUP", "2"}, {"MEMORY", "12MB"}, {"MEMORY", "-1"}, {"MEMORY", "2000000GiB"},
		{"DO", "dance"}, {"DO", "exit"}, {"DO", "exit 256"}, {"DO", "oom 5"}, {"DO", "after 5s"}, {"DO", "oom after soon"}, {"DO", "slow-stop x"},
		{"DO", "oom after -1s"},
	} {
		if _, err := roleOf(env("STANDIN_"+c[0], c[1])); err == nil {
			t.Errorf("STANDIN_%s=%q is taken", c[0], c[1])
		}
	}
}

// serving is an actor behind one HTTP port.
func serving(t *testing.T) (*actor, string) {
	t.Helper()
	a := newActor()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go a.serve(l, port{paths: []string{"/", "/healthz"}})
	return a, "http://" + l.Addr().String()
}

func get(t *testing.T, ctx context.Context, url string) (int, error) {
	t.Helper()
	q, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		return 0, err
	}
	r.Body.Close()
	return r.StatusCode, nil
}

func TestHealth(t *testing.T) {
	a, url := serving(t)
	status := func(path string, want int) {
		t.Helper()
		if got, err := get(t, t.Context(), url+path); got != want {
			t.Errorf("%s is %d, %v; want %d", path, got, err, want)
		}
	}
	status("/healthz", 503)
	a.ready()
	status("/healthz", 200)
	status("/", 200)
	status("/other", 404)
	if err := a.told("fail-health"); err != nil {
		t.Fatal(err)
	}
	status("/healthz", 503)
	if err := a.told("heal"); err != nil {
		t.Fatal(err)
	}
	status("/healthz", 200)
	if err := a.told("hang-health"); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got, err := get(t, short, url+"/healthz"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a hanging health check answers %d, %v", got, err)
	}
	answered := make(chan int)
	go func() {
		n, _ := get(t, t.Context(), url+"/healthz")
		answered <- n
	}()
	if err := a.told("heal"); err != nil {
		t.Fatal(err)
	}
	if n := <-answered; n != 200 {
		t.Errorf("healed, health is %d", n)
	}
	if err := a.told("dance"); err == nil {
		t.Error("an unknown command is taken")
	}
}

func TestActs(t *testing.T) {
	a := newActor()
	a.act(command{verb: "exit", arg: "3"})
	if code := <-a.exit; code != 3 {
		t.Errorf("exits with %d, want 3", code)
	}
	if err := a.memory(1 << 20); err != nil || len(a.held) != 1<<20 {
		t.Errorf("holds %d bytes, %v", len(a.held), err)
	}
	if err := a.memory(0); err != nil || a.held != nil {
		t.Errorf("holds %d bytes, %v", len(a.held), err)
	}
	a.act(command{verb: "ignore-stop"})
	a.act(command{verb: "exit", arg: "9"})
	if code := a.stop(); code != 9 {
		t.Errorf("asked to stop it ends with %d, want what ended it otherwise, 9", code)
	}
	a.act(command{verb: "heal"})
	a.act(command{verb: "slow-stop", arg: "1ms"})
	if code := a.stop(); code != 0 {
		t.Errorf("a slow stop ends with %d", code)
	}
}

func TestShell(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	for line, want := range map[string]int{
		"wget -q '" + s.URL + "/healthz' -O /dev/null || exit 1": 0,
		"wget -q '" + s.URL + "/nowhere' -O /dev/null || exit 1": 1,
		"curl -f " + s.URL + "/nowhere":                          8,
		"wget -q http://127.0.0.1:1/ || exit 5":                  5,
		"true && exit 4":                                         4,
		"false && exit 4":                                        1,
		"false || true":                                          0,
		"pg_isready":                                             127,
		"exit 300":                                               exitUsage,
		"cat /etc/passwd > x":                                    exitUsage,
		"echo 'open":                                             exitUsage,
		"true ||":                                                0,
		"false ||":                                               1,
	} {
		if got := run("sh", []string{"-c", line}); got != want {
			t.Errorf("sh -c %q is %d, want %d", line, got, want)
		}
	}
}

func TestRedis(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go serveTCP(l)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64)
	if n, err := c.Read(b); string(b[:n]) != "+PONG\r\n" {
		t.Errorf("answers %q, %v", b[:n], err)
	}
}

func TestNote(t *testing.T) {
	file := t.TempDir() + "/runs"
	for range 2 {
		if err := note(file); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil || string(b) != "ran\nran\n" {
		t.Errorf("the file has %q, %v", b, err)
	}
	if need(file) != nil || need(file+"x") == nil {
		t.Error("need does not tell a file from none")
	}
}

func FuzzCommands(f *testing.F) {
	for verb := range verbs {
		f.Add(verb + " 5 after 2s; oom")
	}
	f.Fuzz(func(t *testing.T, s string) {
		commands, err := parseCommands(s)
		if err != nil {
			return
		}
		for _, c := range commands {
			if _, ok := verbs[c.verb]; !ok || c.after < 0 || (c.arg == "") != (verbs[c.verb] == "") {
				t.Errorf("%q gives %+v", s, c)
			}
		}
	})
}

func FuzzShell(f *testing.F) {
	f.Add("wget -q 'http://127.0.0.1:3080/healthz' -O /dev/null || exit 1")
	f.Add(`a "b c" && d`)
	f.Fuzz(func(t *testing.T, line string) {
		words, err := split(line)
		if err == nil && utf8.RuneCountInString(strings.Join(words, "")) > utf8.RuneCountInString(line) {
			t.Errorf("%q gives more than it has: %q", line, words)
		}
	})
}
