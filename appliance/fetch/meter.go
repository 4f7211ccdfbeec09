// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/holdfast/holdfast/appliance/supervise"
)

const (
	// reportEvery is how often a report is given.
	reportEvery = time.Second
	// window is how many reports back the rate is taken.
	window = 10
)

// meter counts bytes and knows who waits for what.
type meter struct {
	mu          sync.Mutex
	done, total int64
	// jobs are the blobs at work: "" flows, anything else says why it waits.
	jobs    map[string]string
	samples []sample
}

type sample struct {
	at   time.Time
	done int64
}

func (m *meter) start(done, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done, m.total, m.samples = done, total, nil
}

func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += n
}

func (m *meter) working(job string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.jobs == nil {
		m.jobs = map[string]string{}
	}
	m.jobs[job] = ""
}

func (m *meter) flowing(job string) { m.working(job) }

// waiting notes why a job waits; a first failure is no news yet.
func (m *meter) waiting(job, why string, news bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if news || m.jobs[job] != "" {
		m.jobs[job] = why
	}
}

func (m *meter) idle(job string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.jobs, job)
}

// run reports until stop is called, and once more then.
func (m *meter) run(report func(supervise.Fetching)) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(reportEvery)
		defer t.Stop()
		for {
			select {
			case now := <-t.C:
				report(m.take(now))
			case <-end:
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}

// take makes a report. Only where nothing flows at all does it say that the
// fetching waits.
func (m *meter) take(now time.Time) supervise.Fetching {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := supervise.Fetching{Done: m.done, Total: m.total}
	for _, why := range m.jobs {
		if why == "" {
			f.Waiting = ""
			break
		}
		// The least of them, so that it does not change from report to report.
		if f.Waiting == "" || why < f.Waiting {
			f.Waiting = why
		}
	}
	m.samples = append(m.samples, sample{now, m.done})
	m.samples = m.samples[max(0, len(m.samples)-window):]
	first := m.samples[0]
	if took := now.Sub(first.at).Seconds(); took > 0 && m.done > first.done {
		f.Rate = int64(float64(m.done-first.done) / took)
	}
	if f.Rate > 0 && m.total > m.done {
		f.Left = time.Duration(float64(m.total-m.done) / float64(f.Rate) * float64(time.Second))
	}
	return f
}

// size prints bytes as people read them.
func size(n int64) string {
	switch {
	case n >= 10_000_000_000:
		return fmt.Sprintf("%d GB", n/1_000_000_000)
	case n >= 1_000_000_000:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1_000_000:
		return fmt.Sprintf("%d MB", n/1_000_000)
	}
	return fmt.Sprintf("%d kB", (n+999)/1000)
}

func join(answers []string) string { return strings.Join(answers, "; ") }

// short is an error without what changes from try to try (ports of our own,
// addresses of requests): a console prints each new text.
func short(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	var request *url.Error
	var cert x509.CertificateInvalidError
	text := err.Error()
	switch {
	case errors.As(err, &cert) && cert.Reason == x509.Expired:
		text = "has a certificate that is not valid now; look whether this box's clock is right"
	case errors.As(err, &op) && op.Op == "proxyconnect":
		text = "cannot be reached through the proxy: " + op.Err.Error()
	case errors.As(err, &dns):
		text = "cannot be found: " + dns.Err + " (" + dns.Name + ")"
	case errors.As(err, &op) && op.Op == "dial":
		text = "cannot be reached: " + op.Err.Error()
		if op.Addr != nil {
			text = "cannot be reached at " + op.Addr.String() + ": " + op.Err.Error()
		}
	case errors.As(err, &op):
		text = "broke off: " + op.Err.Error()
	case errors.As(err, &request):
		text = "cannot be asked: " + request.Err.Error()
	}
	return strings.Join(strings.Fields(text), " ")
}
