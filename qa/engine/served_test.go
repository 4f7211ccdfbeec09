// SPDX-License-Identifier: Apache-2.0

//go:build engine

package engine

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// client asks containers at their addresses, with a connection for each
// request.
func (d dock) client() *http.Client {
	dial := (&net.Dialer{}).DialContext
	if d.d != nil {
		dial = d.d.Dial
	}
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
}

// guest asks one service again and again.
type guest struct {
	t    *testing.T
	name string
	stop context.CancelFunc
	done sync.WaitGroup
	// enough is closed after 10 requests.
	enough chan struct{}

	mu     sync.Mutex
	asked  int
	failed []string
}

// visit begins to ask a service's /healthz, 20 times a second.
func (b *box) visit(service string) *guest {
	b.t.Helper()
	c := b.containers()[service]
	if len(c.IPs) == 0 {
		b.t.Fatalf("%s has no address: %+v", service, c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &guest{t: b.t, name: service, stop: cancel, enough: make(chan struct{})}
	url := "http://" + net.JoinHostPort(c.IPs[0].String(), "8080") + "/healthz"
	client := b.dock.client()
	g.done.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			err := get(ctx, client, url)
			if ctx.Err() != nil {
				return
			}
			g.mu.Lock()
			if g.asked++; g.asked == 10 {
				close(g.enough)
			}
			if err != "" {
				g.failed = append(g.failed, err)
			}
			g.mu.Unlock()
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	b.t.Cleanup(func() { cancel(); g.done.Wait() })
	return g
}

func get(ctx context.Context, client *http.Client, url string) string {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err.Error()
	}
	r, err := client.Do(q)
	if err != nil {
		return err.Error()
	}
	r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return r.Status
	}
	return ""
}

// wellServed ends the visit: every request was answered, and there were some.
func (g *guest) wellServed() {
	g.t.Helper()
	select {
	case <-g.enough:
	case <-time.After(patience):
		g.t.Errorf("waited for %s to be asked 10 times", g.name)
	}
	g.stop()
	g.done.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.failed) > 0 {
		g.t.Errorf("%s answered %d of %d requests: %s", g.name, g.asked-len(g.failed), g.asked, strings.Join(g.failed[:min(3, len(g.failed))], "; "))
	}
}

// do tells a running stand-in to misbehave.
func (b *box) do(service string, words ...string) {
	b.t.Helper()
	b.docker(append([]string{"exec", b.project + "-" + service + "-1", "/standin", "do"}, words...)...)
}

// logged waits until a service has printed a text.
func (b *box) logged(service, text string) {
	b.t.Helper()
	b.holds("the log of "+service, text, func() string { return b.docker("logs", "--tail", "50", b.project+"-"+service+"-1") })
}

// holds waits until what read gives has a text in it.
func (b *box) holds(what, text string, read func() string) {
	b.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		out := read()
		if strings.Contains(out, text) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("waited for %s to hold %q:\n%s", what, text, out)
		}
	}
}
