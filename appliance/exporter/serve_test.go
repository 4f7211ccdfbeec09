// SPDX-License-Identifier: Apache-2.0

package exporter

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/holdfast/holdfast/appliance/status"
)

// start runs an exporter on a free port until the test ends.
func start(t *testing.T, c Config, tell func(*status.Condition)) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	address, done := make(chan string, 1), make(chan struct{})
	c.Listen = "127.0.0.1:0"
	c.Listening = func(a net.Addr) { address <- a.String() }
	go func() { defer close(done); Run(ctx, c, tell) }()
	t.Cleanup(func() { cancel(); <-done })
	select {
	case a := <-address:
		return a
	case <-time.After(30 * time.Second):
		t.Fatal("waited 30 s for the exporter to listen")
	}
	return ""
}

func get(t *testing.T, client *http.Client, url, user, password string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestPlain(t *testing.T) {
	told := make(chan *status.Condition, 1)
	a := start(t, config(sample()), func(c *status.Condition) { told <- c })
	if c := <-told; c != nil {
		t.Errorf("condition %v", c)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]string{"/metrics": "holdfast_generation 7", "/": "Holdfast", "/metrics?x": "go_goroutines"} {
		if code, body := get(t, client, "http://"+a+path, "", ""); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, without %q\n%s", path, code, want, body)
		}
	}
	if code, _ := get(t, client, "http://"+a+"/debug/pprof/", "", ""); code != 404 {
		t.Errorf("profiling: status %d", code)
	}
}

// pair writes a certificate for 127.0.0.1 and its key.
func pair(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "box.crt"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, filepath.Join(dir, "box.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k})))
	pool := x509.NewCertPool()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(cert)
	return pool
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func webConfig(t *testing.T) (path string, pool *x509.CertPool) {
	t.Helper()
	dir := t.TempDir()
	pool = pair(t, dir)
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "web.yml")
	write(t, path, "tls_server_config: {cert_file: box.crt, key_file: box.key}\nbasic_auth_users: {prometheus: '"+string(hash)+"'}\n")
	return path, pool
}

func TestTLSAndBasicAuth(t *testing.T) {
	path, pool := webConfig(t)
	c := config(sample())
	c.WebConfig = path
	a := start(t, c, func(*status.Condition) {})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
	for _, x := range []struct {
		url, user, password string
		want                int
	}{
		{"https://" + a + "/metrics", "prometheus", "secret", 200},
		{"https://" + a + "/metrics", "prometheus", "wrong", 401},
		{"https://" + a + "/", "", "", 401},
		{"http://" + a + "/metrics", "prometheus", "secret", 400},
	} {
		if code, body := get(t, client, x.url, x.user, x.password); code != x.want {
			t.Errorf("%s as %q: %d, want %d\n%s", x.url, x.user, code, x.want, body)
		}
	}
	// A file that becomes wrong fails new requests, and serves again once it
	// is mended.
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, "tls_server_config: [")
	if code, _ := get(t, client, "https://"+a+"/metrics", "prometheus", "secret"); code == 200 {
		t.Error("a wrong web configuration served")
	}
	write(t, path, string(good))
	if code, body := get(t, client, "https://"+a+"/metrics", "prometheus", "secret"); code != 200 {
		t.Errorf("mended: %d %s", code, body)
	}
}

func TestServeRefuses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	for name, x := range map[string]struct{ listen, web, want string }{
		"taken":         {l.Addr().String(), "", "address already in use"},
		"no address":    {"nonsense", "", "missing port"},
		"no file":       {"127.0.0.1:0", "absent.yml", "absent.yml"},
		"not YAML":      {"127.0.0.1:0", "a: [", "a.yml is wrong"},
		"unknown key":   {"127.0.0.1:0", "tls: {}\n", "field tls not found"},
		"no such cert":  {"127.0.0.1:0", "tls_server_config: {cert_file: no.crt, key_file: no.key}\n", "no.crt"},
		"no bcrypt":     {"127.0.0.1:0", "basic_auth_users: {me: secret}\n", "a.yml is wrong"},
		"half the pair": {"127.0.0.1:0", "tls_server_config: {cert_file: no.crt}\n", "key"},
	} {
		t.Run(name, func(t *testing.T) {
			c := config(sample())
			c.Listen = x.listen
			if strings.HasPrefix(x.web, "absent") {
				c.WebConfig = filepath.Join(dir, x.web)
			} else if x.web != "" {
				c.WebConfig = filepath.Join(dir, "a.yml")
				write(t, c.WebConfig, x.web)
			}
			err := Serve(t.Context(), c)
			if err == nil || !strings.Contains(err.Error(), x.want) || !strings.HasPrefix(err.Error(), "metrics: ") {
				t.Errorf("error %v, want one with %q", err, x.want)
			}
		})
	}
}

// A broken configuration is one condition and one line, and is mended without
// a restart.
func TestRunTriesAgain(t *testing.T) {
	defer func(d time.Duration) { again = d }(again)
	again = 5 * time.Millisecond
	path := filepath.Join(t.TempDir(), "web.yml")
	write(t, path, "nonsense: true\n")
	c := config(sample())
	c.WebConfig = path
	lines := make(chan string, 100)
	c.Log = func(s string) { lines <- s }
	told := make(chan *status.Condition, 100)
	go func() {
		for range 3 {
			if c := <-told; c == nil || c.Code != Off || c.Severity != "warning" || !strings.Contains(c.Text, path) || c.Remedy == "" {
				t.Errorf("condition %+v", c)
			}
		}
		good := path + ".new"
		if err := os.WriteFile(good, []byte("basic_auth_users: {}\n"), 0o600); err == nil {
			err = os.Rename(good, path)
			if err != nil {
				t.Error(err)
			}
		}
	}()
	start(t, c, func(c *status.Condition) { told <- c })
	if len(lines) != 1 {
		t.Errorf("%d lines in the journal, want 1", len(lines))
	}
}
