// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &meter{}
		m.start(1_000_000, 101_000_000)
		m.working("a")
		m.working("b")
		m.take(time.Now())
		for range 20 {
			<-time.After(time.Second)
			m.add(2_000_000)
			m.take(time.Now())
		}
		m.waiting("a", "x", true)
		f := m.take(time.Now())
		if f.Done != 41_000_000 || f.Rate != 2_000_000 || f.Left != 30*time.Second || f.Waiting != "" {
			t.Errorf("%+v", f)
		}
		m.waiting("b", "y", false)
		if f := m.take(time.Now()); f.Waiting != "" {
			t.Errorf("a first failure is news: %+v", f)
		}
		m.waiting("b", "y", true)
		if f := m.take(time.Now()); f.Waiting != "x" {
			t.Errorf("%+v", f)
		}
	})
}

// Texts name what is in the way, and are the same from try to try: no ports
// of our own, no times.
func TestShort(t *testing.T) {
	at := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 443}
	own := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 41234}
	asked := func(err error) error { return &url.Error{Op: "Get", URL: "https://registry.test/v2/", Err: err} }
	refused := &net.OpError{Op: "dial", Net: "tcp", Addr: at, Err: syscall.ECONNREFUSED}
	for _, row := range []struct {
		err  error
		want string
	}{
		{asked(&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "registry.test", Server: "10.0.0.1:53"}}), "cannot be found: no such host (registry.test)"},
		{asked(refused), "cannot be reached at 192.0.2.7:443: connection refused"},
		{asked(&net.OpError{Op: "proxyconnect", Net: "tcp", Err: refused}), "cannot be reached through the proxy: dial tcp 192.0.2.7:443: connection refused"},
		{fmt.Errorf("broke off after 1 of 2 bytes: %w", &net.OpError{Op: "read", Net: "tcp", Source: own, Addr: at, Err: syscall.ECONNRESET}), "broke off: connection reset by peer"},
		{asked(x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired, Detail: "current time 1970-01-01"}), "has a certificate that is not valid now; look whether this box's clock is right"},
		{asked(errors.New("http2: odd\n\tanswer")), "cannot be asked: http2: odd answer"},
		{errStalled, "said nothing for 1m0s"},
	} {
		if got := short(row.err); got != row.want {
			t.Errorf("%v is %q, want %q", row.err, got, row.want)
		}
	}
}
