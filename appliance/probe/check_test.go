// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/appliance/engine"
	"github.com/holdfast/holdfast/compose/stack"
)

// service is a container on the loopback.
func service(t *testing.T, h http.Handler, secure bool) (Target, int) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	a := netip.MustParseAddrPort(s.Listener.Addr().String())
	return Target{Container: "c", IPs: []netip.Addr{a.Addr()}}, int(a.Port())
}

func TestHTTP(t *testing.T) {
	answer := func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("User-Agent") != "holdfast-probe" || q.Method != http.MethodGet {
			t.Errorf("%s %v", q.Method, q.Header)
		}
		switch q.URL.Path {
		case "/good":
		case "/moved":
			http.Redirect(w, q, "/bad", http.StatusFound)
		case "/teapot":
			w.WriteHeader(http.StatusTeapot)
		case "/flood":
			w.WriteHeader(http.StatusInternalServerError)
			for range 1 << 12 {
				if _, err := w.Write([]byte(strings.Repeat("x\x1b", 512))); err != nil {
					return // nobody reads all of it
				}
			}
		case "/hang":
			<-q.Context().Done()
		case "/endless":
			w.(http.Flusher).Flush()
			<-q.Context().Done()
		default:
			http.Error(w, "on fire\nthe pump is off", http.StatusServiceUnavailable)
		}
	}
	plain, port := service(t, http.HandlerFunc(answer), false)
	tls, tlsPort := service(t, http.HandlerFunc(answer), true)
	two := plain
	two.IPs = []netip.Addr{netip.MustParseAddr("127.0.0.9"), plain.IPs[0]}
	d := newDialer()
	for _, c := range []struct {
		t    Target
		p    stack.Probe
		want string
	}{
		{plain, stack.Probe{Path: "/good", Port: port}, ""},
		{plain, stack.Probe{Path: "good", Port: port}, ""},
		{plain, stack.Probe{Path: "/moved", Port: port}, ""},
		{plain, stack.Probe{Path: "/moved", Port: port, Status: 200}, "answered 302"},
		{plain, stack.Probe{Path: "/teapot", Port: port}, "answered 418"},
		{plain, stack.Probe{Path: "/teapot", Port: port, Status: 418}, ""},
		{plain, stack.Probe{Path: "/bad", Port: port}, "answered 503: the pump is off"},
		{plain, stack.Probe{Path: "/flood", Port: port}, "answered 500: x x x"},
		{plain, stack.Probe{Path: "/hang", Port: port, Timeout: 50 * time.Millisecond}, "no answer within 50ms"},
		{plain, stack.Probe{Path: "/endless", Port: port, Timeout: 50 * time.Millisecond}, "no answer within 50ms"},
		{plain, stack.Probe{Path: "/good", Port: port, Scheme: "https"}, "server gave HTTP response to HTTPS client"},
		{tls, stack.Probe{Path: "/good", Port: tlsPort, Scheme: "https"}, ""},
		{two, stack.Probe{Path: "/good", Port: port}, ""},
		{Target{}, stack.Probe{Path: "/good", Port: port}, "the container has no address"},
		{plain, stack.Probe{Path: "/%zz", Port: port}, "invalid URL escape"},
	} {
		c.p.Kind = "http"
		got := d.check(t.Context(), nil, c.t, c.p, "")
		if got.unknown || (c.want == "") != (got.failed == "") || !strings.Contains(got.failed, c.want) {
			t.Errorf("%s %s: %q, want %q", c.p.Scheme, c.p.Path, got.failed, c.want)
		}
		if len([]rune(got.failed)) > maxOutput+40 {
			t.Errorf("%s: %d characters", c.p.Path, len(got.failed))
		}
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddrPort(l.Addr().String())
	d, tg, p := newDialer(), Target{IPs: []netip.Addr{a.Addr()}}, stack.Probe{Kind: "tcp", Port: int(a.Port())}
	if got := d.check(t.Context(), nil, tg, p, ""); got.failed != "" {
		t.Error(got.failed)
	}
	l.Close()
	if got := d.check(t.Context(), nil, tg, p, ""); !strings.Contains(got.failed, "connection refused") {
		t.Error(got.failed)
	}
	// A host that drops packets has its share of the time only.
	tg.IPs = []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
	p.Timeout = 40 * time.Millisecond
	tried := 0
	d.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		tried++
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if got := d.check(t.Context(), nil, tg, p, ""); got.failed != "no answer within 40ms" || tried != 2 {
		t.Errorf("%q, %d tries", got.failed, tried)
	}
}

type execs struct {
	result engine.ExecResult
	err    error
	runs   bool
	runErr error
	began  int
}

func (e *execs) Exec(context.Context, string, []string) (engine.ExecResult, error) {
	e.began++
	return e.result, e.err
}

func (e *execs) ExecRuns(context.Context, string) (bool, error) { return e.runs, e.runErr }

func TestExec(t *testing.T) {
	d, p := newDialer(), stack.Probe{Kind: "exec", Command: []string{"x"}}
	for name, c := range map[string]struct {
		e     execs
		hangs string
		want  outcome
		began int
	}{
		"good":       {execs{}, "", outcome{}, 1},
		"bad":        {execs{result: engine.ExecResult{ExitCode: 3, Output: "a\nno\x00 lock\n"}}, "", outcome{failed: "exit code 3: no  lock"}, 1},
		"hangs":      {execs{result: engine.ExecResult{ID: "e1"}, err: fmt.Errorf("%w (exec)", engine.ErrExecTimeout)}, "", outcome{failed: "no answer within 30s", hangs: "e1"}, 1},
		"hangs on":   {execs{runs: true}, "e1", outcome{failed: "the command of an earlier check still runs", hangs: "e1"}, 0},
		"hangs ends": {execs{}, "e1", outcome{}, 1},
		"who knows":  {execs{runErr: engine.ErrUnreachable}, "e1", outcome{unknown: true, hangs: "e1"}, 0},
		"no engine":  {execs{err: fmt.Errorf("%w (x)", engine.ErrUnreachable)}, "", outcome{unknown: true}, 1},
		"gone":       {execs{err: fmt.Errorf("x: %w", engine.ErrNotFound)}, "", outcome{unknown: true}, 1},
		"refused":    {execs{err: errors.New("the engine says no")}, "", outcome{failed: "the engine says no"}, 1},
	} {
		if got := d.check(t.Context(), &c.e, Target{}, p, c.hangs); got != c.want || c.e.began != c.began {
			t.Errorf("%s: %+v, %d began; want %+v", name, got, c.e.began, c.want)
		}
	}
}

func TestUnknownKind(t *testing.T) {
	if got := newDialer().check(t.Context(), nil, Target{}, stack.Probe{Kind: "dns"}, ""); got.failed != `no such probe: "dns"` {
		t.Error(got.failed)
	}
}
