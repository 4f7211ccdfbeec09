// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func day(n int) time.Time { return noon.AddDate(0, 0, n) }

// pair makes a certificate and its key, both PEM.
func pair(t testing.TB, from, until time.Time) (certificate, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "box1"}, DNSNames: []string{"box1.example.com"}, NotBefore: from, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	kder, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kder}))
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n    ")
}

func tlsDocument(certificate, key string) []byte {
	return []byte("tls:\n  certificate: |\n" + indent(certificate) + "\n  key: |\n" + indent(key) + "\n")
}

func TestTLS(t *testing.T) {
	certificate, key := pair(t, day(-10), day(10))
	other, otherKey := pair(t, day(-10), day(10))
	secret := strings.Split(key, "\n")[1]
	for _, c := range []struct {
		name, certificate, key, want string
	}{
		{"pair", certificate, key, ""},
		{"chain", certificate + other, key, ""},
		{"wrong key", certificate, otherKey, "no pair"},
		{"chain the wrong way round", other + certificate, key, "no pair"},
		{"key as certificate", key, key, "holds a private key too"},
		{"certificate as key", certificate, certificate, "no private key"},
		{"certificate behind the key", certificate, key + certificate, "a certificate stands behind"},
		{"damaged certificate", strings.Replace(certificate, "M", "A", 1), key, "can't be read"},
	} {
		_, problems := Parse("f", tlsDocument(c.certificate, c.key))
		text := ""
		for _, p := range problems {
			text += p.String() + "\n"
		}
		if c.want == "" && text != "" || !strings.Contains(text, c.want) || strings.Contains(text, secret[:20]) {
			t.Errorf("%s: %s, want %q", c.name, text, c.want)
		}
	}
}

func TestCertificateDates(t *testing.T) {
	certificate, key := pair(t, day(-10), day(10))
	c, problems := Parse("f", tlsDocument(certificate, key))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, x := range []struct {
		at   time.Time
		want string
	}{{day(0), ""}, {day(11), "the certificate has expired on 2026-01-11"}, {day(-11), "the certificate counts only from 2025-12-22"}} {
		text := ""
		for _, w := range c.Warnings(x.at) {
			text += w.Text
		}
		if !strings.HasPrefix(text, x.want) || x.want == "" && text != "" {
			t.Errorf("at %v: %q, want %q", x.at, text, x.want)
		}
	}
	if s := c.String(); !strings.Contains(s, "tls.certificate: for box1.example.com, until 2026-01-11") || !strings.Contains(s, "tls.key: "+Hidden) {
		t.Error(s)
	}
}

func TestSSHKeys(t *testing.T) {
	for _, good := range []string{
		sshLine, "  " + sshLine + "\n", strings.TrimSuffix(sshLine, " you@example.com"), sshLine + ", of the office",
		"ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBMrE/SlHFqsSBf7dh9CnotqARJpSog6MpVJyovKPaFwTBkpRAQTOr3Q40CggVCIQfdVaCDPl1V8VpApP68sAtBs= ec@example.com",
		"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDeYUtzVDXy3kNI2VJDYTrN33JIu2GDUDE5a459+A8XCxORt2WGWFE+1zhWGag2gh2nhTj+h9ZakxcCOOWsQo0AVx0jbwoT4ZPJYflil2dB1yD3DQSo6sw/gM6gOO7bG7+V7DcuRwc+UXJPCXgWbNrQuPIsvQVrmR9EDK6cV/undem4xHiy9JKZzwODzUtIwEUm1UoXdpWujxrZkP5t55H9FouUB4ik68xsV0x1mGcKlt3vhp10HSd4MLcV0dxVR3aNvIaITNhiZ0XADlaClX2hGWAgTQpMs9TXZ/IFAwF2WXYMCHlenaQiWfs2sGUkOB2sxK4IyML0KMnjKnltT+0/ rsa@example.com",
	} {
		if clean, text, _ := sshKey(good); text != "" || clean != strings.TrimSpace(good) {
			t.Errorf("%s: %s", good, text)
		}
	}
}
